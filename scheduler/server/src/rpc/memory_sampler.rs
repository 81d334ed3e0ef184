//! `memory_sampler_start`, `memory_sampler_stop`: the memory of all workers over time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oxidask_protocol::Value;
use oxidask_protocol::message::rpc::{MemorySamplerStart, MemorySamplerStop};
use tokio::time::MissedTickBehavior;

use super::reply::{key_error, raise};
use super::{Answer, Outcome};
use crate::clock::unix_time;
use crate::peers::Measure;
use crate::server::{Server, unique_id};

/// Samples kept of one sampling; a day at two per second. No more are taken then.
const MOST_SAMPLES: usize = 200_000;

/// Samplings at once.
const MOST_SAMPLINGS: usize = 1_000;

/// Samples are not taken more often than this.
const SHORTEST: Duration = Duration::from_millis(10);

/// Samplings under way: Unix seconds and bytes, by key.
#[derive(Debug, Default)]
pub struct Samplings(Mutex<HashMap<String, Vec<(f64, u64)>>>);

impl Samplings {
    fn inner(&self) -> MutexGuard<'_, HashMap<String, Vec<(f64, u64)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to sample, with a first sample at once; ends by itself when its client leaves.
pub(super) fn start(server: &Arc<Server>, body: MemorySamplerStart) -> Outcome {
    let name = body.measure.0.as_deref().unwrap_or("process");
    let Some(measure) = Measure::parse(name) else {
        let text = format!("unknown measure {name:?}: give one of {}", Measure::names());
        return Err(raise("ValueError", &text));
    };
    let interval = Duration::try_from_secs_f64(body.interval.0.unwrap_or(0.5)).map_err(|_| {
        raise(
            "ValueError",
            "the interval between samples must be positive",
        )
    })?;
    let key = unique_id();
    {
        let mut samplings = server.samplings.inner();
        if samplings.len() >= MOST_SAMPLINGS {
            let text = format!("{MOST_SAMPLINGS} memory samplings are under way: stop some first");
            return Err(raise("RuntimeError", &text));
        }
        samplings.insert(key.clone(), vec![sample(server, measure)]);
    }
    tokio::spawn(go_on(
        Arc::clone(server),
        key.clone(),
        body.client,
        measure,
        interval,
    ));
    Answer::value(key)
}

async fn go_on(
    server: Arc<Server>,
    key: String,
    client: String,
    measure: Measure,
    interval: Duration,
) {
    let mut ticks = tokio::time::interval(interval.max(SHORTEST));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = server.shutdown.cancelled() => return,
        }
        let is_connected = server.driver().clients.by_name(&client).is_some();
        let new = sample(&server, measure);
        let mut samplings = server.samplings.inner();
        if !is_connected {
            samplings.remove(&key);
            return;
        }
        match samplings.get_mut(&key) {
            Some(samples) if samples.len() < MOST_SAMPLES => samples.push(new),
            Some(_) => {}
            None => return,
        }
    }
}

fn sample(server: &Server, measure: Measure) -> (f64, u64) {
    let driver = server.driver();
    let of_worker = |peer: &crate::peers::WorkerPeer| {
        let managed = driver.core().worker(peer.id).map_or(0, |view| view.nbytes);
        peer.memory.by(measure, managed)
    };
    (unix_time(), driver.workers.iter().map(of_worker).sum())
}

/// Ends a sampling and gives its samples.
pub(super) fn stop(server: &Server, body: &MemorySamplerStop) -> Outcome {
    let Some(samples) = server.samplings.inner().remove(&body.key) else {
        return Err(key_error(&body.key));
    };
    let pair = |(at, bytes): &(f64, u64)| Value::Array(vec![(*at).into(), (*bytes).into()]);
    Answer::value(Value::Array(samples.iter().map(pair).collect()))
}
