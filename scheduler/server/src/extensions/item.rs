//! What queues and variables hold: plain values and futures.

use oxidask_protocol::wire::Seconds;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::Time;

use super::waiters::{Waiters, Waiting, deadline};
use super::{Output, Raised, View};

/// What can be stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    /// The result of a task.
    Future(Key),
    /// A value of the message.
    Plain(Value),
}

impl Item {
    /// What a request brings: the result of a task (`key`), or a plain value.
    pub(super) fn new(key: Option<Key>, data: &Value) -> Self {
        key.map_or_else(|| Self::Plain(data.detached()), Self::Future)
    }

    /// The fields of a reply that carries the item; a future comes with the state of its task.
    pub(super) fn fields(&self, view: &impl View) -> Vec<(&'static str, Value)> {
        let key = match self {
            Self::Plain(value) => {
                return vec![("type", "msgpack".into()), ("value", value.clone())];
            }
            Self::Future(key) => key,
        };
        let report = view.task(key);
        let state = report.as_ref().map_or("lost", |report| report.state);
        let mut fields = vec![
            ("type", "Future".into()),
            ("value", key.into()),
            ("state", state.into()),
        ];
        if let Some(error) = report.and_then(|report| report.error) {
            fields.push(("exception", error.exception.clone()));
            fields.push(("traceback", error.traceback.clone()));
        }
        fields
    }

    fn is_known(&self, view: &impl View) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Future(key) => view.task(key).is_some(),
        }
    }
}

/// An item on its way into a queue or variable.
#[derive(Debug)]
pub(super) struct Arrival<W> {
    /// The queue or variable.
    pub(super) place: Key,
    pub(super) item: Item,
    /// When it is given up.
    pub(super) deadline: Option<Time>,
    /// To whom the reply goes.
    pub(super) waiter: W,
}

impl<W> Arrival<W> {
    pub(super) fn new(now: Time, place: Key, item: Item, timeout: Seconds, waiter: W) -> Self {
        let deadline = deadline(now, timeout);
        Self {
            place,
            item,
            deadline,
            waiter,
        }
    }

    /// Whether there is no time to wait for anything.
    pub(super) fn is_overdue(&self, now: Time) -> bool {
        self.deadline.is_some_and(|at| at <= now)
    }
}

/// Futures whose tasks are not known yet, because their graphs come on another connection.
#[derive(Debug)]
pub(super) struct Strangers<W> {
    /// By the key of the task; with the queue or variable.
    waiting: Waiters<Key, W>,
}

impl<W> Default for Strangers<W> {
    fn default() -> Self {
        Self {
            waiting: Waiters::default(),
        }
    }
}

impl<W: PartialEq> Strangers<W> {
    /// The item, if it can be stored now. A future whose task is not known waits for that here.
    pub(super) fn admit(
        &mut self,
        now: Time,
        arrival: Arrival<W>,
        view: &impl View,
        out: &mut Output<W>,
    ) -> Option<Arrival<W>> {
        if arrival.item.is_known(view) {
            return Some(arrival);
        }
        let overdue = arrival.is_overdue(now);
        match arrival.item {
            Item::Future(key) if overdue => out.raise(arrival.waiter, unknown_task(&key)),
            Item::Future(key) => self.waiting.push(Waiting {
                name: key,
                data: arrival.place,
                waiter: arrival.waiter,
                deadline: arrival.deadline,
            }),
            Item::Plain(_) => {}
        }
        None
    }

    /// Those that can be stored now.
    pub(super) fn known(&mut self, view: &impl View) -> Vec<Arrival<W>> {
        let mut known = Vec::new();
        for key in self.waiting.names() {
            if view.task(&key).is_none() {
                continue;
            }
            while let Some(waiting) = self.waiting.pop(&key) {
                known.push(Arrival {
                    place: waiting.data,
                    item: Item::Future(key.clone()),
                    deadline: waiting.deadline,
                    waiter: waiting.waiter,
                });
            }
        }
        known
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.waiting.next_deadline()
    }

    pub(super) fn expire(&mut self, now: Time, out: &mut Output<W>) {
        while let Some(waiting) = self.waiting.pop_expired(now) {
            out.raise(waiting.waiter, unknown_task(&waiting.name));
        }
    }

    pub(super) fn cancel(&mut self, waiter: &W) {
        while self.waiting.take_if(|w| w.waiter == *waiter).is_some() {}
    }
}

fn unknown_task(key: &Key) -> Raised {
    Raised::timeout(format!("Task {key} unknown to scheduler."))
}
