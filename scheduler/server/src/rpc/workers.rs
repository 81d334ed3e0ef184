//! What workers say about themselves by request.

use std::sync::Arc;

use oxidask_protocol::message::rpc::{Address, SetResources};
use oxidask_protocol::message::worker::HeartbeatWorker;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::{Event, event, heartbeat_interval};
use tracing::warn;

use super::data::Named;
use super::reply::{Refusal, raise};
use super::{Answer, Outcome};
use crate::clock::unix_time;
use crate::driver::Driver;
use crate::membership;
use crate::server::Server;
use crate::translate::from_worker::{amounts, seconds};

/// `heartbeat_worker`: a sign of life with measurements.
pub(super) fn heartbeat(server: &Server, body: HeartbeatWorker) -> Outcome {
    let now = unix_time();
    let mut driver = server.driver();
    let Some(worker) = driver
        .workers
        .find(&Value::from(body.address.as_str()))
        .map(|peer| peer.id)
    else {
        warn!(
            worker = body.address,
            "heartbeat of a worker that is not registered"
        );
        return Answer::value(Value::map([("status", Value::from("missing"))]));
    };
    let metrics = body.metrics.detached();
    let mut event = heartbeat_event(worker, &metrics, body.executing.0);
    event.spans = span_metrics(&body.extensions);
    let managed = driver.core().worker(worker).map_or(0, |view| view.nbytes);
    if let Some(peer) = driver.workers.get_mut(worker) {
        peer.last_seen = now;
        peer.memory.measured(&metrics, managed, now);
        event.memory = peer.memory.by(server.settings.memory_measure, managed);
        peer.metrics = metrics;
        if body.now.is_finite() && body.now > 0.0 {
            peer.time_delay = now - body.now;
        }
    }
    driver.handle(Event::Heartbeat(event));
    Answer::value(Value::map([
        ("status", Value::from("OK")),
        ("time", now.into()),
        (
            "heartbeat-interval",
            heartbeat_interval(driver.workers.len())
                .as_secs_f64()
                .into(),
        ),
    ]))
}

/// The event for measurements.
pub fn heartbeat_event(
    worker: oxidask_scheduler_core::WorkerId,
    metrics: &Value,
    executing: Vec<(Key, f64)>,
) -> event::Heartbeat {
    let bandwidth = metrics.field("bandwidth");
    let total = bandwidth
        .and_then(|bandwidth| bandwidth.field("total"))
        .and_then(Value::as_f64);
    let transfers = bandwidth
        .and_then(|bandwidth| bandwidth.field("workers"))
        .and_then(Value::as_map)
        .unwrap_or_default()
        .iter()
        .filter_map(|(_, measured)| measured.as_array()?.get(1)?.as_u64())
        .sum();
    let number = |value: Option<&Value>| value.and_then(Value::as_f64).map_or(0, |n| n as u64);
    event::Heartbeat {
        worker: Some(worker),
        executing: executing
            .into_iter()
            .filter_map(|(key, running)| Some((key, seconds(running)?)))
            .collect(),
        memory: number(metrics.field("memory")),
        spilled: number(metrics.field("spilled_bytes").and_then(|s| s.field("disk"))),
        bandwidth: total
            .filter(|total| total.is_finite())
            .map(|total| (total, transfers)),
        spans: Vec::new(),
    }
}

/// What a worker measured for spans: a map of `(context, span, …)` to amounts.
fn span_metrics(extensions: &Value) -> Vec<(String, Key, f64)> {
    let measured = extensions.field("spans").and_then(Value::as_map);
    let one = |(what, amount): &(Value, Value)| {
        let mut parts = what.as_array()?.to_vec();
        if parts.len() < 2 {
            return None;
        }
        let Value::Str(span) = parts.remove(1) else {
            return None;
        };
        let what = Value::Array(parts).to_key()?;
        Some((span, what, amount.as_f64().filter(|n| n.is_finite())?))
    };
    let measured = measured.unwrap_or_default();
    measured.iter().filter_map(one).collect()
}

/// `unregister`: a worker leaves, as its nanny says.
pub(super) fn unregister(server: &Server, body: &Address) -> Outcome {
    let stimulus_id = match &body.stimulus_id.0 {
        Some(stimulus_id) => stimulus_id.clone(),
        None => format!("unregister-{}", unix_time()),
    };
    let mut driver = server.driver();
    let worker = driver
        .workers
        .find(&Value::from(body.address.as_str()))
        .map(|peer| peer.id);
    let Some(worker) = worker else {
        return Answer::value("already-removed");
    };
    membership::remove_worker(server, &mut driver, worker, false, true, &stimulus_id);
    Answer::value("OK")
}

/// `set_resources`: a worker has other resources now.
pub(super) fn set_resources(server: &Server, body: SetResources) -> Outcome {
    let mut driver = server.driver();
    let (worker, _) = super::data::worker(&driver, &Value::from(body.worker.as_str()))?;
    amounts(&body.resources.0).map_err(|reason| raise("ValueError", &reason))?;
    if let Some(peer) = driver.workers.get_mut(worker) {
        for (name, amount) in &body.resources.0 {
            match peer.resources.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = *amount,
                None => peer.resources.push((name.clone(), *amount)),
            }
        }
        let resources = peer.resources.clone();
        driver.handle(Event::ResourcesSet { worker, resources });
    }
    Answer::value("OK")
}

/// Workers out of addresses and hosts, as `workers_list` reads them: what holds a colon is an address, all else a
/// part of one.
///
/// # Errors
/// `KeyError` for an address that is not registered.
pub(super) fn list(driver: &Driver, names: &[Value]) -> Result<Vec<Named>, Refusal> {
    let mut out: Vec<Named> = Vec::new();
    for name in names {
        let found: Vec<Named> = match name.as_str() {
            Some(part) if !part.contains(':') => driver
                .workers
                .iter()
                .filter(|peer| peer.address.contains(part))
                .map(|peer| (peer.id, Arc::clone(&peer.address)))
                .collect(),
            _ => vec![super::data::worker(driver, name)?],
        };
        for named in found {
            if !out.contains(&named) {
                out.push(named);
            }
        }
    }
    Ok(out)
}
