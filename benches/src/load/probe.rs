//! A client that is not part of the load, and how long it waits for its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use oxidask_protocol::Value;
use oxidask_protocol::address::Address;

use crate::fakes::open;

/// Time from one question to the next, if the answer is there by then.
const PACE: Duration = Duration::from_millis(5);

/// Asks for the state of a key on and on, in a thread of its own at full priority.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>>>,
}

impl Probe {
    pub(crate) fn start(address: Address) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(ask(&address, &stopped))
        });
        Self { stop, thread }
    }

    /// Times from the question to its answer, the shortest first.
    pub(crate) fn stop(self) -> Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = self
            .thread
            .join()
            .map_err(|_| anyhow::anyhow!("the probe panicked"))??;
        times.sort_unstable();
        Ok(times)
    }
}

async fn ask(address: &Address, stop: &AtomicBool) -> Result<Vec<Duration>> {
    let mut comm = open(address).await?;
    let question = Value::map([
        ("op", Value::from("get_task_status")),
        ("keys", Value::array(["nobody-has-this"])),
        ("reply", true.into()),
    ]);
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        comm.request(&question).await?;
        let took = begin.elapsed();
        times.push(took);
        tokio::time::sleep(PACE.saturating_sub(took)).await;
    }
    Ok(times)
}
