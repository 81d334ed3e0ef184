//! What the core asks for that takes time.

use std::sync::Arc;

use oxidask_scheduler_core::WorkerId;
use tokio::sync::mpsc;
use tracing::warn;

use crate::clock::unix_time;
use crate::driver::Chore;
use crate::server::Server;

/// Does chores as they come, each by itself.
pub async fn run(server: Arc<Server>, mut chores: mpsc::UnboundedReceiver<Chore>) {
    while let Some(chore) = chores.recv().await {
        match chore {
            Chore::WorkerTimedOut(worker) => {
                tokio::spawn(worker_timed_out(Arc::clone(&server), worker));
            }
        }
    }
}

/// Removes a worker that has been silent for too long.
async fn worker_timed_out(server: Arc<Server>, worker: WorkerId) {
    let address = server
        .driver()
        .workers
        .get(worker)
        .map(|peer| Arc::clone(&peer.address));
    let Some(address) = address else { return };
    warn!(worker = %address, "worker has not been heard of for too long; it is removed");
    let stimulus_id = format!("check-worker-ttl-{}", unix_time());
    server
        .driver()
        .remove_worker(worker, false, true, &stimulus_id);
    server.pool.forget(&address);
}
