//! What the core asks for that takes time.

use std::sync::Arc;

use oxidask_protocol::message::rpc::RestartWorkers;
use oxidask_protocol::wire::Seconds;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::WorkerId;
use tokio::sync::mpsc;
use tracing::warn;

use crate::clock::unix_time;
use crate::coordinate;
use crate::driver::Chore;
use crate::membership;
use crate::rpc::restart::restart_workers;
use crate::server::Server;

/// Does chores as they come, each by itself.
pub async fn run(server: Arc<Server>, mut chores: mpsc::UnboundedReceiver<Chore>) {
    while let Some(chore) = chores.recv().await {
        match chore {
            Chore::WorkerTimedOut(worker) => {
                tokio::spawn(worker_timed_out(Arc::clone(&server), worker));
            }
            Chore::NoWorkers(keys) => no_workers(&server, &keys),
        }
    }
}

fn no_workers(server: &Server, keys: &[Key]) {
    let event = Value::map([
        ("action", Value::from("no-workers-timeout-exceeded")),
        ("keys", Value::Set(keys.iter().map(Value::from).collect())),
    ]);
    coordinate::log_event(server, &mut server.driver(), &["scheduler"], &event);
}

/// How long nannies may take to kill a worker that has been silent.
const KILL_TIMEOUT: f64 = 30.0;

/// Restarts a worker that has been silent for too long, or removes it if it has no nanny.
async fn worker_timed_out(server: Arc<Server>, worker: WorkerId) {
    let address = server
        .driver()
        .workers
        .get(worker)
        .map(|peer| Arc::clone(&peer.address));
    let Some(address) = address else { return };
    warn!(worker = %address, "worker has not been heard of for too long; it is restarted or removed");
    let stimulus_id = format!("check-worker-ttl-{}", unix_time());
    let event = Value::map([
        ("action", Value::from("worker-ttl-timed-out")),
        ("workers", Value::array([&*address])),
    ]);
    coordinate::log_event(&server, &mut server.driver(), &["scheduler"], &event);
    let request = RestartWorkers {
        workers: Some(vec![Value::from(&*address)]),
        timeout: Seconds(Some(KILL_TIMEOUT)),
        on_error: "return".to_owned(),
        stimulus_id: stimulus_id.clone(),
    };
    if let Err(failure) = restart_workers(&server, request, false).await {
        warn!(worker = %address, error = failure.exception_text, "failed to restart a silent worker");
    }
    // The stream of a machine that is gone does not end by itself.
    let mut driver = server.driver();
    membership::remove_worker(&server, &mut driver, worker, false, true, &stimulus_id);
}
