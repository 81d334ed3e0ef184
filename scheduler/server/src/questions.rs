//! What user code beside the scheduler wants to know, answered from the driver.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use oxidask_protocol::message::encode_one;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::action::TaskStateName;
use oxidask_scheduler_core::view::TaskView;
use oxidask_scheduler_core::{Event, WorkerId};
use tokio::sync::mpsc;

use crate::aside::{Question, TaskInfo};
use crate::clock::unix_time;
use crate::conn::request;
use crate::driver::Driver;
use crate::rpc::{self, plugins};
use crate::server::Server;

mod state;

/// Answers questions as they come.
pub async fn run(server: Arc<Server>, mut questions: mpsc::UnboundedReceiver<Question>) {
    while let Some(question) = questions.recv().await {
        // Who asked may be gone; then nobody misses the answer.
        match question {
            Question::Rpc { message, reply } => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    let frames = match request::decode_call(&message) {
                        Ok(call) => match rpc::answer(server, call).await {
                            Ok(answer) => answer.into_frames(),
                            Err(failure) => encode_one(&*failure),
                        },
                        Err(failure) => encode_one(&*failure),
                    };
                    let _ = reply.send(frames);
                });
            }
            Question::HooksChanged { reply } => {
                plugins::observe(&server);
                let _ = reply.send(());
            }
            Question::Replicas {
                acquire,
                drop,
                reply,
            } => {
                move_replicas(&mut server.driver(), acquire, drop);
                let _ = reply.send(());
            }
            Question::TaskCount { reply } => {
                let _ = reply.send(server.driver().core().task_count() as u64);
            }
            Question::TaskKeys { reply } => {
                let _ = reply.send(server.driver().core().keys());
            }
            Question::Tasks {
                keys,
                closure,
                reply,
            } => {
                let _ = reply.send(tasks(&server.driver(), keys, closure));
            }
            Question::Attribute { name, reply } => {
                let _ = reply.send(attribute(&server, &name));
            }
        }
    }
}

/// Has copies made and dropped. Workers that have left meanwhile are passed over.
fn move_replicas(driver: &mut Driver, acquire: Vec<(Key, String)>, drop: Vec<(Key, String)>) {
    let stimulus_id: Arc<str> = format!("active_memory_manager-{}", unix_time()).into();
    let known = |pairs: Vec<(Key, String)>, driver: &Driver| -> Vec<(Key, WorkerId)> {
        let pairs = pairs.into_iter();
        pairs
            .filter_map(|(key, address)| Some((key, driver.workers.by_address(&address)?.id)))
            .collect()
    };
    let (acquire, drop) = (known(acquire, driver), known(drop, driver));
    driver.handle_all([
        Event::ReplicateTo {
            targets: acquire,
            stimulus_id: Arc::clone(&stimulus_id),
        },
        Event::ReplicasDropped {
            targets: drop,
            stimulus_id,
        },
    ]);
}

fn tasks(driver: &Driver, keys: Vec<Key>, closure: bool) -> Vec<TaskInfo> {
    let mut seen: HashSet<Key> = keys.iter().cloned().collect();
    let mut todo = VecDeque::from(keys);
    let mut out = Vec::new();
    while let Some(key) = todo.pop_front() {
        let Some(view) = driver.core().task(&key) else {
            continue;
        };
        if closure {
            for dependency in &view.dependencies {
                if seen.insert(dependency.clone()) {
                    todo.push_back(dependency.clone());
                }
            }
        }
        let address = |id| Some(driver.workers.get(id)?.address.to_string());
        let error = view.error.as_ref().map(|(_, error)| error);
        out.push(TaskInfo {
            state: view.state.as_str(),
            who_has: view.who_has.iter().copied().filter_map(address).collect(),
            who_wants: view
                .who_wants
                .iter()
                .filter_map(|client| Some(driver.clients.get(*client)?.name.to_string()))
                .collect(),
            processing_on: view.processing_on.and_then(address),
            nbytes: u64::try_from(view.nbytes).ok(),
            priority: view
                .priority
                .map_or_else(Vec::new, |(a, b, c)| vec![a, b, c as f64]),
            exception: error.and_then(|error| match &error.exception {
                Value::Payload(payload) => Some(payload.clone()),
                Value::Bin(pickle) => Some(oxidask_protocol::Payload::of_bytes(pickle.clone())),
                _ => None,
            }),
            exception_text: error.map(|error| error.exception_text.clone()),
            more: more(&view),
            dependencies: view.dependencies,
            dependents: view.dependents,
            key: view.key,
        });
    }
    out
}

fn more(view: &TaskView) -> Vec<(&'static str, Value)> {
    let annotations = view.annotations.as_deref();
    let error = view.error.as_ref();
    let resources = annotations.map_or(&[][..], |a| &a.resources);
    let resources = resources.iter();
    let resources = resources.map(|(name, amount)| (name.as_str(), Value::from(*amount)));
    vec![
        ("annotations", annotations.map(|a| a.raw.clone()).into()),
        ("retries", u64::from(view.retries).into()),
        ("suspicious", u64::from(view.suspicious).into()),
        ("actor", view.actor.into()),
        ("type", view.typename.as_deref().into()),
        ("span_id", view.span.as_deref().into()),
        (
            "exception_blame",
            error.map(|(key, _)| Value::from(key)).into(),
        ),
        (
            "traceback_text",
            error.map(|(_, e)| e.traceback_text.as_str()).into(),
        ),
        (
            "worker_restrictions",
            Value::array(view.worker_restrictions.iter().map(String::as_str)),
        ),
        ("resource_restrictions", Value::map(resources)),
    ]
}

/// An attribute of the scheduler by its Python name.
fn attribute(server: &Server, name: &str) -> Option<Value> {
    let driver = server.driver();
    let sum =
        |of: fn(&crate::peers::WorkerPeer) -> u64| -> u64 { driver.workers.iter().map(of).sum() };
    Some(match name {
        "address" => server.address().into(),
        "id" => server.id.as_str().into(),
        "status" => "running".into(),
        "clients_state" => state::clients(&driver),
        "workers_state" => state::workers(&driver),
        "groups_state" => state::groups(server, &driver),
        "spans_state" => state::spans(server, &driver),
        "logs_state" => state::logs(server),
        "bandwidth" => driver.core().bandwidth().into(),
        "bandwidth_types" => state::bandwidth(&driver, "types"),
        "bandwidth_workers" => state::bandwidth(&driver, "workers"),
        "transition_counter" => driver.core().transition_count().into(),
        "total_nthreads_history" => state::nthreads_history(server, &driver),
        "idle_since" => driver
            .core()
            .idle_since()
            .map(|since| server.clock.unix(since))
            .into(),
        "idle_timeout" => server
            .settings
            .idle_timeout
            .map(|timeout| timeout.as_secs_f64())
            .into(),
        "total_memory" => sum(|peer| peer.memory_limit).into(),
        "total_nthreads" => sum(|peer| peer.nthreads).into(),
        "total_occupancy" => driver.core().total_occupancy().into(),
        "time_started" => server.clock.started().into(),
        "unrunnable" => Value::Array(
            driver
                .core()
                .keys()
                .iter()
                .filter(|key| driver.core().task_state(key) == Some(TaskStateName::NoWorker))
                .map(Value::from)
                .collect(),
        ),
        "worker_plugins" => Value::map(
            server
                .plugins()
                .worker
                .to_pairs()
                .into_iter()
                .map(|(name, pickle)| (name, Value::Bin(pickle))),
        ),
        _ => return None,
    })
}
