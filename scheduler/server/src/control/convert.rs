//! From what the scheduler knows to the messages of the control API.

use oxidask_control::v1;
use oxidask_protocol::Value;
use oxidask_scheduler_core::action::TaskStateName;
use oxidask_scheduler_core::event::WorkerStatus;
use oxidask_scheduler_core::{IdMap, Unique, WorkerId};

use crate::driver::Driver;
use crate::peers::{PeerName, WorkerPeer};
use crate::server::Server;

/// The cluster at this moment.
pub(super) fn status(server: &Server) -> v1::ClusterStatus {
    let driver = server.driver();
    let core = driver.core();
    let unique = core.unique();
    v1::ClusterStatus {
        scheduler_id: server.id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at_ms: milliseconds(server.clock.started()),
        workers: driver
            .workers
            .iter()
            .map(|peer| worker(&driver, peer, &unique))
            .collect(),
        tasks: TaskStateName::KNOWN
            .iter()
            .zip(core.task_counts())
            .map(|(state, count)| (state.as_str().to_owned(), count))
            .collect(),
        clients: count(driver.clients.connected().count()),
        idle_since_ms: core
            .idle_since()
            .map(|since| milliseconds(server.clock.unix(since))),
    }
}

/// A registered worker.
pub(super) fn worker(
    driver: &Driver,
    peer: &WorkerPeer,
    unique: &IdMap<WorkerId, Unique>,
) -> v1::Worker {
    let view = driver.core().worker(peer.id);
    let view = view.as_ref();
    let memory = peer.metrics.field("memory").and_then(Value::as_u64);
    let state = state(view.map_or(WorkerStatus::Closed, |view| view.status));
    v1::Worker {
        address: peer.address.to_string(),
        name: name(peer),
        // A worker does not tell the scheduler its environment.
        deployment: None,
        state: state.into(),
        nthreads: u32::try_from(peer.nthreads).unwrap_or(u32::MAX),
        executing: view.map_or(0, |view| count(view.executing)),
        processing: view.map_or(0, |view| count(view.processing)),
        bytes: view.map_or(0, |view| view.nbytes),
        unique_bytes: unique.get(&peer.id).map_or(0, |unique| unique.bytes),
        memory_used: memory.unwrap_or(0),
        memory_limit: peer.memory_limit,
        last_seen_ms: milliseconds(peer.last_seen),
        resources: peer.resources.iter().cloned().collect(),
    }
}

/// A worker's name as text, its address if it has none.
pub(super) fn name(peer: &WorkerPeer) -> String {
    PeerName::from_value(&peer.name).map_or_else(|| peer.address.to_string(), |name| name.text())
}

fn state(status: WorkerStatus) -> v1::WorkerState {
    match status {
        WorkerStatus::Init => v1::WorkerState::Unspecified,
        WorkerStatus::Running => v1::WorkerState::Running,
        WorkerStatus::Paused => v1::WorkerState::Paused,
        WorkerStatus::ClosingGracefully => v1::WorkerState::Retiring,
        WorkerStatus::Closing | WorkerStatus::Closed => v1::WorkerState::Closing,
    }
}

/// Unix seconds as the API has them.
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// A number of things as the API has it.
pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
