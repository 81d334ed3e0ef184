//! What can be asked about the state; nothing here changes it.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_protocol::{Key, Payload, Value};

use crate::action::TaskStateName;
use crate::event::{Annotations, SpanTag, TaskError, WorkerStatus};
use crate::ids::{ClientId, TaskId, WorkerId};
use crate::state::group::GroupId;
pub use crate::state::group::{Figures, PrefixTotals};
use crate::state::span::{PastGroup, Span};
use crate::stimulus::shuffle::BARRIER;
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
    /// Its span.
    pub span: Option<Arc<str>>,
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
    /// What its tasks cost so far.
    pub totals: PrefixTotals,
}

/// A group of tasks: those of one layer.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Its name.
    pub name: Arc<str>,
    /// Name of its prefix.
    pub prefix: Arc<str>,
    /// Tasks by state, forgotten ones last, otherwise in the order of [`TaskStateName::KNOWN`].
    pub states: [u64; 8],
    /// Names of the groups that it depends on.
    pub dependencies: Vec<Arc<str>>,
    /// Its span.
    pub span: Option<Arc<str>>,
    /// What its tasks cost so far.
    pub figures: Figures,
}

/// A span: tasks that a user named together.
#[derive(Clone, Debug)]
pub struct SpanView {
    /// Its id and name, and those of the spans around it.
    pub tag: SpanTag,
    /// When its first task came.
    pub enqueued: Time,
    /// Groups that belong to it directly, those whose tasks are all forgotten included.
    pub groups: Vec<GroupView>,
    /// What workers measured for it.
    pub metrics: Vec<(Key, f64)>,
    /// The pickled descriptions of its graphs.
    pub metadata: Vec<Payload>,
    /// The pickled source code of its graphs.
    pub code: Vec<Payload>,
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
        let task = &self.tasks[self.tasks.find(key)?];
        let keys = |set: &crate::state::set::Set<_>| {
            set.iter().map(|id| self.tasks[id].key.clone()).collect()
        };
        Some(TaskView {
            key: task.key.clone(),
            state: task.state,
            nbytes: task.nbytes,
            who_has: task.who_has.to_vec(),
            who_wants: task.who_wants.to_vec(),
            dependencies: keys(&task.dependencies),
            dependents: keys(&task.dependents),
            processing_on: task.processing_on,
            run_spec: task.run_spec.clone(),
            annotations: task.annotations.clone(),
            actor: task.is_actor,
            priority: task.priority().map(|p| (p.user, p.generation, p.order)),
            error: task
                .failure()
                .map(|f| (f.blame.key.clone(), Arc::clone(&f.blame.error))),
            typename: task.result_type.as_ref().map(|t| Arc::clone(&t.name)),
            type_: task.result_type.as_ref().and_then(|t| t.pickle.clone()),
            retries: task.special().retries,
            suspicious: task.special().suspicious,
            worker_restrictions: task.worker_restrictions().to_vec(),
            prefix: Arc::clone(&self.groups.prefix_of(task.group).name),
            group: Arc::clone(&self.groups.get(task.group).name),
            span: self.groups.get(task.group).span.clone(),
        })
    }

    /// The state of a task: cheaper than [`task`](Self::task).
    pub fn task_state(&self, key: &Key) -> Option<TaskStateName> {
        self.tasks.find(key).map(|id| self.tasks[id].state)
    }

    /// Bytes of a result in memory.
    pub fn nbytes(&self, key: &Key) -> Option<u64> {
        self.tasks
            .find(key)
            .and_then(|id| u64::try_from(self.tasks[id].nbytes).ok())
    }

    /// Workers that hold a key.
    pub fn who_has(&self, key: &Key) -> Vec<WorkerId> {
        self.tasks
            .find(key)
            .map(|id| self.tasks[id].who_has.to_vec())
            .unwrap_or_default()
    }

    /// All keys, in the order of their creation as long as none was forgotten.
    pub fn keys(&self) -> Vec<Key> {
        self.tasks
            .iter()
            .map(|(_, task)| task.key.clone())
            .collect()
    }

    /// How many tasks are known.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Keys of the results on a worker.
    pub fn has_what(&self, worker: WorkerId) -> Vec<Key> {
        self.workers
            .get(&worker)
            .map(|w| self.keys_of(&w.has_what))
            .unwrap_or_default()
    }

    /// Keys of the tasks assigned to a worker.
    pub fn processing(&self, worker: WorkerId) -> Vec<Key> {
        self.workers
            .get(&worker)
            .map(|w| self.keys_of(&w.processing))
            .unwrap_or_default()
    }

    fn keys_of(&self, ids: &crate::IdSet<TaskId>) -> Vec<Key> {
        ids.iter().map(|id| self.tasks[*id].key.clone()).collect()
    }

    /// A worker.
    pub fn worker(&self, worker: WorkerId) -> Option<WorkerView> {
        let state = self.workers.get(&worker)?;
        Some(WorkerView {
            worker,
            address: Arc::clone(&state.address),
            status: state.status,
            nthreads: state.nthreads,
            memory_limit: state.memory_limit,
            nbytes: state.nbytes,
            processing: state.processing.len(),
            occupancy: self.occupancy(worker),
            has_what: state.has_what.len(),
            long_running: state.long_running.len(),
            executing: state.executing.len(),
            last_seen: state.last_seen,
        })
    }

    /// Tasks that a worker said it is executing, each with the seconds that it has run.
    pub fn executing(&self, worker: WorkerId) -> Vec<(Key, f64)> {
        let executing = self.workers.get(&worker).map(|w| &w.executing);
        let executing = executing.into_iter().flatten();
        executing
            .map(|(id, seconds)| (self.tasks[*id].key.clone(), *seconds))
            .collect()
    }

    /// Whether a worker runs and has less to do than its threads or than half the mean.
    pub fn is_idle(&self, worker: WorkerId) -> bool {
        self.idle.contains(&worker)
    }

    /// Whether a worker has more to do than others.
    pub fn is_saturated(&self, worker: WorkerId) -> bool {
        self.saturated.contains(&worker)
    }

    /// Measured speed of transfers. Unit: bytes per second.
    pub fn bandwidth(&self) -> f64 {
        self.bandwidth
    }

    /// All workers in the order in which they came.
    pub fn workers(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    /// Workers that take tasks.
    pub fn running_workers(&self) -> Vec<WorkerId> {
        self.running.iter().copied().collect()
    }

    /// Tasks by state, in the order of [`TaskStateName::KNOWN`].
    pub fn task_counts(&self) -> [u64; 7] {
        let mut counts = [0; 7];
        for prefix in self.groups.prefixes() {
            for (count, of_prefix) in counts.iter_mut().zip(prefix.states) {
                *count += of_prefix;
            }
        }
        counts
    }

    /// Prefixes in the order in which they came.
    pub fn prefixes(&self) -> Vec<PrefixView> {
        let view = |prefix: &crate::state::group::Prefix| {
            let mut states = [0; 7];
            states.copy_from_slice(&prefix.states[..7]);
            PrefixView {
                name: Arc::clone(&prefix.name),
                states,
                duration: prefix.duration,
                totals: prefix.totals,
            }
        };
        self.groups.prefixes().map(view).collect()
    }

    /// Groups with known tasks, in the order in which they came as long as none was forgotten.
    pub fn groups(&self) -> Vec<GroupView> {
        let ids = self.groups.iter().map(|(id, _)| id);
        ids.map(|id| self.group_view(id)).collect()
    }

    fn group_view(&self, id: GroupId) -> GroupView {
        let group = self.groups.get(id);
        let name = |id: GroupId| Some(Arc::clone(&self.groups.try_get(id)?.name));
        GroupView {
            name: Arc::clone(&group.name),
            prefix: Arc::clone(&self.groups.prefix_of(id).name),
            states: group.states,
            dependencies: group.dependencies.iter().filter_map(name).collect(),
            span: group.span.clone(),
            figures: group.figures.clone(),
        }
    }

    /// Spans in the order in which they came.
    pub fn spans(&self) -> Vec<SpanView> {
        let past = |id: &Arc<str>, group: &PastGroup| GroupView {
            name: Arc::clone(&group.name),
            prefix: Arc::clone(&group.prefix),
            states: [0, 0, 0, 0, 0, 0, 0, group.forgotten],
            dependencies: Vec::new(),
            span: Some(Arc::clone(id)),
            figures: group.figures.clone(),
        };
        let view = |(id, span): (&Arc<str>, &Span)| SpanView {
            tag: span.tag.clone(),
            enqueued: span.enqueued,
            groups: span
                .past
                .iter()
                .map(|group| past(id, group))
                .chain(span.groups.iter().map(|id| self.group_view(*id)))
                .collect(),
            metrics: span
                .metrics
                .iter()
                .map(|(what, n)| (what.clone(), *n))
                .collect(),
            metadata: span.metadata.clone(),
            code: span.code.clone(),
        };
        self.spans.iter().map(view).collect()
    }

    /// Threads of all workers since each moment at which they changed.
    pub fn nthreads_history(&self) -> impl Iterator<Item = (Time, u64)> {
        self.nthreads_history.iter().copied()
    }

    /// Keys that a client wants.
    pub fn wanted_keys(&self, client: ClientId) -> Vec<Key> {
        self.clients
            .get(&client)
            .map(|c| self.keys_of(&c.wants))
            .unwrap_or_default()
    }

    /// Name of a client.
    pub fn client_name(&self, client: ClientId) -> Option<Arc<str>> {
        self.clients.get(&client).map(|c| Arc::clone(&c.name))
    }

    /// Since when nothing has been to do; `None` while there is.
    pub fn idle_since(&self) -> Option<Time> {
        self.idle_since
    }

    /// A shuffle by its id.
    pub fn shuffle(&self, id: &str) -> Option<ShuffleView> {
        let shuffle = self.shuffles.get(id)?;
        Some(ShuffleView {
            run_id: shuffle.run_id,
            run_spec: shuffle.run_spec.clone(),
            participating: shuffle.participating.to_vec(),
            worker_for: shuffle.worker_for.clone(),
        })
    }

    /// Partitions already placed by active shuffles that share an output task with shuffle `id`.
    ///
    /// Without them, the two inputs of one output could lie on two workers, and a merge would never end.
    pub fn shuffle_placements(&self, id: &str) -> Vec<(Value, Arc<str>)> {
        let Some(barrier) = self.barrier_of(id) else {
            return Vec::new();
        };
        let mut placements = Vec::new();
        for output in self.tasks[barrier].dependents.iter() {
            for other in self.tasks[output]
                .dependencies
                .iter()
                .filter(|other| self.tasks[*other].is_barrier)
            {
                let name = self.tasks[other]
                    .key
                    .as_str()
                    .and_then(|key| key.strip_prefix(BARRIER));
                if let Some(shuffle) = name.and_then(|name| self.shuffles.get(name)) {
                    placements.extend(shuffle.worker_for.iter().cloned());
                    return placements;
                }
            }
        }
        placements
    }
}
