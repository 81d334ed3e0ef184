//! Everything that the core asks its driver to do.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_protocol::{Key, Payload};

use crate::event::{Annotations, TaskError, WorkerStatus};
use crate::ids::{ClientId, RequestId, WorkerId};
pub use crate::steal_note::{StealNote, StealOutcome, StealRequested};

/// What to do. Each says which event will answer it, if any.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a task to a worker. Answered by `TaskFinished`, `TaskErred`, `Rescheduled` or `WorkerRemoved`.
    ComputeTask(Box<ComputeTask>),
    /// Let a worker forget keys. A worker answers by `WorkerDataReleased` for those it held.
    FreeKeys {
        /// The worker.
        worker: WorkerId,
        /// The keys.
        keys: Vec<Key>,
        /// The stimulus.
        stimulus_id: Arc<str>,
    },
    /// Let a worker drop copies of keys; the core has forgotten these copies.
    RemoveReplicas {
        /// The worker.
        worker: WorkerId,
        /// The keys.
        keys: Vec<Key>,
        /// The stimulus.
        stimulus_id: Arc<str>,
    },
    /// Let a worker fetch copies. Answered by `KeysAdded`.
    AcquireReplicas {
        /// The worker.
        worker: WorkerId,
        /// Key, holders, bytes.
        keys: Vec<(Key, Vec<WorkerId>, u64)>,
        /// The stimulus.
        stimulus_id: Arc<str>,
    },
    /// Ask a worker to give a task back. Answered by `StealResponded`.
    StealRequest {
        /// The worker.
        worker: WorkerId,
        /// The task.
        key: Key,
        /// Unique; repeated in the answer.
        stimulus_id: Arc<str>,
    },
    /// Tell a worker where keys are.
    RefreshWhoHas {
        /// The worker.
        worker: WorkerId,
        /// Key and holders.
        who_has: Vec<(Key, Vec<WorkerId>)>,
        /// That of the question.
        stimulus_id: Arc<str>,
    },
    /// Ask a worker to change its state. Answered by `WorkerStatusChanged`.
    ChangeWorkerStatus {
        /// The worker.
        worker: WorkerId,
        /// The state.
        status: WorkerStatus,
        /// The stimulus.
        stimulus_id: Arc<str>,
    },
    /// Tell all workers that one is gone.
    AnnounceWorkerRemoved {
        /// Its address.
        address: Arc<str>,
        /// The stimulus.
        stimulus_id: Arc<str>,
    },
    /// A worker has been silent for too long: restart it through its nanny or remove it.
    /// Answered by `WorkerRemoved`.
    WorkerTimedOut {
        /// The worker.
        worker: WorkerId,
    },
    /// Write down that tasks failed because no worker could run them in time. Answered by nothing.
    NoWorkersTimedOut {
        /// The tasks.
        keys: Vec<Key>,
    },
    /// Tell workers that a shuffle is over or failed.
    ShuffleFail {
        /// Those that took part.
        workers: Vec<WorkerId>,
        /// The shuffle.
        id: Arc<str>,
        /// Its attempt.
        run_id: i64,
        /// Why.
        message: String,
    },
    /// Tell a client something about a key.
    Report {
        /// The client.
        client: ClientId,
        /// What.
        report: Report,
    },
    /// Tell all clients that keys will not be computed.
    CancelledKeys {
        /// The client that alone is told; `None` for all.
        client: Option<ClientId>,
        /// The keys.
        keys: Vec<Key>,
        /// Why.
        reason: Option<String>,
        /// Text for the user.
        message: Option<String>,
    },
    /// Tell all clients that everything was forgotten.
    ReportRestart,
    /// One of the workers of a `RetireWorkers` has its outcome; [`WorkersRetired`](Self::WorkersRetired) follows when
    /// all have.
    WorkerRetired {
        /// The request.
        request: RequestId,
        /// The worker.
        worker: WorkerId,
        /// It may go; otherwise nobody could take its data, and it runs again.
        may_go: bool,
    },
    /// Answer a `RetireWorkers`: these have no unique data any more and stand at `ClosingGracefully`.
    WorkersRetired {
        /// The request.
        request: RequestId,
        /// Workers that may go.
        retired: Vec<WorkerId>,
        /// Workers whose data nobody could take; they run again.
        kept: Vec<WorkerId>,
    },
    /// A task that was watched is forgotten (see [`watch_key`](crate::Core::watch_key)).
    Forgotten {
        /// Its key.
        key: Key,
    },
    /// A graph was taken in, or refused. Answered by nothing; for the event log and for plugins.
    GraphUpdated(Box<GraphUpdated>),
    /// Write down what became of moving tasks to idle workers. Answered by nothing.
    StealNoted(Box<StealNote>),
    /// A task changed its state. Given only while [`observe_transitions`](crate::Core::observe_transitions) is on.
    Transitioned(Box<Transition>),
}

/// What became of a graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphUpdated {
    /// Who submitted it.
    pub client: Option<ClientId>,
    /// That of the event.
    pub stimulus_id: Arc<str>,
    /// Tasks that it defined.
    pub tasks: usize,
    /// Those that were not known before.
    pub new_tasks: usize,
    /// Those that were known under another definition, which holds.
    pub key_collisions: usize,
    /// It needs data that are gone: its keys were cancelled.
    pub refused: bool,
    /// Keys of the tasks that it defined, in order of their definition. Empty unless
    /// [`observe_graphs`](crate::Core::observe_graphs) is on.
    pub touched: Vec<Key>,
    /// Keys that the client wants. Empty unless graphs are observed.
    pub wanted: Vec<Key>,
}

/// What a client is told about a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Its result is ready.
    InMemory {
        /// The key.
        key: Key,
        /// Pickled class of the result.
        type_: Option<Bytes>,
    },
    /// It failed, or something that it needs did.
    Erred {
        /// The key.
        key: Key,
        /// The exception of the task that is to blame.
        error: Arc<TaskError>,
    },
    /// Its result was lost and is being computed again.
    LostData {
        /// The key.
        key: Key,
    },
    /// It is tried again.
    Retried {
        /// The key.
        key: Key,
    },
}

/// A task for a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputeTask {
    /// The worker.
    pub worker: WorkerId,
    /// The key.
    pub key: Key,
    /// Names this attempt.
    pub run_id: i64,
    /// (−user priority, generation, order): smaller first.
    pub priority: (f64, f64, i64),
    /// Each direct dependency: key, holders (at least one), bytes.
    pub dependencies: Vec<(Key, Vec<WorkerId>, u64)>,
    /// Its pickled node.
    pub run_spec: Payload,
    /// Its annotations.
    pub annotations: Option<Arc<Annotations>>,
    /// Whether it becomes an actor.
    pub actor: bool,
    /// Expected seconds.
    pub duration: f64,
    /// Its span.
    pub span_id: Option<Arc<str>>,
}

/// One change of a task's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// The task.
    pub key: Key,
    /// Its state before.
    pub start: TaskStateName,
    /// Its state after.
    pub finish: TaskStateName,
    /// The stimulus.
    pub stimulus_id: Arc<str>,
    /// The worker that computed it, when it came into memory or erred.
    pub worker: Option<WorkerId>,
}

/// States of a task at the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskStateName {
    /// Known, nothing is done for it.
    Released,
    /// Some dependencies are not in memory.
    Waiting,
    /// No worker may run it.
    NoWorker,
    /// Ready; every worker has enough to do.
    Queued,
    /// Assigned to a worker.
    Processing,
    /// Its result is on a worker.
    Memory,
    /// It failed, or something that it needs did.
    Erred,
    /// No longer known.
    Forgotten,
}

impl TaskStateName {
    /// All states that a known task can have.
    pub const KNOWN: [Self; 7] = [
        Self::Released,
        Self::Waiting,
        Self::NoWorker,
        Self::Queued,
        Self::Processing,
        Self::Memory,
        Self::Erred,
    ];

    /// The word that Dask uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Waiting => "waiting",
            Self::NoWorker => "no-worker",
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Memory => "memory",
            Self::Erred => "erred",
            Self::Forgotten => "forgotten",
        }
    }
}
