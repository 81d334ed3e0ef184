//! What the scheduler says about itself and its workers, once or as they come and go.

use std::sync::Arc;

use oxidask_protocol::comm::{Comm, CommError};
use oxidask_protocol::message::encode_one;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::event::WorkerStatus;

use crate::conn::outbox::Outbox;
use crate::driver::Driver;
use crate::peers::WorkerPeer;
use crate::server::Server;

/// `identity`: the scheduler, and at most `n_workers` of its workers (negative: all).
pub fn identity(server: &Server, n_workers: i64) -> Value {
    let driver = server.driver();
    let most = usize::try_from(n_workers).unwrap_or(usize::MAX);
    let workers = driver
        .workers
        .iter()
        .take(most)
        .map(|peer| {
            (
                Value::from(&*peer.address),
                worker_identity(peer, status_of(&driver, peer), true),
            )
        })
        .collect();
    scheduler(server, &driver, workers)
}

fn scheduler(server: &Server, driver: &Driver, workers: Vec<(Value, Value)>) -> Value {
    let threads: u64 = driver.workers.iter().map(|peer| peer.nthreads).sum();
    let memory: u64 = driver.workers.iter().map(|peer| peer.memory_limit).sum();
    Value::map([
        ("type", Value::from("Scheduler")),
        ("id", server.id.as_str().into()),
        ("address", server.address().into()),
        (
            "services",
            Value::map([("dashboard", Value::from(u64::from(server.dashboard_port())))]),
        ),
        ("started", server.clock.started().into()),
        ("n_workers", driver.workers.len().into()),
        ("total_threads", threads.into()),
        ("total_memory", memory.into()),
        ("workers", Value::Map(workers)),
        // Tells clients that native graphs are understood.
        ("oxidask", env!("CARGO_PKG_VERSION").into()),
    ])
}

fn status_of(driver: &Driver, peer: &WorkerPeer) -> WorkerStatus {
    driver
        .core()
        .worker(peer.id)
        .map_or(WorkerStatus::Closed, |view| view.status)
}

/// A worker in the form of `identity`; `measured`: with what changes all the time.
pub fn worker_identity(peer: &WorkerPeer, status: WorkerStatus, measured: bool) -> Value {
    let resources = peer
        .resources
        .iter()
        .map(|(name, amount)| (Value::from(name.as_str()), Value::from(*amount)))
        .collect();
    let mut pairs = vec![
        ("type", Value::from("Worker")),
        ("id", peer.name.clone()),
        ("host", (&*peer.host).into()),
        ("resources", Value::Map(resources)),
        ("local_directory", peer.local_directory.as_str().into()),
        ("name", peer.name.clone()),
        ("nthreads", peer.nthreads.into()),
        ("memory_limit", peer.memory_limit.into()),
        ("services", peer.services.clone()),
        ("status", status.as_str().into()),
        ("nanny", peer.nanny.as_deref().into()),
    ];
    if measured {
        pairs.push(("last_seen", peer.last_seen.into()));
        pairs.push(("metrics", peer.metrics.clone()));
    }
    let mut identity = Value::map(pairs);
    if let (Value::Map(pairs), Some(extra)) = (&mut identity, peer.extra.as_map()) {
        pairs.retain(|(name, _)| !extra.iter().any(|(other, _)| other == name));
        pairs.extend_from_slice(extra);
    }
    identity
}

/// A worker as those who watch workers get it.
pub fn identity_for_watchers(peer: &WorkerPeer, status: WorkerStatus) -> Value {
    worker_identity(peer, status, false)
}

/// `subscribe_worker_status`: all workers as they are, then those that come and go, until the peer leaves.
pub async fn watch(server: Arc<Server>, mut comm: Comm) -> Result<(), CommError> {
    let outbox = Outbox::new(
        comm.writer,
        Arc::clone(&server.flusher),
        server.settings.outbox,
    );
    {
        let mut driver = server.driver();
        let workers = driver
            .workers
            .iter()
            .map(|peer| {
                let identity = identity_for_watchers(peer, status_of(&driver, peer));
                (Value::from(&*peer.address), identity)
            })
            .collect();
        outbox.send_message(&encode_one(&scheduler(&server, &driver, workers)));
        driver.observers.watchers.push(Arc::clone(&outbox));
    }
    loop {
        tokio::select! {
            biased;
            _ = outbox.pump() => break,
            frames = comm.reader.read() => match frames {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            },
        }
    }
    server
        .driver()
        .observers
        .watchers
        .retain(|watcher| !Arc::ptr_eq(watcher, &outbox));
    Ok(())
}

/// A list of keys as a value.
pub fn keys(keys: &[Key]) -> Value {
    Value::Array(keys.iter().map(Value::from).collect())
}
