//! The state as JSON.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::{Cluster, Shared, Snapshot};

/// The counts that stock Dask shows under the same path.
pub(super) async fn counts<C: Cluster>(State(shared): State<Shared<C>>) -> Json<Value> {
    let snapshot = shared.cluster.snapshot();
    let hosts: std::collections::BTreeSet<&str> = snapshot
        .workers
        .iter()
        .map(|worker| host(&worker.address))
        .collect();
    Json(json!({
        "bytes": snapshot.sum(|worker| worker.nbytes),
        "clients": snapshot.clients,
        "cores": snapshot.sum(|worker| worker.nthreads),
        "erred": snapshot.tasks_in("erred"),
        "hosts": hosts.len(),
        "idle": snapshot.workers_with(super::WorkerRow::is_idle),
        "memory": snapshot.sum(|worker| worker.in_memory),
        "processing": snapshot.sum(|worker| worker.processing),
        "released": snapshot.tasks_in("released"),
        "saturated": snapshot.workers_with(super::WorkerRow::is_saturated),
        "tasks": snapshot.tasks.iter().map(|(_, count)| count).sum::<u64>(),
        "unrunnable": snapshot.tasks_in("no-worker"),
        "waiting": snapshot.tasks_in("waiting"),
        "workers": snapshot.workers.len(),
        "desired_workers": snapshot.desired_workers,
    }))
}

/// What the operation `identity` answers.
pub(super) async fn identity<C: Cluster>(State(shared): State<Shared<C>>) -> Json<Value> {
    Json(shared.cluster.identity())
}

/// Everything that the status page shows.
pub(super) async fn state<C: Cluster>(State(shared): State<Shared<C>>) -> Json<Snapshot> {
    Json(shared.cluster.snapshot())
}

fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.rsplit_once(':').map_or(rest, |(host, _)| host)
}
