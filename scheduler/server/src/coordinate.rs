//! Extensions on the server: who waits for which reply, and what follows from a reply.

use std::sync::{Mutex, MutexGuard, PoisonError};

use oxidask_protocol::message::client::FromClient;
use oxidask_protocol::message::rpc::ToScheduler;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::{Event, Time};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::aside::Hook;
use crate::clock::unix_time;
use crate::driver::Driver;
use crate::extensions::{
    Answer, Clocks, Effect, Extensions, Limits, Output, TaskReport, View, topics,
};
use crate::server::Server;
use crate::translate::to_client;

/// Names a reply that is owed.
type Waiter = u64;

/// The extensions and the requests that wait for them.
///
/// Locked after the driver, never before it.
#[derive(Debug)]
pub struct Coordination {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    extensions: Extensions<Waiter>,
    waiting: FxHashMap<Waiter, oneshot::Sender<Answer>>,
    next: Waiter,
    /// The deadline that the timer task knows of.
    armed: Option<Time>,
}

impl View for Driver {
    fn task(&self, key: &Key) -> Option<TaskReport> {
        let state = self.core().task_state(key)?;
        let error = match state {
            oxidask_scheduler_core::action::TaskStateName::Erred => {
                self.core().task(key)?.error.map(|(_, error)| error)
            }
            _ => None,
        };
        Some(TaskReport {
            state: state.as_str(),
            error,
        })
    }

    fn is_connected(&self, name: &str) -> bool {
        self.workers.by_address(name).is_some()
            || self
                .clients
                .by_name(name)
                .is_some_and(|peer| peer.outbox.is_some())
    }
}

impl Coordination {
    /// Nothing taken, nothing stored.
    pub fn new(limits: &Limits) -> Self {
        Self {
            inner: Mutex::new(Inner {
                extensions: Extensions::new(limits),
                waiting: FxHashMap::default(),
                next: 0,
                armed: None,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When [`expire`] is due; the timer task asks.
    pub fn next_deadline(&self) -> Option<Time> {
        let mut inner = self.inner();
        inner.armed = inner.extensions.next_deadline();
        inner.armed
    }

    /// Whether finished tasks are recorded for `get_task_stream`.
    pub fn records_tasks(&self) -> bool {
        self.inner().extensions.task_stream.is_recording()
    }

    /// Records a finished task.
    pub fn record_task(&self, message: &Value) {
        self.inner().extensions.task_stream.record(message);
    }

    /// Looks at the extensions.
    pub fn with<T>(&self, look: impl FnOnce(&mut Extensions<u64>) -> T) -> T {
        look(&mut self.inner().extensions)
    }
}

/// A wait that ends when it is dropped: what it was for goes to the next in line.
struct Wait<'a> {
    server: &'a Server,
    waiter: Waiter,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut driver = self.server.driver();
        let mut inner = self.server.coordination.inner();
        if inner.waiting.remove(&self.waiter).is_some() {
            let mut out = Output::default();
            inner.extensions.cancel(&self.waiter, &*driver, &mut out);
            settle(self.server, &mut driver, &mut inner, out);
        }
    }
}

/// Runs a request for an extension; waits as long as it takes.
pub async fn request(server: &Server, call: ToScheduler) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let wait = {
        let mut driver = server.driver();
        let mut inner = server.coordination.inner();
        for key in driver.take_forgotten() {
            inner.extensions.metadata.forget(&key);
        }
        if let ToScheduler::SetMetadata(body) = &call
            && let Some(key) = body.keys.first().and_then(Value::to_key)
        {
            driver.watch_key(key);
        }
        inner.next += 1;
        let waiter = inner.next;
        inner.waiting.insert(waiter, sender);
        let mut out = Output::default();
        let clocks = Clocks {
            now: server.clock.now(),
            unix: unix_time(),
        };
        if let ToScheduler::LogEvent(body) = &call
            && let Ok(topics) = topics(&body.topic)
        {
            tell_event(server, &topics, &body.msg);
        }
        inner
            .extensions
            .request(clocks, call, waiter, &*driver, &mut out);
        settle(server, &mut driver, &mut inner, out);
        Wait { server, waiter }
    };
    let answer = receiver.await;
    drop(wait);
    answer.unwrap_or(Ok(Value::Nil))
}

/// Takes a message of a client's stream; gives it back if it is for no extension.
pub fn stream_message(
    server: &Server,
    driver: &mut Driver,
    client: &str,
    message: FromClient,
) -> Option<FromClient> {
    let mut inner = server.coordination.inner();
    let mut out = Output::default();
    let left = inner.extensions.stream_message(client, message, &mut out);
    settle(server, driver, &mut inner, out);
    left
}

/// Ends the waits and leases whose time is over.
pub fn expire(server: &Server) {
    let mut driver = server.driver();
    let mut inner = server.coordination.inner();
    let mut out = Output::default();
    inner
        .extensions
        .expire(server.clock.now(), &*driver, &mut out);
    settle(server, &mut driver, &mut inner, out);
}

/// Says that keys may have become known.
pub fn keys_changed(server: &Server, driver: &mut Driver) {
    let mut inner = server.coordination.inner();
    settle(server, driver, &mut inner, Output::default());
}

/// A client left.
pub fn client_left(server: &Server, driver: &mut Driver, name: &str) {
    let mut inner = server.coordination.inner();
    let mut out = Output::default();
    let now = server.clock.now();
    inner.extensions.client_left(now, name, &mut out);
    settle(server, driver, &mut inner, out);
}

/// A worker left.
pub fn worker_left(server: &Server, driver: &mut Driver, address: &str) {
    let mut inner = server.coordination.inner();
    inner.extensions.worker_left(server.clock.now(), address);
    settle(server, driver, &mut inner, Output::default());
}

/// Logs an event under topics and tells those who subscribed.
pub fn log_event(server: &Server, driver: &mut Driver, topics: &[&str], message: &Value) {
    let mut inner = server.coordination.inner();
    let mut out = Output::default();
    inner
        .extensions
        .topics
        .log(unix_time(), topics, message, &mut out);
    tell_event(server, topics, message);
    settle(server, driver, &mut inner, out);
}

/// Tells plugins of an event, once for each of its topics.
fn tell_event(server: &Server, topics: &[&str], message: &Value) {
    if server.aside.wants(Hook::LogEvent) {
        for topic in topics {
            let args = vec![(*topic).into(), message.clone()];
            server.aside.tell(Hook::LogEvent, args, Vec::new());
        }
    }
}

/// Carries out effects, then sends replies, until nothing more follows.
fn settle(server: &Server, driver: &mut Driver, inner: &mut Inner, mut out: Output<Waiter>) {
    loop {
        for effect in out.effects.drain(..) {
            carry_out(driver, effect);
        }
        for (waiter, answer) in out.replies.drain(..) {
            if let Some(sender) = inner.waiting.remove(&waiter) {
                // The one who waited may be gone.
                let _ = sender.send(answer);
            }
        }
        if !inner.extensions.awaits_keys() {
            break;
        }
        inner
            .extensions
            .keys_changed(server.clock.now(), driver, &mut out);
        if out.effects.is_empty() && out.replies.is_empty() {
            break;
        }
    }
    let deadline = inner.extensions.next_deadline();
    if deadline.is_some_and(|deadline| inner.armed.is_none_or(|armed| deadline < armed)) {
        inner.armed = deadline;
        server.timer.notify_one();
    }
}

fn carry_out(driver: &mut Driver, effect: Effect) {
    match effect {
        Effect::DesireKeys { client, keys } => {
            let client = driver.client(&client);
            driver.handle(Event::ClientDesiresKeys { client, keys });
        }
        Effect::ReleaseKeys { client, keys } => {
            if let Some(client) = driver.clients.by_name(&client).map(|peer| peer.id) {
                driver.handle(Event::ClientReleasesKeys { client, keys });
            }
        }
        Effect::RemoveClient { client } => {
            if let Some(client) = driver.clients.by_name(&client).map(|peer| peer.id) {
                driver.remove_client(client);
            }
        }
        Effect::Event {
            client,
            topic,
            at,
            message,
        } => {
            let peer = driver.clients.by_name(&client);
            if let Some(outbox) = peer.and_then(|peer| peer.outbox.as_ref()) {
                outbox.send(|w| to_client::event(w, &topic, at, &message));
            }
        }
    }
}
