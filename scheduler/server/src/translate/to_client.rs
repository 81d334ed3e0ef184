//! Reports for a client, written straight into what is sent to it.

use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::wire::Encode;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::action::Report;

use crate::peers::Told;

/// What a client is told about keys.
pub fn told(w: &mut Writer, told: &Told) {
    match told {
        Told::Report(what) => report(w, what),
        Told::Cancelled {
            keys,
            reason,
            message,
        } => cancelled_keys(w, keys, reason.as_deref(), message.as_deref()),
    }
}

/// What a client is told about a key.
pub fn report(w: &mut Writer, report: &Report) {
    match report {
        Report::InMemory { key, type_ } => {
            w.map(3);
            op(w, "key-in-memory", key);
            w.str("type");
            match type_ {
                Some(type_) => w.bin(type_),
                None => w.nil(),
            }
        }
        Report::Erred { key, error } => task_erred(w, key, &error.exception, &error.traceback),
        Report::LostData { key } => {
            w.map(2);
            op(w, "lost-data", key);
        }
        Report::Retried { key } => {
            w.map(2);
            op(w, "task-retried", key);
        }
    }
}

/// `task-erred`. The client takes no other fields than these.
pub fn task_erred(w: &mut Writer, key: &Key, exception: &Value, traceback: &Value) {
    w.map(4);
    op(w, "task-erred", key);
    w.str("exception");
    exception.encode(w);
    w.str("traceback");
    traceback.encode(w);
}

/// `key-in-memory` with the holders, as scatter reports it.
pub fn scattered(w: &mut Writer, key: &Key, holders: &[&str]) {
    w.map(3);
    op(w, "key-in-memory", key);
    w.str("workers");
    w.array(holders.len());
    holders.iter().for_each(|holder| w.str(holder));
}

/// `cancelled-keys`.
pub fn cancelled_keys(w: &mut Writer, keys: &[Key], reason: Option<&str>, message: Option<&str>) {
    w.map(4);
    w.str("op");
    w.str("cancelled-keys");
    w.str("keys");
    w.array(keys.len());
    keys.iter().for_each(|key| w.raw(key.wire()));
    for (name, text) in [("reason", reason), ("msg", message)] {
        w.str(name);
        match text {
            Some(text) => w.str(text),
            None => w.nil(),
        }
    }
}

/// `restart`: all futures are void.
pub fn restart(w: &mut Writer) {
    w.map(1);
    w.str("op");
    w.str("restart");
}

/// `event` of a topic.
pub fn event(w: &mut Writer, topic: &str, time: f64, message: &Value) {
    w.map(3);
    w.str("op");
    w.str("event");
    w.str("topic");
    w.str(topic);
    w.str("event");
    w.array(2);
    w.f64(time);
    message.encode(w);
}

/// `adjust-heartbeat-interval`.
pub fn heartbeat_interval(w: &mut Writer, seconds: f64) {
    w.map(2);
    w.str("op");
    w.str("adjust-heartbeat-interval");
    w.str("interval");
    w.f64(seconds);
}

fn op(w: &mut Writer, name: &str, key: &Key) {
    w.str("op");
    w.str(name);
    w.str("key");
    w.raw(key.wire());
}
