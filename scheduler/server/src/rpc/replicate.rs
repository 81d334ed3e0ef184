//! Copies of data: made by the workers among themselves, counted here.

use std::sync::Arc;

use futures::future::join_all;
use indexmap::IndexMap;
use oxidask_protocol::message::rpc::{GatherFrom, Replicate, ToWorkerRpc};
use oxidask_protocol::wire::Pairs;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::{Event, WorkerId};
use tracing::warn;

use super::data::Named;
use super::reply::{Refusal, raise};
use super::{Answer, Outcome, call, status};
use crate::clock::unix_time;
use crate::coordinate;
use crate::driver::Driver;
use crate::server::Server;

/// Keys and the addresses of their holders.
pub(super) type WhoHas = Vec<(Key, Vec<String>)>;

/// `replicate`: brings keys to `n` copies among `workers`.
pub(super) async fn replicate(server: &Arc<Server>, body: Replicate) -> Outcome {
    if body.branching_factor == 0 {
        return Err(raise("AssertionError", "branching_factor > 0"));
    }
    let workers: Vec<Named> = {
        let driver = server.driver();
        let named: Vec<Named> = match &body.workers {
            None => driver
                .workers
                .iter()
                .map(|peer| (peer.id, Arc::clone(&peer.address)))
                .collect(),
            Some(names) => super::workers::list(&driver, names)?,
        };
        named
            .into_iter()
            .filter(|(id, _)| driver.is_running(*id))
            .collect()
    };
    let copies = body
        .n
        .map_or(workers.len(), |n| (n as usize).min(workers.len()));
    if copies == 0 {
        return Err(raise("ValueError", "Can not use replicate to delete data"));
    }
    {
        let mut driver = server.driver();
        let mut missing = Vec::new();
        for key in &body.keys {
            if driver.core().task_state(key).is_none() {
                return Err(super::reply::key_error(&key.to_string()));
            }
            if driver.core().who_has(key).is_empty() {
                missing.push(key.clone());
            }
        }
        if !missing.is_empty() {
            return Answer::value(partial_fail(&missing));
        }
        if body.delete {
            let mut targets = Vec::new();
            for key in &body.keys {
                let holders: Vec<WorkerId> = driver
                    .core()
                    .who_has(key)
                    .into_iter()
                    .filter(|holder| workers.iter().any(|(id, _)| id == holder))
                    .collect();
                targets.extend(holders.into_iter().skip(copies).map(|h| (key.clone(), h)));
            }
            if !targets.is_empty() {
                drop_copies(server, &mut driver, targets, "replicate");
            }
        }
    }
    let branching = usize::try_from(body.branching_factor).unwrap_or(usize::MAX);
    copy(server, &body.keys, copies, &workers, branching).await?;
    let event = Value::map([
        ("action", Value::from("replicate")),
        (
            "workers",
            Value::array(workers.iter().map(|(_, address)| &**address)),
        ),
        ("key-count", body.keys.len().into()),
        ("branching-factor", body.branching_factor.into()),
    ]);
    coordinate::log_event(server, &mut server.driver(), &["all"], &event);
    Answer::nil()
}

/// Has workers drop copies, and says so in the event log of each.
pub(super) fn drop_copies(
    server: &Server,
    driver: &mut Driver,
    targets: Vec<(Key, WorkerId)>,
    why: &str,
) {
    let mut by_worker: IndexMap<WorkerId, Vec<Value>> = IndexMap::new();
    for (key, worker) in &targets {
        by_worker.entry(*worker).or_default().push(key.into());
    }
    let stimulus_id = format!("{why}-{}", unix_time()).into();
    driver.handle(Event::ReplicasDropped {
        targets,
        stimulus_id,
    });
    for (worker, keys) in by_worker {
        let address = driver
            .workers
            .get(worker)
            .map(|peer| Arc::clone(&peer.address));
        if let Some(address) = address {
            let event = Value::map([
                ("action", Value::from("remove-worker-data")),
                ("keys", Value::Array(keys)),
            ]);
            coordinate::log_event(server, driver, &[&*address], &event);
        }
    }
}

/// `{"status": "partial-fail", "keys": …}`.
pub(super) fn partial_fail(keys: &[Key]) -> Value {
    Value::map([
        ("status", Value::from("partial-fail")),
        ("keys", status::keys(keys)),
    ])
}

/// Copies keys until each is on `copies` of `workers`, as a tree: what has a copy gives `branching` more per round.
///
/// Ends when a round has brought nothing new, so workers that fail cannot keep it going.
pub(super) async fn copy(
    server: &Arc<Server>,
    keys: &[Key],
    copies: usize,
    workers: &[Named],
    branching: usize,
) -> Result<(), Refusal> {
    loop {
        let mut gathers: Vec<(Named, WhoHas)> = Vec::new();
        {
            let driver = server.driver();
            for key in keys {
                let holders = driver.core().who_has(key);
                if holders.is_empty() {
                    continue;
                }
                let have = workers
                    .iter()
                    .filter(|(id, _)| holders.contains(id))
                    .count();
                let missing = copies.saturating_sub(have);
                let count = missing.min(branching.saturating_mul(holders.len()));
                let addresses: Vec<String> = driver
                    .holders(key)
                    .iter()
                    .map(|address| address.to_string())
                    .collect();
                let takers = workers
                    .iter()
                    .filter(|(id, _)| !holders.contains(id))
                    .take(count);
                for taker in takers {
                    let item = (key.clone(), addresses.clone());
                    match gathers.iter_mut().find(|(known, _)| known.0 == taker.0) {
                        Some((_, items)) => items.push(item),
                        None => gathers.push((taker.clone(), vec![item])),
                    }
                }
            }
        }
        if gathers.is_empty() {
            return Ok(());
        }
        log_gathers(server, &gathers, "replicate-add");
        let rounds = gathers
            .into_iter()
            .map(|(taker, who_has)| gather_on(server, taker, who_has));
        let gained: usize = join_all(rounds).await.into_iter().sum();
        if gained == 0 {
            warn!(
                keys = keys.len(),
                "replication gives up: no worker could fetch anything"
            );
            return Ok(());
        }
    }
}

/// Says in the event log of each taker what it is to fetch.
pub(super) fn log_gathers(server: &Server, gathers: &[(Named, WhoHas)], action: &str) {
    let mut driver = server.driver();
    for ((_, address), who_has) in gathers {
        let holders = |(key, holders): &(Key, Vec<String>)| {
            let holders = Value::array(holders.iter().map(String::as_str));
            (Value::from(key), holders)
        };
        let event = Value::map([
            ("action", Value::from(action)),
            ("who_has", Value::Map(who_has.iter().map(holders).collect())),
        ]);
        coordinate::log_event(server, &mut driver, &[&**address], &event);
    }
}

/// Lets a worker fetch keys from others. Gives how many it got.
pub(super) async fn gather_on(
    server: &Arc<Server>,
    (id, address): Named,
    who_has: WhoHas,
) -> usize {
    let keys: Vec<Key> = who_has.iter().map(|(key, _)| key.clone()).collect();
    let request = ToWorkerRpc::Gather(GatherFrom {
        who_has: Pairs(who_has),
    });
    let failed: Vec<Key> = match call(server, &address, &request).await {
        Ok(answer) => answer
            .field("keys")
            .and_then(Value::as_array)
            .unwrap_or_default()
            .iter()
            .filter_map(Value::to_key)
            .collect(),
        Err(error) => {
            warn!(worker = %address, error = error.exception_text, "worker failed to fetch copies");
            return 0;
        }
    };
    let got: Vec<Key> = keys
        .into_iter()
        .filter(|key| !failed.contains(key))
        .collect();
    let mut driver = server.driver();
    let count = got.len();
    if driver.workers.get(id).is_some() && count > 0 {
        driver.handle(Event::KeysAdded {
            worker: id,
            keys: got,
            stimulus_id: format!("gather-on-worker-{}", unix_time()).into(),
        });
    }
    count
}
