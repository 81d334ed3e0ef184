//! Pictures of workers, clients, groups and spans for the stand-in of the scheduler, as maps by Dask's names.

use oxidask_protocol::Value;
use oxidask_scheduler_core::Time;
use oxidask_scheduler_core::action::TaskStateName;
use oxidask_scheduler_core::view::{GroupView, SpanView};

use crate::driver::Driver;
use crate::peers::Measure;
use crate::rpc::info;
use crate::server::Server;

pub(super) fn clients(driver: &Driver) -> Value {
    let client = |peer: &crate::peers::ClientPeer| {
        let wants = driver.core().wanted_keys(peer.id);
        let fields = Value::map([
            ("wants_what", Value::array(wants.iter().map(Value::from))),
            ("last_seen", peer.last_seen.into()),
            ("versions", peer.versions.clone()),
        ]);
        (Value::from(&*peer.name), fields)
    };
    Value::Map(driver.clients.iter().map(client).collect())
}

/// What `identity` does not say of workers.
pub(super) fn workers(driver: &Driver) -> Value {
    let worker = |peer: &crate::peers::WorkerPeer| {
        let core = driver.core();
        let view = core.worker(peer.id)?;
        let memory = Measure::ALL.map(|(name, measure)| {
            let bytes = peer.memory.by(measure, view.nbytes);
            (name, Value::from(bytes))
        });
        let executing = core.executing(peer.id);
        let executing = executing
            .iter()
            .map(|(key, seconds)| Value::Array(vec![key.into(), (*seconds).into()]));
        let fields = Value::map([
            ("nbytes", Value::from(view.nbytes)),
            ("occupancy", view.occupancy.into()),
            ("memory", Value::map(memory)),
            ("executing", Value::Array(executing.collect())),
            ("idle", core.is_idle(peer.id).into()),
            ("saturated", core.is_saturated(peer.id).into()),
            ("pid", peer.pid.clone()),
            ("server_id", peer.server_id.as_str().into()),
            ("time_delay", peer.time_delay.into()),
            ("versions", peer.versions.clone()),
            ("extra", peer.extra.clone()),
        ]);
        Some((Value::from(&*peer.address), fields))
    };
    Value::Map(driver.workers.iter().filter_map(worker).collect())
}

pub(super) fn groups(server: &Server, driver: &Driver) -> Value {
    let core = driver.core();
    let groups = core.groups();
    let groups = groups.iter().map(|view| group(server, view));
    let prefixes = core.prefixes();
    let prefixes = prefixes.iter().map(|view| {
        let states = TaskStateName::KNOWN.iter().zip(view.states);
        let states = states.map(|(state, count)| (state.as_str(), Value::from(count)));
        Value::map([
            ("name", Value::from(&*view.name)),
            ("states", Value::map(states)),
            ("duration", view.duration.into()),
            ("suspicious", view.totals.suspicious.into()),
            ("output_bytes", view.totals.output_bytes.into()),
            ("compute", view.totals.compute.into()),
            ("transfer", view.totals.transfer.into()),
        ])
    });
    Value::map([
        ("groups", Value::Array(groups.collect())),
        ("prefixes", Value::Array(prefixes.collect())),
    ])
}

fn group(server: &Server, view: &GroupView) -> Value {
    let unix = |time: Option<Time>| Value::from(time.map(|time| server.clock.unix(time)));
    let figures = &view.figures;
    let durations = figures.durations.iter();
    let durations = durations.map(|(activity, seconds)| (&**activity, Value::from(*seconds)));
    Value::map([
        ("name", Value::from(&*view.name)),
        ("prefix", (&*view.prefix).into()),
        ("states", info::states(&view.states)),
        (
            "dependencies",
            Value::array(view.dependencies.iter().map(|name| &**name)),
        ),
        ("span_id", view.span.as_deref().into()),
        ("nbytes_total", figures.nbytes_total.into()),
        ("start", unix(figures.start)),
        ("stop", unix(figures.stop)),
        ("durations", Value::map(durations)),
        (
            "types",
            Value::array(figures.types.iter().map(|name| &**name)),
        ),
    ])
}

pub(super) fn spans(server: &Server, driver: &Driver) -> Value {
    let spans = driver.core().spans();
    let spans = spans.iter().map(|view| span(server, view));
    Value::map([
        ("spans", Value::Array(spans.collect())),
        ("nthreads", nthreads_history(server, driver)),
    ])
}

fn span(server: &Server, view: &SpanView) -> Value {
    let texts = |parts: &[std::sync::Arc<str>]| Value::array(parts.iter().map(|part| &**part));
    // The header of a pickled payload is the pickle; what it has beside that is data too large for a description.
    let pickles = |payloads: &[oxidask_protocol::Payload]| {
        Value::Array(
            payloads
                .iter()
                .map(|p| Value::Bin(p.header.clone()))
                .collect(),
        )
    };
    let metrics = view.metrics.iter();
    let metrics = metrics.map(|(what, amount)| Value::Array(vec![what.into(), (*amount).into()]));
    Value::map([
        ("names", texts(&view.tag.names)),
        ("ids", texts(&view.tag.ids)),
        ("enqueued", server.clock.unix(view.enqueued).into()),
        (
            "groups",
            Value::Array(view.groups.iter().map(|view| group(server, view)).collect()),
        ),
        ("metrics", Value::Array(metrics.collect())),
        ("metadata", pickles(&view.metadata)),
        ("code", pickles(&view.code)),
    ])
}

/// Log lines with their time, newest first.
pub(super) fn logs(server: &Server) -> Value {
    let lines = server.log.latest(None);
    let row = |line: &oxidask_settings::telemetry::LogLine| {
        Value::Array(vec![
            line.time.into(),
            line.level.into(),
            line.text.as_str().into(),
        ])
    };
    Value::Array(lines.iter().rev().map(row).collect())
}

/// Pairs of Unix seconds and threads.
pub(super) fn nthreads_history(server: &Server, driver: &Driver) -> Value {
    let entry =
        |(at, count): (Time, u64)| Value::Array(vec![server.clock.unix(at).into(), count.into()]);
    Value::Array(driver.core().nthreads_history().map(entry).collect())
}

/// Speed of transfers as the workers measured it, by class of the result or by peer; the latest of each.
pub(super) fn bandwidth(driver: &Driver, by: &str) -> Value {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    for peer in driver.workers.iter() {
        let measured = peer.metrics.field("bandwidth").and_then(|b| b.field(by));
        for (name, value) in measured.and_then(Value::as_map).unwrap_or_default() {
            let Some(speed) = value.as_array().and_then(|pair| pair.first()) else {
                continue;
            };
            let name = match by {
                "workers" => Value::Array(vec![(&*peer.address).into(), name.clone()]),
                _ => name.clone(),
            };
            pairs.retain(|(known, _)| *known != name);
            pairs.push((name, speed.clone()));
        }
    }
    Value::Map(pairs)
}
