//! One measurement: time on the clock, and what the workers say they did meanwhile.

use std::time::Instant;

use anyhow::{Context as _, Result};
use oxidask_client::{Client, Value};
use serde::{Deserialize, Serialize};

use super::workload::{Ready, Task};

/// What all workers together have done between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Tasks that ended with a value.
    pub tasks: u64,
    /// Sum of their wall times. Unit: seconds.
    pub compute_seconds: f64,
    /// Values fetched from other workers, shared memory included. Unit: bytes.
    pub bytes_moved: u64,
    /// Wall time of these transfers; several may run at once. Unit: seconds.
    pub transfer_seconds: f64,
    /// CPU time of the workers' processes. Unit: seconds.
    pub cpu_seconds: f64,
    /// CPUs of the machine of the first worker.
    pub cpus: u64,
}

/// A measured cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The workload's name.
    pub workload: String,
    /// Rows, or points; 0 for a Python program.
    pub size: u64,
    /// Workers.
    pub workers: usize,
    /// Threads of each.
    pub threads: usize,
    /// Time on the clock. Unit: seconds.
    pub seconds: f64,
    /// What the workers did; nothing known of stock ones.
    pub work: Work,
}

impl Cell {
    /// Slots for tasks in all.
    pub fn slots(&self) -> usize {
        (self.workers * self.threads).max(1)
    }

    /// Part of the slots' time in which tasks ran.
    pub fn computing(&self) -> f64 {
        self.share(self.work.compute_seconds)
    }

    /// Part of the time in which a worker fetched values while not all of its slots computed.
    pub fn transferring(&self) -> f64 {
        let worker_seconds = (self.workers as f64 * self.seconds).max(f64::MIN_POSITIVE);
        let transferring = (self.work.transfer_seconds / worker_seconds).min(1.0);
        transferring.min(1.0 - self.computing())
    }

    /// Part of the slots' time in which nothing of that went on.
    pub fn waiting(&self) -> f64 {
        (1.0 - self.computing() - self.transferring()).max(0.0)
    }

    /// Time of all slots in which neither tasks ran nor values were fetched. Unit: seconds.
    pub fn wait_seconds(&self) -> f64 {
        self.waiting() * self.slots() as f64 * self.seconds
    }

    fn share(&self, seconds: f64) -> f64 {
        let slot_seconds = (self.slots() as f64 * self.seconds).max(f64::MIN_POSITIVE);
        (seconds / slot_seconds).min(1.0)
    }
}

/// Asks all workers what they have done.
///
/// # Errors
/// If the scheduler does not answer.
pub(crate) async fn work(client: &Client) -> Result<Work> {
    let message = Value::map([("op", Value::from("oxidask_work"))]);
    let fields = vec![
        ("msg", message),
        ("workers", Value::Nil),
        ("hosts", Value::Nil),
        ("nanny", false.into()),
        ("on_error", "return".into()),
    ];
    let answers = client.request("broadcast", fields).await?;
    let mut sum = Work::default();
    for (_, answer) in answers.as_map().context("workers did not answer")? {
        let number = |name: &str| answer.field(name).and_then(Value::as_f64).unwrap_or(0.0);
        sum.tasks += number("tasks") as u64;
        sum.compute_seconds += number("compute_seconds");
        sum.bytes_moved += number("transfer_bytes") as u64;
        sum.transfer_seconds += number("transfer_seconds");
        sum.cpu_seconds += number("cpu_seconds");
        sum.cpus = sum.cpus.max(number("cpus") as u64);
    }
    Ok(sum)
}

/// What was done between two answers of [`work`].
pub(crate) fn between(before: Work, after: Work) -> Work {
    Work {
        tasks: after.tasks.saturating_sub(before.tasks),
        compute_seconds: (after.compute_seconds - before.compute_seconds).max(0.0),
        bytes_moved: after.bytes_moved.saturating_sub(before.bytes_moved),
        transfer_seconds: (after.transfer_seconds - before.transfer_seconds).max(0.0),
        cpu_seconds: (after.cpu_seconds - before.cpu_seconds).max(0.0),
        cpus: after.cpus,
    }
}

/// What a cell is called.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// The workload's name.
    pub workload: String,
    /// Rows, or points; 0 for a Python program.
    pub size: u64,
    /// Workers.
    pub workers: usize,
    /// Threads of each.
    pub threads: usize,
}

/// Times something that uses a cluster, and asks the workers what they did meanwhile.
///
/// # Errors
/// If it fails, or the scheduler does not answer.
pub async fn timed(
    client: &Client,
    label: Label,
    perform: impl Future<Output = Result<()>>,
) -> Result<Cell> {
    let before = work(client).await?;
    let start = Instant::now();
    perform.await?;
    let seconds = start.elapsed().as_secs_f64();
    let after = work(client).await?;
    let Label {
        workload,
        size,
        workers,
        threads,
    } = label;
    Ok(Cell {
        workload,
        size,
        workers,
        threads,
        seconds,
        work: between(before, after),
    })
}

/// Measures a workload once on a cluster that is there.
///
/// `only`: workers that may be used; all if empty.
///
/// # Errors
/// If a task fails.
pub(crate) async fn measure(
    client: &Client,
    task: &Task,
    workers: usize,
    threads: usize,
    only: &[String],
) -> Result<Cell> {
    let ready: Ready = task.prepare(client, workers, only).await?;
    let label = Label {
        workload: task.name().to_owned(),
        size: task.size(),
        workers,
        threads,
    };
    timed(client, label, Task::perform(client, &ready, only)).await
}
