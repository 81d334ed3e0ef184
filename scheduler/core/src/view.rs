//! What can be asked about the state; nothing here changes it.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_protocol::{Key, Payload, Value};

use crate::action::{TaskStateName, Transition};
use crate::event::{Annotations, TaskError, WorkerStatus};
use crate::ids::{ClientId, WorkerId};
use crate::{Core, Time};

/// A task as its clients may see it.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// The key.
    pub key: Key,
    /// Its state.
    pub state: TaskStateName,
    /// Bytes of the result, −1 if unknown.
    pub nbytes: i64,
    /// Workers that hold it.
    pub who_has: Vec<WorkerId>,
    /// Clients that want it.
    pub who_wants: Vec<ClientId>,
    /// Keys that it needs.
    pub dependencies: Vec<Key>,
    /// Keys that need it.
    pub dependents: Vec<Key>,
    /// The worker that it is assigned to.
    pub processing_on: Option<WorkerId>,
    /// Its definition; `None` for scattered data and placeholders.
    pub run_spec: Option<Payload>,
    /// Its annotations.
    pub annotations: Option<Arc<Annotations>>,
    /// Whether it is an actor.
    pub actor: bool,
    /// (−user priority, generation, order).
    pub priority: Option<(f64, f64, i64)>,
    /// Its exception, and the key of the task that is to blame.
    pub error: Option<(Key, Arc<TaskError>)>,
    /// Name of the class of the result.
    pub typename: Option<Arc<str>>,
    /// Pickled class of the result.
    pub type_: Option<Bytes>,
    /// Times that it may still be tried again.
    pub retries: u32,
    /// Deaths of workers that it was on.
    pub suspicious: u32,
    /// Restriction to workers (addresses).
    pub worker_restrictions: Vec<String>,
    /// Where the data were before they were lost, for messages.
    pub prefix: Arc<str>,
    /// Name of its group.
    pub group: Arc<str>,
}

/// A worker as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// The worker.
    pub worker: WorkerId,
    /// Its address.
    pub address: Arc<str>,
    /// Its state.
    pub status: WorkerStatus,
    /// Tasks that it runs at once.
    pub nthreads: u32,
    /// Unit: bytes; 0 without limit.
    pub memory_limit: u64,
    /// Sum of the bytes of the results that it holds.
    pub nbytes: u64,
    /// Tasks assigned to it.
    pub processing: usize,
    /// Expected seconds of work assigned to it.
    pub occupancy: f64,
    /// Results that it holds.
    pub has_what: usize,
    /// Tasks that left their slot.
    pub long_running: usize,
    /// Tasks that it said it is executing.
    pub executing: usize,
    /// Last sign of life.
    pub last_seen: Time,
}

/// Counts of a prefix: tasks by state, in the order of [`TaskStateName::KNOWN`].
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixView {
    /// Its name.
    pub name: Arc<str>,
    /// Tasks by state.
    pub states: [u64; 7],
    /// Mean seconds of its tasks; `None` if none ran.
    pub duration: Option<f64>,
    /// Bytes of the results in memory.
    pub nbytes: u64,
}

/// Which workers could go (Dask's `workers_to_close`).
#[derive(Clone, Debug, Default)]
pub struct ToClose {
    /// Memory limits of those that stay over data held. Default 2.
    pub memory_ratio: Option<f64>,
    /// How many shall go.
    pub n: Option<usize>,
    /// How many stay at least.
    pub minimum: Option<usize>,
    /// How many shall stay.
    pub target: Option<usize>,
    /// Workers that go or stay together: worker → group. Empty: each by itself.
    pub groups: Vec<(WorkerId, String)>,
}

/// A shuffle that is under way.
#[derive(Clone, Debug)]
pub struct ShuffleView {
    /// Its attempt.
    pub run_id: i64,
    /// What workers are told about it.
    pub run_spec: Payload,
    /// Workers that take part.
    pub participating: Vec<WorkerId>,
    /// The worker of each output partition, by address.
    pub worker_for: Vec<(Value, Arc<str>)>,
}

impl Core {
    /// A task by its key.
    pub fn task(&self, key: &Key) -> Option<TaskView> {
        let _ = key;
        None
    }

    /// The state of a task: cheaper than [`task`](Self::task).
    pub fn task_state(&self, key: &Key) -> Option<TaskStateName> {
        let _ = key;
        None
    }

    /// Workers that hold a key.
    pub fn who_has(&self, key: &Key) -> Vec<WorkerId> {
        let _ = key;
        Vec::new()
    }

    /// All keys, in the order of their creation.
    pub fn keys(&self) -> Vec<Key> {
        Vec::new()
    }

    /// Keys of the results on a worker.
    pub fn has_what(&self, worker: WorkerId) -> Vec<Key> {
        let _ = worker;
        Vec::new()
    }

    /// Keys of the tasks assigned to a worker.
    pub fn processing(&self, worker: WorkerId) -> Vec<Key> {
        let _ = worker;
        Vec::new()
    }

    /// A worker.
    pub fn worker(&self, worker: WorkerId) -> Option<WorkerView> {
        let _ = worker;
        None
    }

    /// All workers in the order in which they came.
    pub fn workers(&self) -> Vec<WorkerId> {
        Vec::new()
    }

    /// Tasks by state, in the order of [`TaskStateName::KNOWN`].
    pub fn task_counts(&self) -> [u64; 7] {
        [0; 7]
    }

    /// Prefixes in the order in which they came.
    pub fn prefixes(&self) -> Vec<PrefixView> {
        Vec::new()
    }

    /// Keys that a client wants.
    pub fn wanted_keys(&self, client: ClientId) -> Vec<Key> {
        let _ = client;
        Vec::new()
    }

    /// Expected seconds of all work known, over all workers (Dask's `total_occupancy`).
    pub fn total_occupancy(&self) -> f64 {
        0.0
    }

    /// How many workers would do the present work in `target_duration` seconds.
    pub fn adaptive_target(&self, target_duration: f64) -> u64 {
        let _ = target_duration;
        0
    }

    /// Workers that could go without loss, those with the least to move first.
    pub fn workers_to_close(&self, choice: &ToClose) -> Vec<WorkerId> {
        let _ = choice;
        Vec::new()
    }

    /// Since when nothing has been to do; `None` while there is.
    pub fn idle_since(&self) -> Option<Time> {
        None
    }

    /// A shuffle by its id.
    pub fn shuffle(&self, id: &str) -> Option<ShuffleView> {
        let _ = id;
        None
    }

    /// Partitions already placed by active shuffles that share an output task with shuffle `id`.
    pub fn shuffle_placements(&self, id: &str) -> Vec<(Value, Arc<str>)> {
        let _ = id;
        Vec::new()
    }

    /// Transitions of keys, or those caused by stimuli, in the order in which they happened.
    pub fn story(&self, keys: &[Key], stimuli: &[String]) -> Vec<(Time, Transition)> {
        let _ = (keys, stimuli);
        Vec::new()
    }
}
