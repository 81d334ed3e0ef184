//! All that can happen to a worker, each event naming who sends it.

use std::{sync::Arc, time::Duration};

use oxidask_protocol::{Key, Payload};

use crate::priority::Priority;

/// An address of another worker, as the scheduler writes it (`tcp://host:port`).
pub type Address = Arc<str>;

/// What runs when a task runs: opaque to the core, handed to the executor.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSpec {
    /// The task, pickled or native, never opened here.
    pub payload: Payload,
    /// The task's annotations as msgpack bytes.
    pub annotations: bytes::Bytes,
    /// The span the task belongs to, echoed in metrics.
    pub span_id: Option<Arc<str>>,
    /// The result is an actor and stays with its worker.
    pub actor: bool,
}

/// The scheduler's `compute-task`.
#[derive(Clone, Debug)]
pub struct ComputeTask {
    /// The task to compute.
    pub key: Key,
    /// Echoed with the result, so that the scheduler can tell attempts apart.
    pub run_id: i64,
    /// Smaller runs first.
    pub priority: Priority,
    /// Holders of each direct dependency.
    pub who_has: Vec<(Key, Vec<Address>)>,
    /// Size of each direct dependency in bytes; the same keys as `who_has`.
    pub nbytes: Vec<(Key, u64)>,
    /// What to run.
    pub run_spec: Arc<RunSpec>,
    /// Amount of each named resource the task occupies while it runs.
    pub resources: Vec<(Arc<str>, f64)>,
}

/// Why a task failed, ready for the scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskError {
    /// The pickled exception.
    pub exception: Payload,
    /// The pickled traceback, if it could be pickled.
    pub traceback: Option<Payload>,
    /// The exception in words.
    pub exception_text: String,
    /// The traceback in words.
    pub traceback_text: String,
}

/// An outside cause of state change.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// Scheduler: compute this task.
    ComputeTask(Box<ComputeTask>),
    /// Scheduler: these keys are no longer wanted.
    FreeKeys(Vec<Key>),
    /// Scheduler: these replicas are superfluous; keep those a task here still needs.
    RemoveReplicas(Vec<Key>),
    /// Scheduler: fetch copies of these keys.
    AcquireReplicas {
        /// Holders of each key.
        who_has: Vec<(Key, Vec<Address>)>,
        /// Size of each key in bytes.
        nbytes: Vec<(Key, u64)>,
    },
    /// Scheduler: may another worker have this task?
    StealRequest(Key),
    /// Scheduler: the answer to [`Message::RequestRefreshWhoHas`](crate::Message::RequestRefreshWhoHas).
    RefreshWhoHas(Vec<(Key, Vec<Address>)>),
    /// Scheduler: forget this task if it has not started.
    CancelCompute(Key),
    /// Scheduler: this worker left the cluster.
    RemoveWorker(Address),
    /// A client or the scheduler placed these values here; the driver has stored them.
    Scattered(Vec<(Key, u64)>),
    /// A transfer ended; the driver has stored what came (key, bytes). Keys asked for and absent are not at the peer.
    Gathered {
        /// The peer that was asked.
        worker: Address,
        /// What came, with sizes.
        data: Vec<(Key, u64)>,
    },
    /// The peer serves too many transfers now.
    GatherBusy {
        /// The peer that was asked.
        worker: Address,
    },
    /// The peer cannot be reached, broke off or stalled.
    GatherFailed {
        /// The peer that was asked.
        worker: Address,
    },
    /// Data came but are unusable; the tasks that were in flight fail.
    GatherErred {
        /// The peer that was asked.
        worker: Address,
        /// What to report.
        error: Arc<TaskError>,
    },
    /// The executor finished a task; its value is stored under the key.
    Executed {
        /// The task that ran.
        key: Key,
        /// `sizeof` the value.
        nbytes: u64,
        /// Wall time of the call.
        duration: Duration,
    },
    /// The task raised.
    ExecuteFailed {
        /// The task that ran.
        key: Key,
        /// What it raised.
        error: Arc<TaskError>,
    },
    /// The task raised `Reschedule`.
    Rescheduled(Key),
    /// The task gave up its slot and goes on running.
    Seceded {
        /// The task that runs.
        key: Key,
        /// How long it had run.
        compute_duration: Duration,
    },
    /// An executor died. Tasks that ran in it start again, one at a time where
    /// several are suspect; one that was there too often fails with `error`.
    ExecutorLost {
        /// Tasks that had started in it: one of them may be to blame.
        running: Vec<Key>,
        /// Tasks handed to it that had not started.
        queued: Vec<Key>,
        /// Values that only it held.
        resident: Vec<Key>,
        /// What to report of a task that outlived its chances.
        error: Arc<TaskError>,
    },
    /// Values that can no longer be read (a spill file was lost).
    DataLost(Vec<Key>),
    /// Start nothing more, neither tasks nor transfers.
    Pause,
    /// Leave the paused state.
    Unpause,
    /// A deadline given by [`Core::next_deadline`](crate::Core::next_deadline) has passed.
    Tick,
}

/// An event and the trace id it came with.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The stimulus that the scheduler or the driver names as its cause.
    pub stimulus_id: Arc<str>,
}

impl Event {
    /// An event caused by the stimulus `stimulus_id`.
    pub fn new(kind: EventKind, stimulus_id: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            stimulus_id: stimulus_id.into(),
        }
    }
}
