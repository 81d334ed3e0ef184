//! The scheduler's half of P2P shuffles: runs are made by Python, kept by the core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use oxidask_protocol::message::decode_one;
use oxidask_protocol::message::rpc::{
    Failure, ShuffleBarrier, ShuffleGet, ShuffleGetOrCreate, ShuffleInputsDone,
    ShuffleRestrictTask, ToWorkerRpc,
};
use oxidask_protocol::{Key, Payload, Value, exception};
use oxidask_scheduler_core::action::TaskStateName;
use oxidask_scheduler_core::{Event, WorkerId};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::python::refusal;
use super::reply::{key_error, raise};
use super::{Answer, Outcome, failure_in};
use crate::aside::P2pRequest;
use crate::driver::Driver;
use crate::server::Server;

/// Rounds of a barrier that may pass without reaching one more worker.
const IDLE_ROUNDS: u32 = 3;

/// Time between two rounds of a barrier.
const ROUND: Duration = Duration::from_millis(100);

/// What new runs share.
#[derive(Debug)]
pub struct Shuffles {
    /// One run is made at a time: two shuffles with common outputs must agree on where these go.
    making: Mutex<()>,
    /// The number of the next run; workers refuse numbers that do not grow.
    next_run: AtomicU64,
    /// Turns the list of workers, so that small shuffles spread over all.
    shift: AtomicUsize,
}

impl Default for Shuffles {
    fn default() -> Self {
        Self {
            making: Mutex::new(()),
            next_run: AtomicU64::new(1),
            shift: AtomicUsize::new(0),
        }
    }
}

/// The key of the barrier task of a shuffle.
fn barrier_key(id: &str) -> Key {
    format!("shuffle-barrier-{id}").into()
}

/// A `P2PConsistencyError` in the form in which the worker plugin expects errors.
fn inconsistent(text: &str) -> Outcome {
    let class = "P2PConsistencyError";
    Answer::of(&Failure {
        status: "error".to_owned(),
        exception: Value::Bin(exception::of_class(
            "distributed.shuffle._exceptions",
            class,
            text,
        )),
        traceback: Value::Nil,
        exception_text: format!("{class}({text:?})"),
        traceback_text: String::new(),
    })
}

fn run_spec(payload: Payload) -> Outcome {
    Answer::value(Value::map([
        ("status", Value::from("OK")),
        ("run_spec", Value::Payload(payload)),
    ]))
}

/// Lets a worker take part in a shuffle that is under way.
fn join(driver: &mut Driver, id: &str, worker: WorkerId) -> Option<Payload> {
    let payload = driver.core().shuffle(id)?.run_spec;
    driver.handle(Event::ShuffleJoined {
        id: id.into(),
        worker,
    });
    Some(payload)
}

/// `shuffle_get`: joins a shuffle.
pub(super) fn get(server: &Server, body: &ShuffleGet) -> Outcome {
    let mut driver = server.driver();
    let Some(worker) = driver.workers.by_address(&body.worker).map(|peer| peer.id) else {
        return unknown_worker(&body.worker);
    };
    match join(&mut driver, &body.id, worker) {
        Some(payload) => run_spec(payload),
        None => inconsistent(&format!("No active shuffle with id='{}' found", body.id)),
    }
}

fn unknown_worker(address: &str) -> Outcome {
    inconsistent(&format!("Scheduler is unaware of this worker '{address}'"))
}

/// `shuffle_get_or_create`: joins a shuffle, and begins it if nobody has.
pub(super) async fn get_or_create(server: &Arc<Server>, body: ShuffleGetOrCreate) -> Outcome {
    let joined = || {
        let mut driver = server.driver();
        let worker = driver.workers.by_address(&body.worker).map(|peer| peer.id);
        worker.map(|worker| (worker, join(&mut driver, &body.shuffle_id, worker)))
    };
    match joined() {
        None => return unknown_worker(&body.worker),
        Some((_, Some(payload))) => return run_spec(payload),
        Some((_, None)) => {}
    }
    let _making = server.shuffles.making.lock().await;
    // Somebody else may have made it meanwhile.
    let worker = match joined() {
        None => return unknown_worker(&body.worker),
        Some((_, Some(payload))) => return run_spec(payload),
        Some((worker, None)) => worker,
    };
    let request = match question(server, &body) {
        Ok(request) => request,
        Err(text) => return inconsistent(&text),
    };
    let run_id = request.run_id;
    let spec = server.aside.p2p_spec(request).await.map_err(refusal)?;
    let mut driver = server.driver();
    if driver
        .core()
        .task_state(&barrier_key(&body.shuffle_id))
        .is_none()
    {
        return inconsistent(&format!(
            "Shuffle {} was cancelled while it was being set up",
            body.shuffle_id
        ));
    }
    info!(shuffle = body.shuffle_id, run_id, worker = body.worker, task = %body.key, "shuffle begins");
    driver.handle(Event::ShuffleStarted {
        id: body.shuffle_id.as_str().into(),
        run_id: run_id as i64,
        worker_for: spec
            .worker_for
            .iter()
            .map(|(partition, worker)| (Value::from(partition), worker.as_str().into()))
            .collect(),
        run_spec: spec.run_spec.clone(),
    });
    driver.handle(Event::ShuffleJoined {
        id: body.shuffle_id.as_str().into(),
        worker,
    });
    run_spec(spec.run_spec)
}

/// What Python is asked for a new run.
fn question(server: &Server, body: &ShuffleGetOrCreate) -> Result<P2pRequest, String> {
    let driver = server.driver();
    let key = barrier_key(&body.shuffle_id);
    let missing = || {
        format!(
            "Barrier task with key '{key}' does not exist. This may be caused by task fusion during graph generation."
        )
    };
    let barrier = driver.core().task(&key).ok_or_else(missing)?;
    let spec = barrier.run_spec.ok_or_else(missing)?;
    let state = driver.core().task_state(&body.key);
    if state != Some(TaskStateName::Processing) {
        let state = state.map_or("unknown", TaskStateName::as_str);
        return Err(format!(
            "Expected <TaskState '{}' {state}> to be processing, is {state}.",
            body.key
        ));
    }
    let mut workers: Vec<String> = barrier
        .worker_restrictions
        .iter()
        .filter_map(|name| driver.workers.find(&name.as_str().into()))
        .map(|peer| peer.address.to_string())
        .collect();
    if workers.is_empty() {
        workers = driver
            .workers
            .iter()
            .map(|peer| peer.address.to_string())
            .collect();
    }
    let shift = server.shuffles.shift.fetch_add(1, Ordering::Relaxed) % workers.len().max(1);
    workers.rotate_left(shift);
    let existing = driver
        .core()
        .shuffle_placements(&body.shuffle_id)
        .into_iter()
        .filter_map(|(partition, worker)| Some((partition.to_key()?, worker.to_string())))
        .collect();
    Ok(P2pRequest {
        barrier: spec,
        run_id: server.shuffles.next_run.fetch_add(1, Ordering::Relaxed),
        workers,
        existing,
        span_id: None,
    })
}

/// `shuffle_barrier`: tells all workers that take part that no more input comes.
pub(super) async fn barrier(server: &Arc<Server>, body: ShuffleBarrier) -> Outcome {
    let mut workers: Vec<(WorkerId, Arc<str>)> = {
        let mut driver = server.driver();
        let Some(shuffle) = driver.core().shuffle(&body.id) else {
            return Err(key_error(&body.id));
        };
        if shuffle.run_id != body.run_id {
            let text = format!(
                "run_id={} does not match run {} of shuffle {}",
                body.run_id, shuffle.run_id, body.id
            );
            return Err(raise("ValueError", &text));
        }
        if !body.consistent {
            warn!(
                shuffle = body.id,
                "shuffle starts anew: its transfers belong to different runs"
            );
            driver.handle(Event::ShuffleInconsistent {
                id: body.id.as_str().into(),
                run_id: body.run_id,
            });
            return Answer::nil();
        }
        shuffle
            .participating
            .iter()
            .filter_map(|worker| driver.workers.get(*worker))
            .map(|peer| (peer.id, Arc::clone(&peer.address)))
            .collect()
    };
    let request = ToWorkerRpc::ShuffleInputsDone(ShuffleInputsDone {
        shuffle_id: body.id.clone(),
        run_id: body.run_id,
    });
    let mut idle_rounds = 0;
    while !workers.is_empty() {
        let calls = workers
            .iter()
            .map(|(_, address)| server.pool.call(address, &request));
        let answers = join_all(calls).await;
        let before = workers.len();
        let mut unreached = Vec::new();
        for (worker, answer) in workers.into_iter().zip(answers) {
            match answer {
                Err(_) => unreached.push(worker),
                Ok(frames) => {
                    let failure = decode_one::<Value>(&frames)
                        .ok()
                        .and_then(|a| failure_in(&a));
                    if let Some(failure) = failure {
                        let text = format!(
                            "Unexpected error encountered during P2P barrier: {}",
                            failure.exception_text
                        );
                        return Err(raise("RuntimeError", &text));
                    }
                }
            }
        }
        workers = unreached;
        if workers.is_empty() {
            break;
        }
        warn!(
            shuffle = body.id,
            workers = workers.len(),
            "workers could not be told of the barrier; trying again"
        );
        let left: Vec<&str> = {
            let driver = server.driver();
            workers
                .iter()
                .filter(|(id, _)| driver.workers.get(*id).is_none())
                .map(|(_, address)| &**address)
                .collect()
        };
        if !left.is_empty() {
            let text = format!("Worker {left:?} left during shuffle {}", body.id);
            return Err(raise("RuntimeError", &text));
        }
        idle_rounds = if workers.len() == before {
            idle_rounds + 1
        } else {
            0
        };
        if idle_rounds >= IDLE_ROUNDS {
            let text = format!(
                "Broadcast not making progress for shuffle {}. Aborting. This is possibly due to overloaded workers. \
                 Increasing config `distributed.comm.timeouts.connect` timeout may help.",
                body.id
            );
            return Err(raise("RuntimeError", &text));
        }
        tokio::time::sleep(ROUND).await;
    }
    Answer::nil()
}

/// `shuffle_restrict_task`: an output task goes to the worker that has its partition.
pub(super) fn restrict(server: &Server, body: ShuffleRestrictTask) -> Outcome {
    let mut driver = server.driver();
    let Some(shuffle) = driver.core().shuffle(&body.id) else {
        return Err(key_error(&body.id));
    };
    if shuffle.run_id != body.run_id {
        let what = if shuffle.run_id > body.run_id {
            "stale"
        } else {
            "invalid"
        };
        return inconsistent(&format!(
            "Request {what}, expected run_id={} for shuffle {}",
            shuffle.run_id, body.id
        ));
    }
    if driver.core().task_state(&body.key).is_none() {
        return Err(key_error(&body.key.to_string()));
    }
    driver.handle(Event::ShuffleOutputRestricted {
        id: body.id.into(),
        key: body.key,
        worker: body.worker,
    });
    Answer::ok()
}
