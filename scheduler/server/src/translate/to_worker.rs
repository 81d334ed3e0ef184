//! Actions for a worker, written straight into what is sent to it.

use std::sync::Arc;

use oxidask_protocol::Key;
use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::wire::Encode;
use oxidask_scheduler_core::WorkerId;
use oxidask_scheduler_core::action::ComputeTask;

use crate::peers::{WorkerPeer, Workers};

/// A `compute-task` as the version of the worker expects it.
pub fn compute_task(
    w: &mut Writer,
    task: &ComputeTask,
    workers: &Workers,
    peer: &WorkerPeer,
    stimulus_id: &str,
) {
    w.map(if peer.takes_duration { 13 } else { 12 });
    op(w, "compute-task");
    w.str("key");
    w.raw(task.key.wire());
    w.str("run_id");
    w.int(task.run_id);
    w.str("priority");
    w.array(3);
    number(w, task.priority.0);
    number(w, task.priority.1);
    w.int(task.priority.2);
    w.str("stimulus_id");
    w.str(stimulus_id);
    w.str("who_has");
    w.map(task.dependencies.len());
    for (key, holders, _) in &task.dependencies {
        w.raw(key.wire());
        addresses(w, holders, workers);
    }
    w.str("nbytes");
    w.map(task.dependencies.len());
    for (key, _, nbytes) in &task.dependencies {
        w.raw(key.wire());
        w.uint(*nbytes);
    }
    w.str("run_spec");
    w.payload(&task.run_spec);
    w.str("resource_restrictions");
    w.map(task.annotations.as_ref().map_or(0, |a| a.resources.len()));
    for (name, amount) in task.annotations.iter().flat_map(|a| &a.resources) {
        w.str(name);
        number(w, *amount);
    }
    w.str("actor");
    w.bool(task.actor);
    w.str("annotations");
    match &task.annotations {
        Some(annotations) if annotations.raw.as_map().is_some() => annotations.raw.encode(w),
        _ => w.map(0),
    }
    w.str("span_id");
    match &task.span_id {
        Some(span) => w.str(span),
        None => w.nil(),
    }
    if peer.takes_duration {
        w.str("duration");
        w.f64(task.duration);
    }
}

/// `free-keys` or `remove-replicas`.
pub fn keys(w: &mut Writer, name: &str, keys: &[Key], stimulus_id: &str) {
    w.map(3);
    op(w, name);
    w.str("keys");
    w.array(keys.len());
    keys.iter().for_each(|key| w.raw(key.wire()));
    stimulus(w, stimulus_id);
}

/// `acquire-replicas`.
pub fn acquire_replicas(
    w: &mut Writer,
    keys: &[(Key, Vec<WorkerId>, u64)],
    workers: &Workers,
    stimulus_id: &str,
) {
    w.map(4);
    op(w, "acquire-replicas");
    w.str("who_has");
    w.map(keys.len());
    for (key, holders, _) in keys {
        w.raw(key.wire());
        addresses(w, holders, workers);
    }
    w.str("nbytes");
    w.map(keys.len());
    for (key, _, nbytes) in keys {
        w.raw(key.wire());
        w.uint(*nbytes);
    }
    stimulus(w, stimulus_id);
}

/// `refresh-who-has`.
pub fn refresh_who_has(
    w: &mut Writer,
    who_has: &[(Key, Vec<WorkerId>)],
    workers: &Workers,
    stimulus_id: &str,
) {
    w.map(3);
    op(w, "refresh-who-has");
    w.str("who_has");
    w.map(who_has.len());
    for (key, holders) in who_has {
        w.raw(key.wire());
        addresses(w, holders, workers);
    }
    stimulus(w, stimulus_id);
}

/// `worker-status-change`.
pub fn status_change(w: &mut Writer, status: &str, stimulus_id: &str) {
    w.map(3);
    op(w, "worker-status-change");
    w.str("status");
    w.str(status);
    stimulus(w, stimulus_id);
}

/// `steal-request`: give a task back if it has not begun.
pub fn steal_request(w: &mut Writer, key: &Key, stimulus_id: &str) {
    w.map(3);
    op(w, "steal-request");
    w.str("key");
    w.raw(key.wire());
    stimulus(w, stimulus_id);
}

/// `remove-worker`: another worker is gone.
pub fn remove_worker(w: &mut Writer, address: &Arc<str>, stimulus_id: &str) {
    w.map(3);
    op(w, "remove-worker");
    w.str("worker");
    w.str(address);
    stimulus(w, stimulus_id);
}

/// `shuffle-fail`.
pub fn shuffle_fail(w: &mut Writer, id: &str, run_id: i64, message: &str) {
    w.map(4);
    op(w, "shuffle-fail");
    w.str("shuffle_id");
    w.str(id);
    w.str("run_id");
    w.int(run_id);
    w.str("message");
    w.str(message);
}

/// `close`: shut down.
pub fn close(w: &mut Writer, reason: &str) {
    w.map(2);
    op(w, "close");
    w.str("reason");
    w.str(reason);
}

/// `close-stream`.
pub fn close_stream(w: &mut Writer) {
    w.map(1);
    op(w, "close-stream");
}

fn op(w: &mut Writer, name: &str) {
    w.str("op");
    w.str(name);
}

fn stimulus(w: &mut Writer, stimulus_id: &str) {
    w.str("stimulus_id");
    w.str(stimulus_id);
}

fn addresses(w: &mut Writer, holders: &[WorkerId], workers: &Workers) {
    // A holder that is gone is not told to anyone, so the count may be smaller than that of the core.
    let known = || holders.iter().filter_map(|id| workers.get(*id));
    w.array(known().count());
    known().for_each(|peer| w.raw(&peer.address_wire));
}

/// Whole numbers as ints, as stock peers write them.
fn number(w: &mut Writer, value: f64) {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        w.int(value as i64);
    } else {
        w.f64(value);
    }
}
