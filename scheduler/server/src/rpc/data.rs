//! Data that come from outside, and what is asked of keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use oxidask_protocol::message::client::UpdateData;
use oxidask_protocol::message::rpc::{AddKeys, PutData, Retry, Scatter, ToWorkerRpc};
use oxidask_protocol::wire::{Omit, Pairs};
use oxidask_protocol::{Key, Payload, Value};
use oxidask_scheduler_core::action::TaskStateName;
use oxidask_scheduler_core::{ClientId, Event, WorkerId};

use super::info::coerce;
use super::reply::{Refusal, key_error, raise};
use super::{Answer, Outcome, call};
use crate::coordinate;
use crate::driver::Driver;
use crate::server::Server;
use crate::translate::to_client;

/// Where the next scatter begins, so that small ones spread over all workers.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// `scatter`: puts data on running workers, one after the other.
pub(super) async fn scatter(server: &Arc<Server>, body: Scatter) -> Outcome {
    let Scatter {
        data: Pairs(data),
        workers,
        client,
        broadcast,
        timeout,
    } = body;
    let workers = running(
        server,
        workers.as_deref(),
        Duration::try_from_secs_f64(timeout.0.unwrap_or(2.0).max(0.0)).unwrap_or(Duration::MAX),
    )
    .await?;
    let keys: Vec<Key> = data.iter().map(|(key, _)| key.clone()).collect();
    let placed = put(server, &workers, data).await?;
    {
        let mut driver = server.driver();
        let name = client.as_deref();
        let client = name.map(|name| driver.client(name));
        let data: Vec<(Key, u64, Vec<WorkerId>)> = placed
            .iter()
            .map(|(key, nbytes, worker)| (key.clone(), *nbytes, vec![worker.0]))
            .collect();
        driver.handle(Event::DataAdded { client, data });
        coordinate::keys_changed(server, &mut driver);
        for (key, _, (_, address)) in &placed {
            for (_, outbox) in driver.clients.connected() {
                outbox.send(|w| to_client::scattered(w, key, &[&**address]));
            }
        }
    }
    let copies = match broadcast {
        Value::Bool(true) => Some(workers.len()),
        Value::Bool(false) | Value::Nil => None,
        other => other.as_u64().map(|n| n as usize).filter(|n| *n > 0),
    };
    if let Some(copies) = copies {
        super::replicate::copy(server, &keys, copies, &workers, 2).await?;
    }
    let event = Value::map([
        ("action", Value::from("scatter")),
        ("client", client.as_deref().into()),
        ("count", keys.len().into()),
    ]);
    let topics: Vec<&str> = client.as_deref().into_iter().chain(["all"]).collect();
    coordinate::log_event(server, &mut server.driver(), &topics, &event);
    Answer::of(&keys)
}

/// A worker by number and address.
pub(super) type Named = (WorkerId, Arc<str>);

/// Running workers out of those named, or out of all; waits for one.
async fn running(
    server: &Server,
    names: Option<&[Value]>,
    timeout: Duration,
) -> Result<Vec<Named>, Refusal> {
    let mut changes = server.driver().watch_workers();
    let wait = async {
        loop {
            {
                let driver = server.driver();
                let found: Vec<Named> = match names {
                    None => driver
                        .workers
                        .iter()
                        .map(|peer| (peer.id, Arc::clone(&peer.address)))
                        .collect(),
                    Some(names) => names
                        .iter()
                        .map(|name| worker(&driver, name))
                        .collect::<Result<_, _>>()?,
                };
                let found: Vec<Named> = found
                    .into_iter()
                    .filter(|(id, _)| driver.is_running(*id))
                    .collect();
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            if changes.changed().await.is_err() {
                return Err(raise("RuntimeError", "the scheduler is closing"));
            }
        }
    };
    tokio::time::timeout(timeout, wait)
        .await
        .unwrap_or_else(|_| Err(raise("TimeoutError", "No valid workers found")))
}

/// A registered worker by name or address.
///
/// # Errors
/// `KeyError` if there is none.
pub(super) fn worker(driver: &Driver, name: &Value) -> Result<Named, Refusal> {
    let address = coerce(driver, name)?;
    match driver.workers.by_address(&address) {
        Some(peer) => Ok((peer.id, Arc::clone(&peer.address))),
        None => Err(key_error(&address)),
    }
}

/// Sends values to workers in turn. Gives each key's size and place.
async fn put(
    server: &Server,
    workers: &[Named],
    data: Vec<(Key, Payload)>,
) -> Result<Vec<(Key, u64, Named)>, Refusal> {
    let first = NEXT.fetch_add(data.len(), Ordering::Relaxed);
    let mut parts: Vec<Vec<(Key, Payload)>> = vec![Vec::new(); workers.len()];
    for (at, item) in data.into_iter().enumerate() {
        parts[first.wrapping_add(at) % workers.len()].push(item);
    }
    let sends = workers
        .iter()
        .zip(parts)
        .filter(|(_, part)| !part.is_empty());
    let sends = sends.map(|((id, address), part)| async move {
        let keys: Vec<Key> = part.iter().map(|(key, _)| key.clone()).collect();
        let request = ToWorkerRpc::UpdateData(PutData {
            data: Pairs(part),
            stimulus_id: Omit(None),
        });
        let answer = call(server, address, &request).await?;
        let sizes = answer
            .field("nbytes")
            .and_then(Value::as_map)
            .unwrap_or_default();
        let size = |key: &Key| {
            let known = sizes.iter().find(|(k, _)| k.to_key().as_ref() == Some(key));
            known.and_then(|(_, size)| size.as_u64()).unwrap_or(0)
        };
        Ok(keys
            .into_iter()
            .map(|key| {
                let nbytes = size(&key);
                (key, nbytes, (*id, Arc::clone(address)))
            })
            .collect::<Vec<_>>())
    });
    let placed: Result<Vec<_>, Refusal> = join_all(sends).await.into_iter().collect();
    Ok(placed?.into_iter().flatten().collect())
}

/// `update_data`: a client put data on workers by itself.
pub(super) fn update_data(server: &Server, body: UpdateData) -> Outcome {
    let mut driver = server.driver();
    let client = body.client.0.map(|name| driver.client(&name));
    data_added(server, &mut driver, client, &body.who_has, &body.nbytes);
    Answer::nil()
}

/// Takes note of data that are on workers. Holders that are not registered are left out.
pub(crate) fn data_added(
    server: &Server,
    driver: &mut Driver,
    client: Option<ClientId>,
    who_has: &Pairs<Key, Vec<String>>,
    nbytes: &Pairs<Key, u64>,
) {
    let mut data = Vec::with_capacity(who_has.0.len());
    for (key, addresses) in &who_has.0 {
        let size = nbytes
            .0
            .iter()
            .find(|(k, _)| k == key)
            .map_or(0, |(_, n)| *n);
        let holders: Vec<&crate::peers::WorkerPeer> = addresses
            .iter()
            .filter_map(|address| driver.workers.find(&Value::from(address.as_str())))
            .collect();
        if holders.is_empty() {
            continue;
        }
        let shown: Vec<&str> = holders.iter().map(|peer| &*peer.address).collect();
        for (_, outbox) in driver.clients.connected() {
            outbox.send(|w| to_client::scattered(w, key, &shown));
        }
        data.push((
            key.clone(),
            size,
            holders.iter().map(|peer| peer.id).collect(),
        ));
    }
    driver.handle(Event::DataAdded { client, data });
    coordinate::keys_changed(server, driver);
}

/// `retry`: tries failed tasks again. Gives the keys that are tried.
pub(super) fn retry(server: &Server, body: Retry) -> Outcome {
    let mut driver = server.driver();
    if let Some(client) = &body.client.0 {
        let event = Value::map([
            ("action", Value::from("retry")),
            ("count", body.keys.len().into()),
        ]);
        coordinate::log_event(server, &mut driver, &[client], &event);
    }
    let erred: Vec<Key> = body
        .keys
        .into_iter()
        .filter(|key| driver.core().task_state(key) == Some(TaskStateName::Erred))
        .collect();
    driver.handle(Event::RetryKeys {
        keys: erred.clone(),
    });
    Answer::of(&erred)
}

/// `set_restrictions`: tasks may run on these workers only.
pub(super) fn set_restrictions(server: &Server, restrictions: Pairs<Key, Value>) -> Outcome {
    let mut driver = server.driver();
    for (key, _) in &restrictions.0 {
        if driver.core().task_state(key).is_none() {
            return Err(key_error(&key.to_string()));
        }
    }
    for (key, workers) in restrictions.0 {
        let workers = match workers {
            Value::Str(one) => Some(vec![one]),
            other => other
                .as_array()
                .map(|many| {
                    many.iter()
                        .filter_map(|one| one.as_str().map(str::to_owned))
                        .collect()
                })
                .filter(|many: &Vec<String>| !many.is_empty()),
        };
        driver.handle(Event::RestrictionsSet { key, workers });
    }
    Answer::nil()
}

/// `add_keys`: a worker holds copies that it fetched. `"not found"` if the worker is unknown.
pub(super) fn add_keys(server: &Server, body: AddKeys) -> Outcome {
    let mut driver = server.driver();
    let worker = driver
        .workers
        .find(&Value::from(body.worker.as_str()))
        .map(|peer| peer.id);
    let Some(worker) = worker else {
        return Answer::value("not found");
    };
    driver.handle(Event::KeysAdded {
        worker,
        keys: body.keys,
        stimulus_id: body.stimulus_id.into(),
    });
    Answer::value("OK")
}
