//! Everything that can happen, as the driver reports it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::{Key, Payload, Value};

use crate::ids::{ClientId, RequestId, WorkerId};

/// What happened, and why it is in the story of a task: Dask's *stimulus*.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client opened its stream, or something that wants keys like one came up.
    ClientAdded {
        /// The client.
        client: ClientId,
        /// Its name: `Client-…`, `fire-and-forget`, `variable-x`, …
        name: Arc<str>,
    },
    /// A client's stream ended: its keys are released.
    ClientRemoved {
        /// The client.
        client: ClientId,
    },
    /// A client submitted a graph.
    UpdateGraph(UpdateGraph),
    /// Interest of a client in keys begins. Unknown keys become tasks without a definition.
    ClientDesiresKeys {
        /// The client.
        client: ClientId,
        /// The keys.
        keys: Vec<Key>,
    },
    /// Interest of a client in keys ends.
    ClientReleasesKeys {
        /// The client.
        client: ClientId,
        /// The keys.
        keys: Vec<Key>,
    },
    /// A client asks to stop computing keys.
    CancelKeys {
        /// The client.
        client: ClientId,
        /// The keys.
        keys: Vec<Key>,
        /// Also if others want them.
        force: bool,
        /// Passed on to the clients.
        reason: Option<String>,
        /// Passed on to the clients.
        message: Option<String>,
    },
    /// A client asks for the state of a key.
    ReportKey {
        /// The client.
        client: ClientId,
        /// The key.
        key: Key,
    },
    /// A client asks to try failed keys, and the failed tasks that they depend on, again.
    RetryKeys {
        /// The keys.
        keys: Vec<Key>,
    },
    /// Data were put on workers (scatter); they have no definition and cannot be computed again.
    DataAdded {
        /// The client that wants them from now on.
        client: Option<ClientId>,
        /// Key, bytes, holders.
        data: Vec<(Key, u64, Vec<WorkerId>)>,
    },
    /// Everything is to be forgotten; the driver restarts the workers.
    Restart,

    /// A worker registered.
    WorkerAdded(NewWorker),
    /// A worker said which state it is in.
    WorkerStatusChanged {
        /// The worker.
        worker: WorkerId,
        /// Its state.
        status: WorkerStatus,
    },
    /// A worker is gone.
    WorkerRemoved {
        /// The worker.
        worker: WorkerId,
        /// It left as it should: the tasks that it was running are not suspected of having killed it.
        expected: bool,
        /// Named in stories, and by the shuffle extension.
        stimulus_id: Arc<str>,
    },
    /// A worker's sign of life.
    Heartbeat(Heartbeat),
    /// A worker's resources changed.
    ResourcesSet {
        /// The worker.
        worker: WorkerId,
        /// Amount of each.
        resources: Vec<(String, f64)>,
    },
    /// A task has a result.
    TaskFinished(TaskFinished),
    /// A task raised an exception.
    TaskErred(TaskErred),
    /// A task asks to be placed anew.
    Rescheduled {
        /// Its worker.
        worker: WorkerId,
        /// Its key.
        key: Key,
    },
    /// A task left its slot and goes on.
    LongRunning {
        /// Its worker.
        worker: WorkerId,
        /// Its key.
        key: Key,
        /// The attempt; absent from old workers.
        run_id: Option<i64>,
        /// Seconds that it ran so far.
        compute_duration: Option<f64>,
    },
    /// A worker holds copies of keys that it fetched.
    KeysAdded {
        /// The worker.
        worker: WorkerId,
        /// The keys.
        keys: Vec<Key>,
        /// Named when copies are refused.
        stimulus_id: Arc<str>,
    },
    /// A worker no longer holds a key.
    WorkerDataReleased {
        /// The worker.
        worker: WorkerId,
        /// The key.
        key: Key,
    },
    /// A worker asks where keys are.
    WhoHasRequested {
        /// The worker.
        worker: WorkerId,
        /// The keys.
        keys: Vec<Key>,
        /// Repeated in the answer.
        stimulus_id: Arc<str>,
    },
    /// A worker's answer to a steal request.
    StealResponded {
        /// The worker.
        worker: WorkerId,
        /// The task.
        key: Key,
        /// The worker's state of the task; `None` if it does not know it.
        state: Option<String>,
        /// That of the request.
        stimulus_id: Arc<str>,
    },
    /// Some holders of keys could not deliver them (a failed gather): these copies are taken as lost.
    ReplicasMissing {
        /// Key and the worker that does not have it.
        missing: Vec<(Key, WorkerId)>,
    },

    /// Workers shall leave, their unique data moved first. Answered by [`Action::WorkersRetired`](crate::Action).
    RetireWorkers {
        /// Names the request.
        request: RequestId,
        /// The workers.
        workers: Vec<WorkerId>,
        /// Named in stories and on the wire.
        stimulus_id: Arc<str>,
    },
    /// No task is to be handed out from now on, or again.
    DrainingSet {
        /// Whether.
        draining: bool,
    },
    /// Copies of keys shall exist on these workers. Nothing answers; watch the replicas.
    ReplicateTo {
        /// Key and the workers that shall fetch it.
        targets: Vec<(Key, WorkerId)>,
        /// Named on the wire.
        stimulus_id: Arc<str>,
    },
    /// Copies of keys shall go. The last copy of a key is never dropped.
    ReplicasDropped {
        /// Key and the worker that shall drop it.
        targets: Vec<(Key, WorkerId)>,
        /// Named on the wire.
        stimulus_id: Arc<str>,
    },
    /// The active memory manager is to start, to stop, or to look once.
    MemoryManager(AmmCommand),
    /// A task may run on these workers only (`set_restrictions`; shuffles). `None` lifts the restriction.
    RestrictionsSet {
        /// The task.
        key: Key,
        /// Addresses.
        workers: Option<Vec<String>>,
    },

    /// A shuffle has a run: workers have been chosen for its partitions.
    ShuffleStarted {
        /// Names the shuffle; its barrier is the task `shuffle-barrier-<id>`.
        id: Arc<str>,
        /// Its attempt.
        run_id: i64,
        /// The worker that holds each output partition, by address.
        worker_for: Vec<(Value, Arc<str>)>,
        /// What workers are told about the run.
        run_spec: Payload,
    },
    /// A worker takes part in a shuffle.
    ShuffleJoined {
        /// The shuffle.
        id: Arc<str>,
        /// The worker.
        worker: WorkerId,
    },
    /// Transfers of different runs met at the barrier: the shuffle starts anew.
    ShuffleInconsistent {
        /// The shuffle.
        id: Arc<str>,
        /// The run that noticed.
        run_id: i64,
    },
    /// An output task of a shuffle belongs to the worker that holds its partition.
    ShuffleOutputRestricted {
        /// The shuffle.
        id: Arc<str>,
        /// The output task.
        key: Key,
        /// The worker's address.
        worker: String,
    },

    /// The moment that [`next_deadline`](crate::Core::next_deadline) named has come.
    Tick,
}

/// What the active memory manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmmCommand {
    /// Look from time to time.
    Start,
    /// No longer look from time to time.
    Stop,
    /// Look once, now.
    RunOnce,
}

/// A graph, materialised: nothing in it needs Python any more.
#[derive(Clone, Debug)]
pub struct UpdateGraph {
    /// Who submitted it.
    pub client: ClientId,
    /// All tasks that the wanted keys need and that the sender defined. In any order if there are few; where there
    /// are more than [`Config::slice`](crate::Config::slice), each comes best after those that it depends on.
    pub tasks: Vec<NewTask>,
    /// Keys that the client wants; they may also be known from before.
    pub wanted: Vec<Key>,
    /// The task from inside which it was submitted: the new tasks run before those of later graphs.
    pub submitting_task: Option<Key>,
    /// A graph that follows another within this time shares its generation.
    pub fifo_timeout: Duration,
    /// Which keys become actors.
    pub actors: Actors,
    /// Priority given by the user for the whole graph (larger first).
    pub user_priority: f64,
    /// Pickled: the collections that it was made of.
    pub span_metadata: Option<Payload>,
    /// Pickled: the lines of code that submitted it.
    pub code: Option<Payload>,
    /// Named in stories.
    pub stimulus_id: Arc<str>,
}

/// Which keys of a graph become actors.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Actors {
    /// None.
    #[default]
    None,
    /// All wanted keys.
    Wanted,
    /// These.
    Keys(Vec<Key>),
}

/// The definition of a task.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Its key.
    pub key: Key,
    /// Its pickled node; goes to the worker as it is.
    pub run_spec: Payload,
    /// Keys that it needs, each once, itself excluded.
    pub dependencies: Vec<Key>,
    /// Its place in the order of its graph, smaller first.
    pub order: i64,
    /// It reads data from outside, so it counts as a root whatever it depends on.
    pub data_producer: bool,
    /// What the user said about it; shared by tasks with equal annotations.
    pub annotations: Option<Arc<Annotations>>,
    /// What it is in a shuffle.
    pub role: TaskRole,
}

/// What a task is in a shuffle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskRole {
    /// Nothing.
    #[default]
    Plain,
    /// The barrier of a shuffle; its dependents are never queued as roots.
    ShuffleBarrier,
}

/// What the user said about a task (`dask.annotate`, keywords of `submit`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    /// Larger runs first.
    pub priority: Option<f64>,
    /// Addresses, names or hosts where it may run; empty for anywhere.
    pub workers: Vec<String>,
    /// It may run elsewhere when none of them is there.
    pub allow_other_workers: bool,
    /// How often it is tried again after an exception.
    pub retries: u32,
    /// Amounts that it needs while running.
    pub resources: Vec<(String, f64)>,
    /// The span that the user named.
    pub span: Option<SpanTag>,
    /// All annotations as the worker gets them, a map.
    pub raw: Value,
}

/// The names of a span and of those around it, the outermost first, each with its id. Both are of the same length,
/// at least 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanTag {
    /// The names.
    pub names: Arc<[Arc<str>]>,
    /// The ids.
    pub ids: Arc<[Arc<str>]>,
}

/// A worker as it registers.
#[derive(Clone, Debug)]
pub struct NewWorker {
    /// Its number.
    pub worker: WorkerId,
    /// Its address.
    pub address: Arc<str>,
    /// Its name as text.
    pub name: Arc<str>,
    /// Its host.
    pub host: Arc<str>,
    /// Tasks that it runs at once.
    pub nthreads: u32,
    /// Unit: bytes; 0 without limit.
    pub memory_limit: u64,
    /// Amount of each resource.
    pub resources: Vec<(String, f64)>,
    /// Its state; tasks go to it only while it runs.
    pub status: WorkerStatus,
}

/// The state of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkerStatus {
    /// Registered, not ready.
    Init,
    /// Takes tasks.
    Running,
    /// Takes no new tasks: its memory is full.
    Paused,
    /// Its data are being moved; it takes no new tasks.
    ClosingGracefully,
    /// Going away.
    Closing,
    /// Gone.
    Closed,
}

impl WorkerStatus {
    /// The word that Dask uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ClosingGracefully => "closing_gracefully",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    /// Reads Dask's word. Words for states that a scheduler does not tell apart count as [`Closing`](Self::Closing).
    pub fn parse(word: &str) -> Self {
        match word {
            "init" | "starting" | "created" | "undefined" => Self::Init,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "closing_gracefully" => Self::ClosingGracefully,
            "closed" | "failed" | "stopped" => Self::Closed,
            _ => Self::Closing,
        }
    }
}

/// A worker's sign of life.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    /// The worker.
    pub worker: Option<WorkerId>,
    /// Seconds that each executing task has run.
    pub executing: Vec<(Key, f64)>,
    /// Memory of its processes. Unit: bytes.
    pub memory: u64,
    /// Data on its disk. Unit: bytes.
    pub spilled: u64,
    /// Bytes per second of its latest transfers, and how many there were.
    pub bandwidth: Option<(f64, u64)>,
    /// What it measured for spans since the last one: id of the span, what, amount.
    pub spans: Vec<(String, Key, f64)>,
}

/// A task has a result.
#[derive(Clone, Debug)]
pub struct TaskFinished {
    /// Where.
    pub worker: WorkerId,
    /// The task.
    pub key: Key,
    /// The attempt.
    pub run_id: i64,
    /// Bytes of the result.
    pub nbytes: Option<u64>,
    /// Pickled class of the result.
    pub type_: Option<Bytes>,
    /// Name of that class.
    pub typename: Arc<str>,
    /// Seconds of computing; `None` if the worker did not say.
    pub compute: Option<f64>,
    /// Seconds of other work by action (`transfer`, `disk-read`, …).
    pub other: Vec<(String, f64)>,
    /// Named in stories.
    pub stimulus_id: Arc<str>,
}

/// A task raised an exception.
#[derive(Clone, Debug)]
pub struct TaskErred {
    /// Where.
    pub worker: WorkerId,
    /// The task.
    pub key: Key,
    /// The attempt.
    pub run_id: i64,
    /// What it raised.
    pub error: Arc<TaskError>,
    /// Named in stories.
    pub stimulus_id: Arc<str>,
}

/// An exception, as clients will see it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskError {
    /// A payload, a pickle in bytes, or a text.
    pub exception: Value,
    /// A payload or nil.
    pub traceback: Value,
    /// The exception as text.
    pub exception_text: String,
    /// The traceback as text.
    pub traceback_text: String,
}
