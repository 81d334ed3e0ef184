//! What a plan is made from: plain data, so that tests can make it up.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use oxidask_operator_api::ScalingExperimentStatus;

use super::row::Ended;
use super::sweep::{Cell, Limits, Shape};

/// What was seen of an experiment and of what it made.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) now: Timestamp,
    /// When this process began: waiting for what it is to make counts from
    /// then on.
    pub(crate) began: Timestamp,
    /// All cells, in their order.
    pub(crate) cells: &'a [Cell],
    pub(crate) limits: Limits,
    pub(crate) suspend: bool,
    /// Hash of what the pods are made from.
    pub(crate) template: &'a str,
    /// Whether plots are wanted.
    pub(crate) report: bool,
    /// Whether a container's own run time may count.
    pub(crate) timed: bool,
    /// As it is stored, never as a watch has shown it: what is recorded in it
    /// must not be done again.
    pub(crate) status: &'a ScalingExperimentStatus,
    pub(crate) cluster: Cluster,
    /// Worker groups of the experiment, and what is left of those that went.
    pub(crate) groups: Vec<Group>,
    /// Runner pods of the experiment.
    pub(crate) runners: Vec<Runner>,
}

/// Why something does not run: a word and a sentence.
pub(crate) type Trouble = (String, String);

/// The DaskCluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cluster {
    Absent,
    /// There is one of that name that belongs to somebody else.
    Foreign,
    /// It is being deleted.
    Going,
    /// Its scheduler is not ready.
    Starting(Timestamp, Option<Trouble>),
    Ready,
}

/// A worker group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// `None` for workers that are not of this experiment's making.
    pub(crate) shape: Option<Shape>,
    /// It is deleted or being deleted; its pods may still be there.
    pub(crate) going: bool,
    pub(crate) created: Timestamp,
    pub(crate) workers: Workers,
}

/// How far the workers of a group are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Workers {
    /// The scheduler has exactly these workers.
    Connected,
    /// It has not yet, or it was not asked.
    Assembling {
        /// Pods that are ready.
        ready: usize,
        /// What is missing, for the status.
        what: String,
        /// What keeps a pod from running.
        trouble: Option<Trouble>,
    },
    /// They are there, and are not what the cell asks for.
    Wrong(String),
}

/// A runner pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Runner {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) role: Role,
    pub(crate) created: Timestamp,
    pub(crate) state: RunnerState,
}

/// What a runner pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// One cell; attempts count from 1.
    Cell { cell: i64, attempt: i64 },
    /// The plots.
    Report,
}

/// How far a runner pod is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RunnerState {
    /// It waits for a node or an image.
    Waiting(Option<Trouble>),
    Running,
    Ended(Ended),
    /// Kubernetes took it away (eviction, preemption, a lost node): not the
    /// workload's fault.
    Disrupted(String),
    /// It is being deleted and has no result.
    Going,
}

impl Seen<'_> {
    /// The first cell without a row.
    pub(crate) fn next_cell(&self) -> Option<Cell> {
        next_cell(self.cells, self.status)
    }

    /// Whether so much time has passed since then.
    pub(crate) fn over(&self, since: Timestamp, limit: Duration) -> bool {
        self.left(since, limit).is_zero()
    }

    /// What is left of a limit that began then.
    pub(crate) fn left(&self, since: Timestamp, limit: Duration) -> Duration {
        let passed = self.now.duration_since(since);
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        Duration::try_from(limit.saturating_sub(passed)).unwrap_or(Duration::ZERO)
    }

    /// When the experiment last came forward: a cell ended, it began, it went
    /// on after a suspension or after a time without an operator.
    pub(crate) fn progressed(&self) -> Timestamp {
        time(self.status.progress_time.as_deref())
            .unwrap_or(self.now)
            .max(self.began)
    }
}

/// The first cell without a row.
pub(crate) fn next_cell(cells: &[Cell], status: &ScalingExperimentStatus) -> Option<Cell> {
    cells
        .iter()
        .find(|cell| !has_row(status, cell.index))
        .copied()
}

/// Whether a cell has ended.
pub(crate) fn has_row(status: &ScalingExperimentStatus, cell: i64) -> bool {
    status.rows.iter().any(|row| row.cell == cell)
}

/// Whether nothing more will be measured.
pub(crate) fn is_finished(status: &ScalingExperimentStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Complete" | "Failed"))
}

/// A time as the status has it.
pub(crate) fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}
