//! What is written down about tasks that move from busy to idle workers, for people (topic `stealing`).

use std::sync::Arc;

use oxidask_protocol::Key;

/// One line of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum StealNote {
    /// Tasks were asked back in one look at the balance.
    Requested(Vec<StealRequested>),
    /// A worker answered.
    Answered {
        /// What came of it.
        outcome: StealOutcome,
        /// The task.
        key: Key,
        /// The worker's state of the task; `None` if it does not know it.
        state: Option<String>,
        /// Address of the worker that answered.
        victim: Arc<str>,
        /// That of the request.
        stimulus_id: Arc<str>,
    },
}

/// A task that was asked back.
#[derive(Clone, Debug, PartialEq)]
pub struct StealRequested {
    /// How costly it is to move, from 0.
    pub level: usize,
    /// The task.
    pub key: Key,
    /// Its computing and its transfers at the victim. Unit: seconds.
    pub cost: f64,
    /// Address of the worker that has it.
    pub victim: Arc<str>,
    /// Work of the victim. Unit: seconds.
    pub victim_occupancy: f64,
    /// Address of the worker that shall get it.
    pub thief: Arc<str>,
    /// Work of the thief. Unit: seconds.
    pub thief_occupancy: f64,
}

/// What an answer led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StealOutcome {
    /// The task was no longer asked for.
    Aborted,
    /// The answer was to an earlier request.
    Stale,
    /// It had begun and stays. Address of the thief.
    AlreadyComputing(Arc<str>),
    /// It moved. Address of the thief.
    Confirmed(Arc<str>),
    /// It was placed anew, since the victim does not know it or the thief is gone.
    Rescheduled {
        /// Address of the thief.
        thief: Arc<str>,
        /// Whether the thief is gone.
        thief_is_gone: bool,
    },
}
