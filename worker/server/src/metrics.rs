//! What this worker measures of itself: memory, CPU, bandwidth.

use std::{collections::BTreeMap, time::Instant};

use oxidask_protocol::Value;

use crate::clock::unix;

/// Memory and CPU of processes, read from `/proc`.
#[derive(Debug)]
pub(crate) struct Meter {
    last: Instant,
    last_cpu_ticks: u64,
    /// CPU use since the time before. Unit: percent of one CPU.
    cpu: f64,
    /// Bytes per second of recent transfers, weighted.
    bandwidth: f64,
    /// Per peer and per type: mean bandwidth and count since the last heartbeat.
    by_worker: BTreeMap<String, (f64, u64)>,
    work: Work,
}

/// What a worker has done since its start.
#[derive(Debug, Default)]
struct Work {
    /// Runs that ended with a value.
    tasks: u64,
    /// Sum of their wall times. Unit: seconds.
    compute_seconds: f64,
    /// Values fetched from other workers, shared memory included. Unit: bytes.
    transfer_bytes: u64,
    /// Transfers that brought them.
    transfers: u64,
    /// Sum of their wall times; several may run at once. Unit: seconds.
    transfer_seconds: f64,
}

/// `distributed.scheduler.bandwidth`. Unit: bytes per second.
const FIRST_BANDWIDTH: f64 = 100_000_000.0;

/// Transfers below this say nothing about bandwidth. Unit: bytes.
const SMALL_TRANSFER: u64 = 10_000;

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            last: Instant::now(),
            last_cpu_ticks: 0,
            cpu: 0.0,
            bandwidth: FIRST_BANDWIDTH,
            by_worker: BTreeMap::new(),
            work: Work::default(),
        }
    }

    /// Note a run that ended with a value.
    pub(crate) fn computed(&mut self, seconds: f64) {
        self.work.tasks += 1;
        self.work.compute_seconds += seconds;
    }

    /// What these processes have done since the start, for whoever compares two answers.
    pub(crate) fn work(&self, pids: &[u32], nthreads: usize) -> Value {
        let per_second = rustix::param::clock_ticks_per_second().max(1) as f64;
        let ticks: u64 = pids.iter().filter_map(|pid| cpu_ticks(*pid)).sum();
        let work = &self.work;
        Value::map([
            ("tasks", Value::from(work.tasks)),
            ("compute_seconds", work.compute_seconds.into()),
            ("transfer_bytes", work.transfer_bytes.into()),
            ("transfers", work.transfers.into()),
            ("transfer_seconds", work.transfer_seconds.into()),
            ("cpu_seconds", (ticks as f64 / per_second).into()),
            ("nthreads", nthreads.into()),
            ("cpus", crate::limits::cpus().into()),
        ])
    }

    /// Note a transfer of `bytes` from `worker` in `seconds`.
    pub(crate) fn transferred(&mut self, worker: &str, bytes: u64, seconds: f64) {
        self.work.transfer_bytes += bytes;
        self.work.transfers += 1;
        self.work.transfer_seconds += seconds;
        if bytes < SMALL_TRANSFER || seconds <= 0.0 {
            return;
        }
        let bandwidth = bytes as f64 / seconds;
        self.bandwidth = self.bandwidth * 0.95 + bandwidth * 0.05;
        let (mean, count) = self.by_worker.entry(worker.to_owned()).or_default();
        *mean = (*mean * *count as f64 + bandwidth) / (*count + 1) as f64;
        *count += 1;
    }

    /// `bandwidth` of the metrics; the part per worker starts anew.
    pub(crate) fn bandwidth(&mut self) -> Value {
        let workers =
            std::mem::take(&mut self.by_worker)
                .into_iter()
                .map(|(worker, (mean, count))| {
                    (
                        Value::Str(worker),
                        Value::Array(vec![Value::Float(mean), Value::Int(count.into())]),
                    )
                });
        Value::map([
            ("total", Value::Float(self.bandwidth)),
            ("workers", Value::Map(workers.collect())),
            ("types", Value::Map(Vec::new())),
        ])
    }

    /// CPU use of these processes since the last call. Unit: percent of one CPU.
    pub(crate) fn cpu(&mut self, pids: &[u32]) -> f64 {
        let elapsed = self.last.elapsed().as_secs_f64();
        if elapsed < 0.1 {
            return self.cpu;
        }
        let ticks: u64 = pids.iter().filter_map(|pid| cpu_ticks(*pid)).sum();
        let per_second = rustix::param::clock_ticks_per_second().max(1) as f64;
        self.cpu = ticks.saturating_sub(self.last_cpu_ticks) as f64 / per_second / elapsed * 100.0;
        self.last = Instant::now();
        self.last_cpu_ticks = ticks;
        self.cpu
    }
}

/// User and system time of a process. Unit: clock ticks.
fn cpu_ticks(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces; what follows its bracket starts with field 3.
    let rest = text.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Anonymous memory of a process: not what it shares with others. Unit: bytes.
pub(crate) fn anonymous_memory(pid: u32) -> u64 {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return 0;
    };
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("RssAnon:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) * 1024
}

/// Number of open descriptors.
pub(crate) fn descriptors() -> i128 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i128)
}

/// The fields of a worker's metrics that are always the same here.
pub(crate) fn constant_metrics() -> Vec<(&'static str, Value)> {
    vec![
        ("event_loop_interval", Value::Float(0.02)),
        ("time", Value::Float(unix())),
        (
            "host_net_io",
            Value::map([
                ("read_bps", Value::Float(0.0)),
                ("write_bps", Value::Float(0.0)),
            ]),
        ),
        (
            "host_disk_io",
            Value::map([
                ("read_bps", Value::Float(0.0)),
                ("write_bps", Value::Float(0.0)),
            ]),
        ),
        ("num_fds", Value::Int(descriptors())),
    ]
}
