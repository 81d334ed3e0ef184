//! Questions about tasks and workers that are answered from what is known.

use std::collections::HashSet;
use std::sync::Arc;

use oxidask_protocol::message::rpc::{Identity, Nbytes};
use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::wire::{Name, Seconds};
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::WorkerId;
use oxidask_scheduler_core::action::TaskStateName;
use oxidask_scheduler_core::view::TaskView;
use rustc_hash::FxHashMap;

use super::reply::{Refusal, key_error, raise};
use super::{Answer, Outcome, status};
use crate::driver::Driver;
use crate::peers::normalise_address;
use crate::server::Server;

/// `identity`.
pub(super) fn identity(server: &Server, body: &Identity) -> Outcome {
    Answer::value(status::identity(server, body.n_workers.0.unwrap_or(-1)))
}

/// The address that a user means by a name or address, known or not.
///
/// # Errors
/// `TypeError` if it is neither the name of a worker nor a text.
pub(crate) fn coerce(driver: &Driver, name: &Value) -> Result<Arc<str>, Refusal> {
    if let Some(peer) = driver.workers.find(name) {
        return Ok(Arc::clone(&peer.address));
    }
    match name.as_str() {
        Some(text) => Ok(normalise_address(text).into()),
        None => Err(raise(
            "TypeError",
            &format!("addresses should be strings or tuples, got {name:?}"),
        )),
    }
}

/// An address that is asked about, and the worker there.
type Asked = (Arc<str>, Option<WorkerId>);

/// The workers that are asked about: each with its number if it is known, `None` for all.
fn asked(driver: &Driver, workers: Option<Vec<Name>>) -> Result<Vec<Asked>, Refusal> {
    let Some(workers) = workers else {
        return Ok(driver
            .workers
            .iter()
            .map(|peer| (Arc::clone(&peer.address), Some(peer.id)))
            .collect());
    };
    let mut seen = HashSet::new();
    let mut out = Vec::with_capacity(workers.len());
    for worker in &workers {
        let address = coerce(driver, worker)?;
        if seen.insert(Arc::clone(&address)) {
            let id = driver.workers.by_address(&address).map(|peer| peer.id);
            out.push((address, id));
        }
    }
    Ok(out)
}

/// `ncores` and `ncores_running`: threads of workers.
pub(super) fn ncores(server: &Server, workers: Option<Vec<Name>>, running: bool) -> Outcome {
    let driver = server.driver();
    let pairs = asked(&driver, workers)?
        .into_iter()
        .filter_map(|(address, id)| Some((address, driver.workers.get(id?)?)))
        .filter(|(_, peer)| !running || driver.is_running(peer.id))
        .map(|(address, peer)| (Value::from(&*address), peer.nthreads.into()))
        .collect();
    Answer::value(Value::Map(pairs))
}

fn write_keys(w: &mut Writer, keys: &[Key]) {
    w.array(keys.len());
    keys.iter().for_each(|key| w.raw(key.wire()));
}

/// `who_has`: addresses of the holders of keys.
pub(super) fn who_has(server: &Server, keys: Option<Vec<Key>>) -> Outcome {
    let driver = server.driver();
    let keys = distinct(keys.unwrap_or_else(|| driver.core().keys()));
    Answer::write(|w| {
        w.map(keys.len());
        for key in &keys {
            w.raw(key.wire());
            let holders = driver.holders(key);
            w.array(holders.len());
            holders.iter().for_each(|address| w.str(address));
        }
    })
}

/// Keys without repetition: they become the keys of a map.
fn distinct(mut keys: Vec<Key>) -> Vec<Key> {
    let mut seen = HashSet::with_capacity(keys.len());
    keys.retain(|key| seen.insert(key.clone()));
    keys
}

/// `has_what`: keys of the results on workers.
pub(super) fn has_what(server: &Server, workers: Option<Vec<Name>>) -> Outcome {
    let driver = server.driver();
    let workers = asked(&driver, workers)?;
    Answer::write(|w| {
        w.map(workers.len());
        for (address, id) in &workers {
            w.str(address);
            write_keys(
                w,
                &id.map_or_else(Vec::new, |id| driver.core().has_what(id)),
            );
        }
    })
}

/// `processing`: keys of the tasks assigned to workers.
pub(super) fn processing(server: &Server, workers: Option<Vec<Name>>) -> Outcome {
    let driver = server.driver();
    let workers = asked(&driver, workers)?;
    if let Some((address, _)) = workers.iter().find(|(_, id)| id.is_none()) {
        return Err(key_error(address));
    }
    Answer::write(|w| {
        w.map(workers.len());
        for (address, id) in &workers {
            w.str(address);
            write_keys(
                w,
                &id.map_or_else(Vec::new, |id| driver.core().processing(id)),
            );
        }
    })
}

fn task(driver: &Driver, key: &Key) -> Result<TaskView, Refusal> {
    driver
        .core()
        .task(key)
        .ok_or_else(|| key_error(&key.to_string()))
}

/// `nbytes`: sizes of results, by key or summed by prefix.
pub(super) fn nbytes(server: &Server, body: Nbytes) -> Outcome {
    let driver = server.driver();
    let named = body.keys.is_some();
    let keys = distinct(body.keys.unwrap_or_else(|| driver.core().keys()));
    let mut sizes = Vec::with_capacity(keys.len());
    for key in keys {
        let view = task(&driver, &key)?;
        if named || view.nbytes >= 0 {
            sizes.push((key, view.prefix, view.nbytes));
        }
    }
    if !body.summary {
        return Answer::write(|w| {
            w.map(sizes.len());
            for (key, _, nbytes) in &sizes {
                w.raw(key.wire());
                w.int(*nbytes);
            }
        });
    }
    let mut order: Vec<Arc<str>> = Vec::new();
    let mut sums: FxHashMap<Arc<str>, i64> = FxHashMap::default();
    for (_, prefix, nbytes) in sizes {
        *sums.entry(Arc::clone(&prefix)).or_insert_with(|| {
            order.push(prefix);
            0
        }) += nbytes;
    }
    Answer::value(Value::map(
        order
            .iter()
            .map(|prefix| (&**prefix, Value::from(sums[prefix]))),
    ))
}

/// `get_task_status`: states of tasks, `None` for unknown ones.
pub(super) fn task_status(server: &Server, keys: Option<Vec<Key>>) -> Outcome {
    let driver = server.driver();
    let keys = distinct(keys.unwrap_or_else(|| driver.core().keys()));
    Answer::write(|w| {
        w.map(keys.len());
        for key in &keys {
            w.raw(key.wire());
            match driver.core().task_state(key) {
                Some(state) => w.str(state.as_str()),
                None => w.nil(),
            }
        }
    })
}

/// `get_task_prefix_states`: how many tasks of each prefix are in which state.
pub(super) fn prefix_states(server: &Server) -> Outcome {
    const SHOWN: [TaskStateName; 5] = [
        TaskStateName::Memory,
        TaskStateName::Erred,
        TaskStateName::Released,
        TaskStateName::Processing,
        TaskStateName::Waiting,
    ];
    let driver = server.driver();
    let count = |states: &[u64; 7], state: TaskStateName| {
        TaskStateName::KNOWN
            .iter()
            .position(|known| *known == state)
            .map_or(0, |at| states[at])
    };
    let prefixes = driver.core().prefixes();
    let shown = prefixes
        .iter()
        .filter(|prefix| SHOWN.iter().any(|state| count(&prefix.states, *state) > 0))
        .map(|prefix| {
            let states = SHOWN
                .iter()
                .map(|state| (state.as_str(), Value::from(count(&prefix.states, *state))));
            (&*prefix.name, Value::map(states))
        });
    Answer::value(Value::map(shown))
}

/// A priority as a tuple; `None` for scattered data.
pub(crate) fn priority(priority: Option<(f64, f64, i64)>) -> Value {
    let parts = |(user, generation, order): (f64, f64, i64)| {
        Value::Array(vec![user.into(), generation.into(), order.into()])
    };
    priority.map(parts).into()
}

/// Tasks by state, by Dask's names.
pub(crate) fn states(counts: &[u64; 8]) -> Value {
    let known = TaskStateName::KNOWN
        .iter()
        .chain([&TaskStateName::Forgotten]);
    Value::map(
        known
            .zip(counts)
            .map(|(state, count)| (state.as_str(), Value::from(*count))),
    )
}

/// `get_runspec`: the node of a key, to run it again elsewhere.
pub(super) fn run_spec(server: &Server, key: &Key) -> Outcome {
    let view = task(&server.driver(), key)?;
    Answer::of(&view.run_spec)
}

/// `get_error_cause`: of the first key that erred, the key that is to blame.
pub(super) fn error_cause(server: &Server, keys: Option<Vec<Key>>) -> Outcome {
    let driver = server.driver();
    let cause = keys
        .unwrap_or_default()
        .iter()
        .filter_map(|key| driver.core().task(key)?.error)
        .map(|(cause, _)| cause)
        .next();
    Answer::of(&cause)
}

/// `logs`: the latest log lines, newest first, `[[level, text], …]`.
pub(super) fn logs(server: &Server, n: Option<i64>) -> Outcome {
    // As in stock, 0 asks for all.
    let n = n.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let lines = server.log.latest(n);
    Answer::write(|w| {
        w.array(lines.len());
        for line in lines.iter().rev() {
            w.array(2);
            w.str(line.level);
            w.str(&line.text);
        }
    })
}

/// `check_idle`: since when nothing has been to do, in Unix seconds.
pub(super) fn check_idle(server: &Server) -> Outcome {
    let idle = server.driver().core().idle_since();
    Answer::value(idle.map(|since| server.clock.unix(since)))
}

/// `adaptive_target`: how many workers would be right.
pub(super) fn adaptive_target(server: &Server, target_duration: Seconds) -> Outcome {
    let seconds = target_duration
        .0
        .unwrap_or(server.settings.adaptive_target_duration.as_secs_f64());
    Answer::value(server.driver().core().adaptive_target(seconds))
}

/// `stop_task_metadata`: what was recorded under a name.
pub(super) fn task_metadata(server: &Server, name: &str) -> Outcome {
    match server.driver().observers.task_metadata.stop(name) {
        Some(recorded) => Answer::value(recorded),
        None => Err(raise(
            "ValueError",
            &format!(
                "Expected to find exactly one CollectTaskMetaDataPlugin with name {name} but found 0."
            ),
        )),
    }
}
