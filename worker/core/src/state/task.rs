//! One task as this worker knows it.

use std::sync::Arc;

use indexmap::IndexSet;
use oxidask_protocol::Key;
use rustc_hash::FxBuildHasher;

use crate::{
    event::RunSpec,
    ids::{PeerId, TaskId},
    priority::Priority,
};

/// Size assumed for a value whose size nobody announced.
/// Source: distributed `scheduler.default-data-size`.
pub(crate) const DEFAULT_NBYTES: u64 = 1024;

/// Work on a task that cannot be stopped, only waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// A transfer from a peer.
    Flight,
    /// A run that counts as a slot.
    Executing,
    /// A run that seceded.
    LongRunning,
}

/// Distributed's worker-side states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Known by name only: someone depends on it, nobody needs it now.
    Released,
    /// To be computed here; at least one dependency is not in memory.
    Waiting,
    /// To be fetched; a holder is known, no transfer runs.
    Fetch,
    /// A transfer runs.
    Flight,
    /// To be fetched; no holder is known.
    Missing,
    /// To be computed here; all dependencies are in memory, a slot is not free.
    Ready,
    /// As ready, but it also needs resources.
    Constrained,
    /// Handed to the executor; counts as a slot.
    Executing,
    /// Handed to the executor; seceded.
    LongRunning,
    /// No longer wanted while busy: the outcome will be dropped.
    Cancelled(Busy),
    /// Cancelled, then wanted again the other way: a transfer whose value is now
    /// to be computed here, or a run whose value is now to be fetched.
    Resumed(Busy),
    /// The value is in the store.
    Memory,
    /// Failed; the scheduler has been told.
    Error,
}

impl State {
    /// Distributed's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Waiting => "waiting",
            Self::Fetch => "fetch",
            Self::Flight => "flight",
            Self::Missing => "missing",
            Self::Ready => "ready",
            Self::Constrained => "constrained",
            Self::Executing => "executing",
            Self::LongRunning => "long-running",
            Self::Cancelled(_) => "cancelled",
            Self::Resumed(_) => "resumed",
            Self::Memory => "memory",
            Self::Error => "error",
        }
    }

    /// A task in this state needs the values of its dependencies.
    pub(crate) fn holds_dependencies(self) -> bool {
        matches!(
            self,
            Self::Waiting | Self::Ready | Self::Constrained | Self::Executing | Self::LongRunning
        )
    }
}

/// What a running task occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Counts towards `nthreads`.
    Executing,
    /// Seceded.
    LongRunning,
}

pub(crate) type TaskSet = IndexSet<TaskId, FxBuildHasher>;

/// A task: to be computed here, or a value that a task here needs or the scheduler placed.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) key: Key,
    pub(crate) state: State,
    /// Attempt number of the last `compute-task`; -1 for a task never computed here.
    pub(crate) run_id: i64,
    pub(crate) priority: Priority,
    /// Present from the first `compute-task` on.
    pub(crate) run_spec: Option<Arc<RunSpec>>,
    /// Unique; in the order of `compute-task`.
    pub(crate) dependencies: Vec<TaskId>,
    /// All tasks in the table that name this one as dependency.
    pub(crate) dependents: TaskSet,
    /// Number of dependents whose state holds dependencies.
    pub(crate) users: u32,
    /// While waiting: number of dependencies not in memory. Else 0.
    pub(crate) waiting_for: u32,
    /// Peers that hold the value, as far as known; the inverse of `Peer::has_what`.
    pub(crate) who_has: Vec<PeerId>,
    /// The peer a transfer of this task runs from: always and only when it is in that peer's `in_flight`.
    pub(crate) flight: Option<PeerId>,
    /// Present from `Execute` to its answer, whatever becomes of the state.
    pub(crate) slot: Option<Slot>,
    /// The slot was taken beyond `nthreads` on the strength of short durations.
    pub(crate) short: bool,
    /// What the task occupies while it has a slot.
    pub(crate) resources: Vec<(Arc<str>, f64)>,
    /// `sizeof` the value, or the size announced.
    pub(crate) nbytes: Option<u64>,
    /// In memory; the scheduler has freed it, dependents here still use it.
    pub(crate) freed: bool,
    /// The scheduler asked for a replica here, so it is fetched even without users.
    pub(crate) replica: bool,
    /// It was in an executor that died together with others; it runs alone next time.
    pub(crate) suspect: bool,
    /// How many executors died while it ran alone.
    pub(crate) deaths: u32,
    /// Interned prefix of the key.
    pub(crate) prefix: u32,
}

impl Task {
    pub(crate) fn new(key: Key, prefix: u32) -> Self {
        Self {
            key,
            state: State::Released,
            run_id: -1,
            priority: Priority::replica(),
            run_spec: None,
            dependencies: Vec::new(),
            dependents: TaskSet::default(),
            users: 0,
            waiting_for: 0,
            who_has: Vec::new(),
            flight: None,
            slot: None,
            short: false,
            resources: Vec::new(),
            nbytes: None,
            freed: false,
            replica: false,
            suspect: false,
            deaths: 0,
            prefix,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.nbytes.unwrap_or(DEFAULT_NBYTES)
    }

    /// Work on the task that goes on whatever its state.
    pub(crate) fn busy(&self) -> Option<Busy> {
        match (self.slot, self.flight) {
            (Some(Slot::Executing), _) => Some(Busy::Executing),
            (Some(Slot::LongRunning), _) => Some(Busy::LongRunning),
            (None, Some(_)) => Some(Busy::Flight),
            (None, None) => None,
        }
    }
}
