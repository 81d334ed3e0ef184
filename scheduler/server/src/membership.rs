//! Workers that come and go: everything that has to hear of it.

use std::sync::Arc;

use oxidask_protocol::Value;
use oxidask_scheduler_core::WorkerId;
use oxidask_scheduler_core::event::WorkerStatus;
use tracing::info;

use crate::aside::Hook;
use crate::coordinate;
use crate::driver::Driver;
use crate::peers::WorkerPeer;
use crate::rpc::status;
use crate::server::Server;

/// Keys named in the event of a worker that left; the log is for people.
const KEYS_NAMED: usize = 10_000;

/// Takes a worker in. Its address and name must be free.
pub fn add_worker(server: &Server, driver: &mut Driver, peer: WorkerPeer, state: WorkerStatus) {
    let address = Arc::clone(&peer.address);
    let identity = status::identity_for_watchers(&peer, state);
    driver.add_worker(peer, state);
    driver.observers.worker_added(&address, &identity);
    let action = ("action", Value::from("add-worker"));
    let message = Value::map([action.clone()]);
    coordinate::log_event(server, driver, &[&address], &message);
    let message = Value::map([action, ("worker", (&*address).into())]);
    coordinate::log_event(server, driver, &["all"], &message);
    server
        .aside
        .tell(Hook::AddWorker, vec![(&*address).into()], Vec::new());
}

/// Takes a worker out. `close`: tells it to shut down. False if it was gone already.
pub fn remove_worker(
    server: &Server,
    driver: &mut Driver,
    worker: WorkerId,
    expected: bool,
    close: bool,
    stimulus_id: &str,
) -> bool {
    let Some(peer) = driver.workers.get(worker) else {
        return false;
    };
    let address = Arc::clone(&peer.address);
    let mut event = farewell(driver, worker, expected, stimulus_id);
    driver.remove_worker(worker, expected, close, stimulus_id);
    server.pool.forget(&address);
    info!(worker = %address, stimulus_id, expected, "worker removed");
    coordinate::log_event(server, driver, &[&address], &Value::map(event.clone()));
    event.push(("worker", (&*address).into()));
    coordinate::log_event(server, driver, &["all"], &Value::map(event));
    coordinate::worker_left(server, driver, &address);
    server.aside.tell(
        Hook::RemoveWorker,
        vec![(&*address).into()],
        vec![("stimulus_id", stimulus_id.into())],
    );
    true
}

/// What the event log says of a worker that leaves.
fn farewell(
    driver: &Driver,
    worker: WorkerId,
    expected: bool,
    stimulus_id: &str,
) -> Vec<(&'static str, Value)> {
    let core = driver.core();
    let processing = core.processing(worker);
    let (mut computed, mut scattered) = (Vec::new(), Vec::new());
    for key in core.has_what(worker).into_iter().take(KEYS_NAMED) {
        if core.who_has(&key).len() > 1 {
            continue;
        }
        let again = core.task(&key).is_some_and(|task| task.run_spec.is_some());
        let lost = if again { &mut computed } else { &mut scattered };
        lost.push(Value::from(&key));
    }
    vec![
        ("action", "remove-worker".into()),
        (
            "processing-tasks",
            Value::Set(
                processing
                    .iter()
                    .take(KEYS_NAMED)
                    .map(Value::from)
                    .collect(),
            ),
        ),
        ("lost-computed-tasks", Value::Set(computed)),
        ("lost-scattered-tasks", Value::Set(scattered)),
        ("stimulus_id", stimulus_id.into()),
        ("expected", expected.into()),
    ]
}
