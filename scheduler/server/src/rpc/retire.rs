//! Workers out of service: which could go, and letting them go with their data moved first.

use std::sync::Arc;

use oxidask_protocol::message::rpc::{RetireWorkers, WorkersToClose};
use oxidask_protocol::{PayloadKind, Value};
use oxidask_scheduler_core::ToClose;
use oxidask_scheduler_core::WorkerId;
use oxidask_scheduler_core::event::WorkerStatus;
use tracing::{info, warn};

use super::python::refusal;
use super::reply::{Refusal, raise};
use super::{Answer, Outcome, status};
use crate::aside::{Hook, Pickle};
use crate::coordinate;
use crate::driver::Driver;
use crate::membership;
use crate::peers::{PeerName, WorkerPeer};
use crate::server::Server;
use crate::translate::to_worker;

/// `workers_to_close`: one attribute of each worker that could go.
pub(super) async fn workers_to_close(server: &Arc<Server>, body: WorkersToClose) -> Outcome {
    let attribute = body.attribute.clone();
    let chosen = choose(server, body).await?;
    let driver = server.driver();
    let values: Result<Vec<Value>, Refusal> = chosen
        .into_iter()
        .filter_map(|id| driver.workers.get(id))
        .map(|peer| attribute_of(peer, &attribute))
        .collect();
    Answer::value(Value::Array(values?))
}

fn attribute_of(peer: &WorkerPeer, attribute: &str) -> Result<Value, Refusal> {
    Ok(match attribute {
        "address" => (&*peer.address).into(),
        "name" => peer.name.clone(),
        "host" => (&*peer.host).into(),
        "nanny" => peer.nanny.as_deref().into(),
        "nthreads" => peer.nthreads.into(),
        "memory_limit" => peer.memory_limit.into(),
        "pid" => peer.pid.clone(),
        "local_directory" => peer.local_directory.as_str().into(),
        "server_id" => peer.server_id.as_str().into(),
        other => {
            let text = format!("'WorkerState' object has no attribute {other:?}");
            return Err(raise("AttributeError", &text));
        }
    })
}

/// The workers that could go.
pub(super) async fn choose(
    server: &Arc<Server>,
    body: WorkersToClose,
) -> Result<Vec<WorkerId>, Refusal> {
    let groups = match body.key {
        Value::Nil => Vec::new(),
        key => {
            let key = pickle_of(key)?;
            let workers: Vec<(WorkerId, String)> = server
                .driver()
                .workers
                .iter()
                .map(|peer| (peer.id, peer.address.to_string()))
                .collect();
            let addresses: Vec<String> = workers.iter().map(|(_, a)| a.clone()).collect();
            let numbers = server
                .aside
                .worker_groups(key, &addresses)
                .await
                .map_err(refusal)?;
            let ids = workers.into_iter().map(|(id, _)| id);
            ids.zip(numbers.iter().map(u64::to_string)).collect()
        }
    };
    let candidates = if server.aside.wants(Hook::ValidWorkersDownscaling) {
        let allowed = server.aside.workers_downscaling().await.map_err(refusal)?;
        let driver = server.driver();
        let ids = allowed.iter().filter_map(|a| driver.workers.by_address(a));
        Some(ids.map(|peer| peer.id).collect())
    } else {
        None
    };
    let size = |n: Option<u64>| n.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    Ok(server.driver().core().workers_to_close(&ToClose {
        memory_ratio: body.memory_ratio,
        n: size(body.n),
        minimum: size(body.minimum),
        target: size(body.target),
        groups,
        candidates,
    }))
}

/// The function in a request: a pickle as bytes, or a function that the sender's Dask pickled for the message.
fn pickle_of(key: Value) -> Result<Pickle, Refusal> {
    match key {
        Value::Bin(pickle) => Ok(Pickle::Bytes(pickle)),
        Value::Payload(payload) if payload.kind == PayloadKind::Pickled => {
            Ok(Pickle::Payload(payload))
        }
        _ => Err(raise(
            "TypeError",
            "key must be a callable, or the pickle of one",
        )),
    }
}

/// `retire_workers`: gives the identity of each worker that went.
pub(super) async fn retire(server: &Arc<Server>, body: RetireWorkers) -> Outcome {
    let stimulus_id = body.stimulus_id.clone();
    let (close, remove) = (body.close_workers, body.remove);
    let chosen = selected(server, body).await?;
    if chosen.is_empty() {
        return Answer::value(Value::Map(Vec::new()));
    }
    info!(workers = chosen.len(), stimulus_id, "workers retire");
    let answer = server.driver().retire(chosen, &stimulus_id);
    let outcome = answer
        .await
        .map_err(|_| raise("RuntimeError", "the scheduler is closing"))?;
    let mut driver = server.driver();
    let (mut gone, mut retired, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for id in outcome.retired {
        // One that left by itself while its data were moved is retired as well, but there is nothing to tell of it.
        let Some(peer) = driver.workers.get(id) else {
            continue;
        };
        let address = Arc::clone(&peer.address);
        let shown = if remove {
            WorkerStatus::Closed
        } else {
            WorkerStatus::ClosingGracefully
        };
        gone.push((
            Value::from(&*address),
            status::worker_identity(peer, shown, true),
        ));
        retired.push(Arc::clone(&address));
        if remove {
            membership::remove_worker(server, &mut driver, id, true, close, &stimulus_id);
        } else if close {
            peer.outbox
                .send(|w| to_worker::close(w, "scheduler-close-worker"));
        }
    }
    for id in outcome.kept {
        if let Some(peer) = driver.workers.get(id) {
            warn!(worker = %peer.address, stimulus_id, "worker stays: nobody can take its data");
            kept.push(Arc::clone(&peer.address));
        }
    }
    log_retired(server, &mut driver, &retired, &kept, &stimulus_id);
    Answer::value(Value::Map(gone))
}

/// Puts into the event log which workers went, and which could not.
pub(crate) fn log_retired(
    server: &Server,
    driver: &mut Driver,
    retired: &[Arc<str>],
    kept: &[Arc<str>],
    stimulus_id: &str,
) {
    let names = |list: &[Arc<str>]| Value::array(list.iter().map(|address| &**address));
    let message = Value::map([
        ("action", Value::from("retire-workers")),
        ("retired", names(retired)),
        ("could-not-retire", names(kept)),
        ("stimulus_id", stimulus_id.into()),
    ]);
    coordinate::log_event(server, driver, &["all"], &message);
    for (action, list) in [("retired", retired), ("could-not-retire", kept)] {
        let topics: Vec<&str> = list.iter().map(|address| &**address).collect();
        let message = Value::map([
            ("action", Value::from(action)),
            ("stimulus_id", stimulus_id.into()),
        ]);
        coordinate::log_event(server, driver, &topics, &message);
    }
}

/// The workers that are meant: named, given by address, or those that could go.
async fn selected(server: &Arc<Server>, body: RetireWorkers) -> Result<Vec<WorkerId>, Refusal> {
    let rules = body.memory_ratio.is_some()
        || body.n.is_some()
        || body.minimum.is_some()
        || body.target.is_some()
        || body.key != Value::Nil;
    match (body.workers, body.names) {
        (Some(_), Some(_)) => Err(raise(
            "TypeError",
            "names and workers are mutually exclusive",
        )),
        (Some(_), None) | (None, Some(_)) if rules => Err(raise(
            "TypeError",
            "Parameters for workers_to_close() are mutually exclusive with names and workers",
        )),
        (Some(addresses), None) => {
            let driver = server.driver();
            Ok(addresses
                .iter()
                .filter_map(|address| driver.workers.find(address))
                .map(|peer| peer.id)
                .collect())
        }
        (None, Some(names)) => {
            // Names that came through a command line have become text.
            let names: Vec<String> = names
                .iter()
                .filter_map(PeerName::from_value)
                .map(|name| name.text())
                .collect();
            let driver = server.driver();
            Ok(driver
                .workers
                .iter()
                .filter(|peer| {
                    PeerName::from_value(&peer.name)
                        .is_some_and(|name| names.contains(&name.text()))
                })
                .map(|peer| peer.id)
                .collect())
        }
        (None, None) => {
            let rules = WorkersToClose {
                memory_ratio: body.memory_ratio,
                n: body.n,
                key: body.key,
                minimum: body.minimum,
                target: body.target,
                attribute: body.attribute.0.unwrap_or_else(|| "address".to_owned()),
            };
            choose(server, rules).await
        }
    }
}
