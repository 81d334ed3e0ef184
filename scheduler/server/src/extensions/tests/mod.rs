//! Stimuli in, replies and effects out.

mod datasets;
mod events;
mod metadata;
mod multi_locks;
mod queues;
mod semaphores;
mod task_stream;
mod topics;
mod variables;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use oxidask_protocol::message::client::FromClient;
use oxidask_protocol::message::encode_one;
use oxidask_protocol::message::rpc::ToScheduler;
use oxidask_protocol::msgpack::Reader;
use oxidask_protocol::wire::Decode;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::Time;
use oxidask_scheduler_core::event::TaskError;

use super::{Clocks, Effect, Extensions, Limits, Output, TaskReport, View};

/// Unix time of the test's start.
const EPOCH: f64 = 1_000_000.0;

#[derive(Default)]
struct Scheduler {
    tasks: HashMap<Key, TaskReport>,
    connected: Vec<String>,
}

impl View for Scheduler {
    fn task(&self, key: &Key) -> Option<TaskReport> {
        self.tasks.get(key).cloned()
    }

    fn is_connected(&self, name: &str) -> bool {
        self.connected.iter().any(|client| client == name)
    }
}

/// Extensions under test; waiters are numbers.
struct Bench {
    extensions: Extensions<u32>,
    scheduler: Scheduler,
    seconds: f64,
    out: Output<u32>,
}

impl Bench {
    fn new() -> Self {
        Self::with(&Limits::default())
    }

    fn with(limits: &Limits) -> Self {
        Self {
            extensions: Extensions::new(limits),
            scheduler: Scheduler::default(),
            seconds: 0.0,
            out: Output::default(),
        }
    }

    fn now(&self) -> Time {
        Time::default() + Duration::from_secs_f64(self.seconds)
    }

    /// A request as a client sends it: op and fields.
    fn ask<const N: usize>(&mut self, waiter: u32, op: &str, fields: [(&str, Value); N]) {
        let request: ToScheduler = message(op, fields);
        assert!(Extensions::<u32>::takes(&request), "{op}");
        let clocks = Clocks {
            now: self.now(),
            unix: EPOCH + self.seconds,
        };
        self.extensions
            .request(clocks, request, waiter, &self.scheduler, &mut self.out);
    }

    /// A message on a client's stream.
    fn say<const N: usize>(&mut self, client: &str, op: &str, fields: [(&str, Value); N]) {
        let message: FromClient = message(op, fields);
        let left = self
            .extensions
            .stream_message(client, message, &mut self.out);
        assert_eq!(left, None, "{op}");
    }

    /// Lets time pass, stopping at every deadline as the driver does.
    fn pass(&mut self, seconds: f64) {
        let end = self.seconds + seconds;
        while let Some(at) = self.extensions.next_deadline() {
            if at.as_secs_f64() > end {
                break;
            }
            self.seconds = self.seconds.max(at.as_secs_f64());
            let before = (at, self.out.replies.len());
            self.extensions.expire(at, &self.scheduler, &mut self.out);
            let after = self.extensions.next_deadline();
            assert!(
                after.is_none_or(|next| next > at) || self.out.replies.len() > before.1,
                "a deadline that has no effect spins the driver"
            );
        }
        self.seconds = end;
    }

    fn task(&mut self, key: &str, state: &'static str) {
        let report = TaskReport { state, error: None };
        self.scheduler.tasks.insert(Key::from(key), report);
        if self.extensions.awaits_keys() {
            let now = self.now();
            self.extensions
                .keys_changed(now, &self.scheduler, &mut self.out);
        }
    }

    /// The connection of a waiter closes.
    fn hang_up(&mut self, waiter: u32) {
        self.extensions
            .cancel(&waiter, &self.scheduler, &mut self.out);
    }

    /// Replies since the last look, exceptions as `Class: text`.
    fn replies(&mut self) -> Vec<(u32, Value)> {
        self.out
            .replies
            .drain(..)
            .map(|(waiter, answer)| match answer {
                Ok(value) => (waiter, value),
                Err(raised) => (
                    waiter,
                    Value::from(format!("{}: {}", raised.class(), raised.text())),
                ),
            })
            .collect()
    }

    fn expect<const N: usize>(&mut self, replies: [(u32, Value); N]) {
        assert_eq!(self.replies(), replies);
    }

    fn expect_silence(&mut self) {
        self.expect([]);
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out.effects)
    }
}

fn message<T: Decode, const N: usize>(op: &str, fields: [(&str, Value); N]) -> T {
    let map = Value::map([("op", Value::from(op))].into_iter().chain(fields));
    let frames = encode_one(&map);
    T::decode(&mut Reader::new(&frames[0], &frames)).unwrap()
}

fn s(text: &str) -> Value {
    Value::from(text)
}

fn n(number: i64) -> Value {
    Value::from(number)
}

fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::from(*name)).collect()
}

fn desires(client: &str, names: &[&str]) -> Effect {
    Effect::DesireKeys {
        client: client.to_owned(),
        keys: keys(names),
    }
}

fn releases(client: &str, names: &[&str]) -> Effect {
    Effect::ReleaseKeys {
        client: client.to_owned(),
        keys: keys(names),
    }
}

const YES: Value = Value::Bool(true);
const NO: Value = Value::Bool(false);
const NIL: Value = Value::Nil;
