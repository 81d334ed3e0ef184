//! `get_cluster_state`: all that is known, for a file that helps to find out what went wrong.

use std::sync::Arc;

use oxidask_protocol::message::decode_one;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::view::{GroupView, TaskView};

use super::{Answer, reply::Refusal};
use super::{Outcome, broadcast, info, python, status, story};
use crate::driver::Driver;
use crate::server::Server;

/// What is left out of a state.
struct Exclude(Vec<String>);

impl Exclude {
    fn new(names: &Value) -> Self {
        let names = match names {
            Value::Array(names) | Value::Set(names) => names.as_slice(),
            _ => &[],
        };
        let names = names.iter().filter_map(Value::as_str);
        Self(names.map(str::to_owned).collect())
    }

    fn map<const N: usize>(&self, pairs: [(&'static str, Value); N]) -> Value {
        let kept = pairs.into_iter().filter(|(name, _)| !self.has(name));
        Value::map(kept.collect::<Vec<_>>())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }
}

/// `get_cluster_state`: the scheduler's state, those of the workers, and versions. A worker that does not answer is
/// there with its error as text.
pub(super) async fn cluster_state(server: &Arc<Server>, exclude: &Value) -> Outcome {
    let message = Value::map([
        ("op", Value::from("dump_state")),
        ("exclude", exclude.clone()),
    ]);
    let versions = Value::map([("op", Value::from("versions"))]);
    let workers: Vec<Arc<str>> = {
        let driver = server.driver();
        driver
            .workers
            .iter()
            .map(|peer| Arc::clone(&peer.address))
            .collect()
    };
    let (scheduler, states, versions_of_workers, own) = (
        scheduler_state(server, &Exclude::new(exclude)),
        ask(server, &workers, &message),
        ask(server, &workers, &versions),
        own_versions(server),
    );
    let (states, versions_of_workers, own) = tokio::join!(states, versions_of_workers, own);
    let as_text = |(address, state): (Value, Result<Value, Refusal>)| {
        (
            address,
            state.unwrap_or_else(|failure| failure.exception_text.into()),
        )
    };
    let known = versions_of_workers.into_iter();
    let known = known.filter_map(|(address, versions)| Some((address, versions.ok()?)));
    Answer::value(Value::map([
        ("scheduler", with_plain_keys(scheduler)),
        (
            "workers",
            with_plain_keys(Value::Map(states.into_iter().map(as_text).collect())),
        ),
        (
            "versions",
            Value::map([("scheduler", own), ("workers", Value::Map(known.collect()))]),
        ),
    ]))
}

/// `dump_state`: the scheduler's state alone.
pub(super) fn own_state(server: &Server, exclude: &Value) -> Outcome {
    Answer::value(with_plain_keys(scheduler_state(
        server,
        &Exclude::new(exclude),
    )))
}

/// The keys of maps that are lists become texts: who reads a dump may know no other keys.
fn with_plain_keys(value: Value) -> Value {
    match value {
        Value::Map(pairs) => {
            let plain = |(key, value): (Value, Value)| {
                let key = match &key {
                    Value::Array(_) => key.to_key().map_or(key, |key| key.to_string().into()),
                    _ => key,
                };
                (key, with_plain_keys(value))
            };
            Value::Map(pairs.into_iter().map(plain).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(with_plain_keys).collect()),
        other => other,
    }
}

async fn ask(
    server: &Arc<Server>,
    workers: &[Arc<str>],
    message: &Value,
) -> Vec<(Value, Result<Value, Refusal>)> {
    let calls = workers.iter().map(|address| async move {
        let state = broadcast::send(server, address, message).await;
        (Value::from(&**address), state)
    });
    futures::future::join_all(calls).await
}

/// The versions of the scheduler's Python environment; what is wrong with it, as text, where it has none.
async fn own_versions(server: &Arc<Server>) -> Value {
    match python::versions(server, Value::Nil).await {
        Ok(answer) => decode_one(&answer.into_frames()).unwrap_or_default(),
        Err(failure) => failure.exception_text.into(),
    }
}

fn scheduler_state(server: &Server, exclude: &Exclude) -> Value {
    let Value::Map(mut state) = status::identity(server, 0) else {
        return Value::Nil;
    };
    let driver = server.driver();
    let core = driver.core();
    let keys = core.keys();
    let tasks = keys.iter().filter_map(|key| core.task(key));
    let tasks = tasks.map(|view| (Value::from(&view.key), task(&driver, &view, exclude)));
    let groups = core.groups().into_iter();
    let groups = groups.map(|view| (Value::from(&*view.name), group(&view, exclude)));
    let workers = driver.workers.iter();
    let workers = workers.map(|peer| (Value::from(&*peer.address), worker(&driver, peer, exclude)));
    let clients = driver.clients.iter();
    let clients = clients.map(|peer| {
        let wants = Value::array(core.wanted_keys(peer.id).iter().map(Value::from));
        let fields = [
            ("client_key", Value::from(&*peer.name)),
            ("last_seen", peer.last_seen.into()),
            ("versions", peer.versions.clone()),
            ("wants_what", wants),
        ];
        (Value::from(&*peer.name), exclude.map(fields))
    });
    let log = core.story_of_all();
    let log = log.iter().map(|entry| story::row(&server.clock, entry));
    let events = server
        .coordination
        .with(|extensions| extensions.topics.all());
    let rest = exclude.map([
        ("tasks", Value::Map(tasks.collect())),
        ("task_groups", Value::Map(groups.collect())),
        ("workers", Value::Map(workers.collect())),
        ("clients", Value::Map(clients.collect())),
        ("transition_counter", core.transition_count().into()),
        ("transition_log", Value::Array(log.collect())),
        ("events", events),
    ]);
    if let Value::Map(rest) = rest {
        state.retain(|(name, _)| !rest.iter().any(|(other, _)| other == name));
        state.extend(rest);
    }
    state.retain(|(name, _)| name.as_str().is_none_or(|name| !exclude.has(name)));
    Value::Map(state)
}

fn task(driver: &Driver, view: &TaskView, exclude: &Exclude) -> Value {
    let keys = |keys: &[Key]| Value::array(keys.iter().map(Value::from));
    let address = |id| Some(Value::from(&*driver.workers.get(id)?.address));
    let wants = view.who_wants.iter();
    let wants = wants.filter_map(|id| Some(Value::from(&*driver.clients.get(*id)?.name)));
    let error = view.error.as_ref();
    exclude.map([
        ("key", Value::from(&view.key)),
        ("state", view.state.as_str().into()),
        ("prefix", (&*view.prefix).into()),
        ("group_key", (&*view.group).into()),
        ("priority", info::priority(view.priority)),
        ("dependencies", keys(&view.dependencies)),
        ("dependents", keys(&view.dependents)),
        (
            "who_has",
            Value::Array(view.who_has.iter().copied().filter_map(address).collect()),
        ),
        ("who_wants", Value::Array(wants.collect())),
        ("processing_on", view.processing_on.and_then(address).into()),
        ("nbytes", view.nbytes.into()),
        ("type", view.typename.as_deref().into()),
        ("actor", view.actor.into()),
        ("retries", u64::from(view.retries).into()),
        ("suspicious", u64::from(view.suspicious).into()),
        (
            "annotations",
            view.annotations.as_ref().map(|a| a.raw.clone()).into(),
        ),
        (
            "exception_blame",
            error.map(|(key, _)| Value::from(key)).into(),
        ),
        (
            "exception_text",
            error.map(|(_, e)| e.exception_text.as_str()).into(),
        ),
        (
            "traceback_text",
            error.map(|(_, e)| e.traceback_text.as_str()).into(),
        ),
    ])
}

fn group(view: &GroupView, exclude: &Exclude) -> Value {
    exclude.map([
        ("name", Value::from(&*view.name)),
        ("states", info::states(&view.states)),
        (
            "dependencies",
            Value::array(view.dependencies.iter().map(|name| &**name)),
        ),
        ("nbytes_total", view.figures.nbytes_total.into()),
        ("span_id", view.span.as_deref().into()),
    ])
}

fn worker(driver: &Driver, peer: &crate::peers::WorkerPeer, exclude: &Exclude) -> Value {
    let core = driver.core();
    let keys = |keys: Vec<Key>| Value::array(keys.iter().map(Value::from));
    let Some(view) = core.worker(peer.id) else {
        return Value::Nil;
    };
    let Value::Map(mut fields) = status::worker_identity(peer, view.status, true) else {
        return Value::Nil;
    };
    let more = exclude.map([
        ("address", Value::from(&*peer.address)),
        ("server_id", peer.server_id.as_str().into()),
        ("nbytes", view.nbytes.into()),
        ("occupancy", view.occupancy.into()),
        ("processing", keys(core.processing(peer.id))),
        ("has_what", keys(core.has_what(peer.id))),
    ]);
    if let Value::Map(more) = more {
        fields.extend(more);
    }
    fields.retain(|(name, _)| name.as_str().is_none_or(|name| !exclude.has(name)));
    Value::Map(fields)
}
