//! All that the core asks of its driver, each action saying what event answers it.

use std::{sync::Arc, time::Duration};

use oxidask_protocol::Key;

use crate::event::{Address, RunSpec, TaskError};

/// A request to the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Run a task. Answered by `Executed`, `ExecuteFailed`, `Rescheduled` or `ExecutorLost`, perhaps after `Seceded`.
    Execute {
        /// The task.
        key: Key,
        /// What to run.
        run_spec: Arc<RunSpec>,
        /// The task's dependencies; each is in the store.
        dependencies: Vec<Key>,
        /// The cause.
        stimulus_id: Arc<str>,
    },
    /// Fetch values from a peer. Answered by exactly one `Gather…` event.
    GatherDep {
        /// The peer.
        worker: Address,
        /// What to ask for.
        keys: Vec<Key>,
        /// Sum of the sizes that the scheduler announced.
        nbytes: u64,
        /// The cause.
        stimulus_id: Arc<str>,
    },
    /// Drop a value from the store. No answer.
    FreeData(Key),
    /// Tell the scheduler. No answer, unless the message says so.
    Send(Message, Arc<str>),
}

/// A message for the scheduler's stream; the stimulus id travels beside it.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The value of a computed task is here.
    TaskFinished {
        /// The task.
        key: Key,
        /// The attempt that the scheduler counts.
        run_id: i64,
        /// `sizeof` the value.
        nbytes: u64,
    },
    /// The task failed.
    TaskErred {
        /// The task.
        key: Key,
        /// The attempt that the scheduler counts.
        run_id: i64,
        /// Why.
        error: Arc<TaskError>,
    },
    /// The task asked to be placed again.
    Reschedule(Key),
    /// The task seceded.
    LongRunning {
        /// The task.
        key: Key,
        /// The attempt that the scheduler counts.
        run_id: i64,
        /// How long it had run; unknown if it seceded while cancelled.
        compute_duration: Option<Duration>,
    },
    /// Replicas arrived here.
    AddKeys(Vec<Key>),
    /// A value is no longer here.
    ReleaseWorkerData(Key),
    /// Who else holds these keys? Answered by `RefreshWhoHas`, or by `FreeKeys` for keys unknown.
    RequestRefreshWhoHas(Vec<Key>),
    /// The answer to a steal request: the task's state, or none for an unknown task.
    StealResponse {
        /// The task.
        key: Key,
        /// Distributed's name of its state before the answer.
        state: Option<&'static str>,
    },
}
