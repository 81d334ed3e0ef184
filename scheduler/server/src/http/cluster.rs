//! What the HTTP server asks of the scheduler.

use serde::Serialize;
use serde_json::Value;

/// The scheduler, as far as pages show it and the API changes it.
pub trait Cluster: Send + Sync + 'static {
    /// Everything that pages and metrics show, at one moment.
    fn snapshot(&self) -> Snapshot;

    /// What the operation `identity` answers, as JSON.
    fn identity(&self) -> Value;

    /// How many workers would be right for the present work.
    fn adaptive_target(&self) -> u64;

    /// Since when nothing has been to do, in Unix seconds; `None` while there is.
    fn check_idle(&self) -> Option<f64>;

    /// Port of the control API, if it is on.
    fn control_port(&self) -> Option<u16>;

    /// Takes workers out of service, their data moved first. Answers with the identities of those that went, by
    /// address.
    fn retire(&self, which: Retire) -> impl Future<Output = Result<Value, String>> + Send;
}

/// Which workers shall go.
#[derive(Clone, Debug, PartialEq)]
pub enum Retire {
    /// So many, chosen by the scheduler.
    Number(u64),
    /// These, by address or name.
    Workers(Vec<String>),
}

/// The state of a scheduler at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// `Scheduler-…`.
    pub id: String,
    /// Address that peers are told.
    pub address: String,
    /// Version of the program.
    pub version: &'static str,
    /// Unix seconds of the start.
    pub started: f64,
    /// Unix seconds of this snapshot.
    pub now: f64,
    /// Clients that are connected.
    pub clients: u64,
    /// Client connections since the start.
    pub clients_added_total: u64,
    /// Client connections that ended since the start.
    pub clients_removed_total: u64,
    /// Workers since the start.
    pub workers_added_total: u64,
    /// Workers that went since the start.
    pub workers_removed_total: u64,
    /// How many workers would be right.
    pub desired_workers: u64,
    /// Workers in the order in which they came.
    pub workers: Vec<WorkerRow>,
    /// Tasks by state.
    pub tasks: Vec<(&'static str, u64)>,
    /// Prefixes in the order in which they came.
    pub prefixes: Vec<PrefixRow>,
    /// Semaphores by name.
    pub semaphores: Vec<SemaphoreRow>,
    /// Connections closed because of a message that could not be understood.
    pub malformed_messages_total: u64,
}

/// A worker of a snapshot.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerRow {
    /// Its address.
    pub address: String,
    /// Its name: a text or a number.
    pub name: Value,
    /// Dask's word for its state.
    pub status: &'static str,
    /// Tasks that it runs at once.
    pub nthreads: u64,
    /// Unit: bytes; 0 without limit.
    pub memory_limit: u64,
    /// Memory of its processes. Unit: bytes.
    pub memory: u64,
    /// Sum of the bytes of the results that it holds.
    pub nbytes: u64,
    /// Results that it holds.
    pub in_memory: u64,
    /// Tasks assigned to it.
    pub processing: u64,
    /// Seconds since its last sign of life.
    pub silent_for: f64,
}

impl WorkerRow {
    /// Whether it takes tasks.
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }

    /// Whether it has fewer tasks than threads.
    pub fn is_idle(&self) -> bool {
        self.is_running() && self.processing < self.nthreads
    }

    /// Whether it has more tasks than threads.
    pub fn is_saturated(&self) -> bool {
        self.is_running() && self.processing > self.nthreads
    }
}

/// A prefix of a snapshot: the tasks of one function.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PrefixRow {
    /// Its name.
    pub name: String,
    /// Known tasks by state, in the order of [`Snapshot::tasks`].
    pub states: Vec<u64>,
    /// Mean seconds of its tasks; `None` if none ran.
    pub duration: Option<f64>,
    /// Seconds of computing since the start.
    pub compute_seconds_total: f64,
    /// Seconds of moving data since the start.
    pub transfer_seconds_total: f64,
    /// Bytes of its results that are in memory, copies not counted.
    pub output_bytes: u64,
    /// Times that one of its tasks was on a worker that died.
    pub suspicious_total: u64,
}

/// A semaphore of a snapshot.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SemaphoreRow {
    /// Its name.
    pub name: String,
    /// Leases at once.
    pub max_leases: u64,
    /// Leases held.
    pub active_leases: u64,
    /// Takers in line.
    pub pending_leases: u64,
    /// Leases given.
    pub acquire_total: u64,
    /// Leases given back or timed out.
    pub release_total: u64,
    /// Mean wait for a lease, new waits counting half. Unit: seconds.
    pub average_pending_lease_time: f64,
}

impl Snapshot {
    /// Tasks in a state.
    pub fn tasks_in(&self, state: &str) -> u64 {
        self.tasks
            .iter()
            .find(|(name, _)| *name == state)
            .map_or(0, |(_, count)| *count)
    }

    /// Workers in a state.
    pub fn workers_with(&self, condition: impl Fn(&WorkerRow) -> bool) -> u64 {
        self.workers
            .iter()
            .filter(|worker| condition(worker))
            .count() as u64
    }

    /// A sum over all workers.
    pub fn sum(&self, of: impl Fn(&WorkerRow) -> u64) -> u64 {
        self.workers.iter().map(of).sum()
    }
}
