//! Workers and what they are busy with.

use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;

use super::group::PrefixId;
use crate::Time;
use crate::event::{NewWorker, WorkerStatus};
use crate::ids::TaskId;

/// What is known of a worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) address: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) host: Arc<str>,
    pub(crate) nthreads: u32,
    /// Unit: bytes; 0 without limit.
    pub(crate) memory_limit: u64,
    pub(crate) resources: Vec<(String, f64)>,
    pub(crate) status: WorkerStatus,
    /// The state it had before it was asked to retire.
    pub(crate) status_before_retirement: WorkerStatus,
    /// Tasks assigned to it. The reverse of `Task::processing_on`.
    pub(crate) processing: IndexSet<TaskId, FxBuildHasher>,
    /// Those of `processing` that left their slot.
    pub(crate) long_running: IndexSet<TaskId, FxBuildHasher>,
    /// Those of `processing` that it said it is executing, and for how many seconds.
    pub(crate) executing: IndexMap<TaskId, f64, FxBuildHasher>,
    /// Results that it holds. The reverse of `Task::who_has`.
    pub(crate) has_what: IndexSet<TaskId, FxBuildHasher>,
    /// Sum of the bytes of `has_what`; unknown sizes count as 0.
    pub(crate) nbytes: u64,
    /// Tasks of `processing` without `long_running`, by prefix.
    pub(crate) prefix_counts: IndexMap<PrefixId, u64, FxBuildHasher>,
    /// Dependencies of `processing` that it does not hold: for how many tasks, and their bytes.
    pub(crate) needs: IndexMap<TaskId, (u64, u64), FxBuildHasher>,
    /// Sum of the bytes of `needs`.
    pub(crate) network_bytes: u64,
    /// Actors that live here, or are being made here.
    pub(crate) actors: IndexSet<TaskId, FxBuildHasher>,
    pub(crate) last_seen: Time,
    /// Memory of its processes. Unit: bytes.
    pub(crate) memory: u64,
    pub(crate) pace: Pace,
    /// Its place in `Core::open`; `None` if it has no open slots.
    pub(crate) open_at: Option<u64>,
}

/// How fast a worker answers, so that short tasks can be handed out ahead.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When its last result came.
    pub(crate) last_finish: Option<Time>,
    /// Seconds between results while it had more to do than threads; `None` if never seen.
    pub(crate) interval: Option<f64>,
    /// Seconds from sending a task to its result, beyond its computing, when it had nothing else to do.
    pub(crate) round_trip: Option<f64>,
    /// When a task was sent to it while it had nothing to do.
    pub(crate) sent_while_idle: Option<(TaskId, Time)>,
}

impl Worker {
    pub(crate) fn new(now: Time, new: NewWorker) -> Self {
        let NewWorker {
            worker: _,
            address,
            name,
            host,
            nthreads,
            memory_limit,
            resources,
            status,
        } = new;
        Self {
            address,
            name,
            host,
            nthreads: nthreads.max(1),
            memory_limit,
            resources,
            status,
            status_before_retirement: status,
            processing: IndexSet::default(),
            long_running: IndexSet::default(),
            executing: IndexMap::default(),
            has_what: IndexSet::default(),
            nbytes: 0,
            prefix_counts: IndexMap::default(),
            needs: IndexMap::default(),
            network_bytes: 0,
            actors: IndexSet::default(),
            last_seen: now,
            memory: 0,
            pace: Pace::default(),
            open_at: None,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.status == WorkerStatus::Running
    }

    /// Tasks that take up its threads.
    pub(crate) fn busy(&self) -> usize {
        self.processing.len() - self.long_running.len()
    }

    /// Whether a user's restriction means this worker: its address with or without scheme, its name, or its host.
    pub(crate) fn is_named(&self, text: &str) -> bool {
        *self.address == *text
            || *self.name == *text
            || *self.host == *text
            || self
                .address
                .split_once("://")
                .is_some_and(|(_, rest)| rest == text)
            || (text.contains("localhost")
                && text.replace("localhost", "127.0.0.1") == *self.address)
    }

    pub(crate) fn has_resources(&self, required: &[(String, f64)]) -> bool {
        has_resources(&self.resources, required)
    }

    /// Whether it has been told to go, or said that it goes.
    pub(crate) fn is_leaving(&self) -> bool {
        match self.status {
            WorkerStatus::Init | WorkerStatus::Running | WorkerStatus::Paused => false,
            WorkerStatus::ClosingGracefully | WorkerStatus::Closing | WorkerStatus::Closed => true,
        }
    }
}

/// Whether every required amount is there.
pub(crate) fn has_resources(supplied: &[(String, f64)], required: &[(String, f64)]) -> bool {
    required.iter().all(|(name, amount)| {
        supplied
            .iter()
            .any(|(have, supply)| have == name && supply >= amount)
    })
}
