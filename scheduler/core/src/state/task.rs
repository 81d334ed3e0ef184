//! Tasks and the table that finds them by key.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::FixedState;
use hashbrown::HashTable;
use oxidask_protocol::{Key, Payload};

use super::group::GroupId;
use super::set::Set;
use crate::action::TaskStateName;
use crate::event::{Annotations, TaskError};
use crate::ids::{ClientId, TaskId, WorkerId};

/// (−user priority, generation, order): smaller runs first. The generation is a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Priority {
    pub(crate) user: f64,
    pub(crate) generation: f64,
    pub(crate) order: i64,
}

/// A place in the order of tasks: a number for each part of a priority.
pub(crate) type Rank = (u64, u64, i64);

impl Priority {
    /// That of a task which has none. An `Option` would take eight bytes more for each task.
    const NONE: Self = Self {
        user: 0.0,
        generation: f64::NAN,
        order: 0,
    };

    /// A number per part that orders as the part does, for sorted sets.
    pub(crate) fn rank(self) -> Rank {
        (rank(self.user), rank(self.generation), self.order)
    }
}

/// Maps floats to integers in the same order (`-0.0` and `0.0` count as equal).
pub(crate) fn rank(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 0 {
        bits | 1 << 63
    } else {
        !bits
    }
}

/// What is known of a task. Ids in its sets are those of known tasks, workers and clients.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) key: Key,
    pub(crate) state: TaskStateName,
    /// Never offered to the queue: an output of a shuffle, which belongs to a worker.
    pub(crate) never_queued: bool,
    /// Reads from outside: a root, whatever it depends on.
    pub(crate) data_producer: bool,
    /// The barrier of a shuffle.
    pub(crate) is_barrier: bool,
    pub(crate) is_actor: bool,
    /// A dependency was forgotten, so it can never run again.
    pub(crate) has_lost_dependencies: bool,
    pub(crate) group: GroupId,
    /// `None`: scattered data, or a placeholder for a definition that is still to come.
    pub(crate) run_spec: Option<Payload>,
    /// Set once, by the first graph that defines the task; until then [`Priority::NONE`].
    priority: Priority,
    pub(crate) dependencies: Set<TaskId>,
    /// The reverse of `dependencies`.
    pub(crate) dependents: Set<TaskId>,
    /// Dependencies that are not in memory. Empty unless `waiting`.
    pub(crate) waiting_on: Set<TaskId>,
    /// Dependents that are waiting, no-worker, queued or processing, and need the data.
    pub(crate) waiters: Set<TaskId>,
    /// Clients that want it. The reverse of `Client::wants`.
    pub(crate) who_wants: Set<ClientId>,
    /// Workers that hold the result. The reverse of `Worker::has_what`. Empty unless `memory`.
    pub(crate) who_has: Set<WorkerId>,
    /// The worker that it is assigned to. Some if and only if `processing`.
    pub(crate) processing_on: Option<WorkerId>,
    /// Bytes of the result, −1 if unknown.
    pub(crate) nbytes: i64,
    /// The last attempt.
    pub(crate) run_id: i64,
    pub(crate) annotations: Option<Arc<Annotations>>,
    pub(crate) result_type: Option<Arc<ResultType>>,
    special: Option<Box<Special>>,
}

/// What few tasks have. It lies apart, so that the others do not pay for it.
#[derive(Debug)]
pub(crate) struct Special {
    /// Overrides the workers of the task's annotations.
    pub(crate) restriction: Option<Box<[String]>>,
    /// Some if the task is erred, or is about to be.
    pub(crate) failure: Option<Failure>,
    /// How often it may still raise an exception before it is erred.
    pub(crate) retries: u32,
    /// Workers that died while they ran it.
    pub(crate) suspicious: u32,
}

impl Special {
    /// What most tasks have.
    const NOTHING: Self = Self {
        restriction: None,
        failure: None,
        retries: 0,
        suspicious: 0,
    };
}

/// Why a task is erred.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) blame: Arc<Blame>,
    /// Workers that remember the failure and are to forget it.
    pub(crate) erred_on: Set<WorkerId>,
}

/// The task that raised an exception; it may be forgotten before those that failed because of it.
#[derive(Debug)]
pub(crate) struct Blame {
    pub(crate) key: Key,
    pub(crate) error: Arc<TaskError>,
}

/// The class of a result; one for all tasks that return it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResultType {
    pub(crate) name: Arc<str>,
    pub(crate) pickle: Option<Bytes>,
}

impl Task {
    pub(crate) fn new(key: Key, group: GroupId) -> Self {
        Self {
            key,
            state: TaskStateName::Released,
            never_queued: false,
            data_producer: false,
            is_barrier: false,
            is_actor: false,
            has_lost_dependencies: false,
            group,
            run_spec: None,
            priority: Priority::NONE,
            dependencies: Set::Empty,
            dependents: Set::Empty,
            waiting_on: Set::Empty,
            waiters: Set::Empty,
            who_wants: Set::Empty,
            who_has: Set::Empty,
            processing_on: None,
            nbytes: -1,
            run_id: -1,
            annotations: None,
            result_type: None,
            special: None,
        }
    }

    pub(crate) fn special(&self) -> &Special {
        static NOTHING: Special = Special::NOTHING;
        self.special.as_deref().unwrap_or(&NOTHING)
    }

    pub(crate) fn special_mut(&mut self) -> &mut Special {
        self.special
            .get_or_insert_with(|| Box::new(Special::NOTHING))
    }

    /// Why it is erred, or about to be.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.special().failure.as_ref()
    }

    /// It is not erred any more. Gives why it was.
    pub(crate) fn take_failure(&mut self) -> Option<Failure> {
        self.special.as_mut()?.failure.take()
    }

    /// `None` before a graph has defined it, so for scattered data.
    pub(crate) fn priority(&self) -> Option<Priority> {
        (!self.priority.generation.is_nan()).then_some(self.priority)
    }

    /// Gives a task its priority, if it has none yet.
    pub(crate) fn set_priority(&mut self, priority: Priority) {
        if self.priority.generation.is_nan() {
            self.priority = priority;
        }
    }

    /// Workers, names or hosts where it may run; empty for anywhere.
    pub(crate) fn worker_restrictions(&self) -> &[String] {
        match (&self.special().restriction, &self.annotations) {
            (Some(workers), _) => workers,
            (None, Some(annotations)) => &annotations.workers,
            (None, None) => &[],
        }
    }

    pub(crate) fn resource_restrictions(&self) -> &[(String, f64)] {
        self.annotations
            .as_ref()
            .map_or(&[], |annotations| &annotations.resources)
    }

    /// The task failed, or will, because of `blame`.
    pub(crate) fn blame_on(&mut self, blame: Arc<Blame>) {
        match &mut self.special_mut().failure {
            Some(failure) => failure.blame = blame,
            none => {
                *none = Some(Failure {
                    blame,
                    erred_on: Set::Empty,
                });
            }
        }
    }

    /// A place in the order of tasks, also for those without priority (scattered data), which come first.
    pub(crate) fn rank(&self) -> Rank {
        self.priority().map_or((0, 0, 0), Priority::rank)
    }

    /// Somebody needs the data: a client, or a dependent that has not run.
    pub(crate) fn is_needed(&self) -> bool {
        !self.who_wants.is_empty() || !self.waiters.is_empty()
    }
}

/// All tasks. An id is reused after its task was forgotten, but ids live in no place that outlasts the task:
/// `validate` checks that every id in every set names a known task.
#[derive(Debug)]
pub(crate) struct TaskTable {
    /// [`CHUNK`] slots each, so that a table that grows moves no task, and one that shrinks gives memory back.
    chunks: Vec<Chunk>,
    /// Ids that were given and are not in use.
    free: Vec<TaskId>,
    by_key: HashTable<TaskId>,
    hasher: FixedState,
}

/// Slots of a chunk.
const CHUNK: usize = 256;

/// Tasks for which room is kept, so that tasks that come and go one by one cost no allocation.
const KEPT_KEYS: usize = 4096;

/// Neighbouring slots.
#[derive(Debug, Default)]
struct Chunk {
    /// Tasks in `slots`.
    tasks: usize,
    /// None at all while there are no tasks.
    slots: Box<[Option<Task>]>,
}

/// Chunk and place of a task.
fn place(id: TaskId) -> (usize, usize) {
    let index = id.0 as usize;
    (index / CHUNK, index % CHUNK)
}

impl TaskTable {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn find(&self, key: &Key) -> Option<TaskId> {
        let hash = self.hasher.hash_one(key);
        self.by_key.find(hash, |id| self[*id].key == *key).copied()
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        let (chunk, slot) = place(id);
        self.chunks.get(chunk)?.slots.get(slot)?.as_ref()
    }

    /// Adds a task whose key is not in the table.
    pub(crate) fn insert(&mut self, task: Task) -> TaskId {
        let hash = self.hasher.hash_one(&task.key);
        let id = self.free.pop().unwrap_or_else(|| {
            let index = self.by_key.len();
            TaskId(u32::try_from(index).expect("fewer than 2^32 tasks fit into memory"))
        });
        let (chunk, slot) = place(id);
        if chunk == self.chunks.len() {
            self.chunks.push(Chunk::default());
        }
        let chunk = &mut self.chunks[chunk];
        if chunk.slots.is_empty() {
            chunk.slots = std::iter::repeat_with(|| None).take(CHUNK).collect();
        }
        chunk.slots[slot] = Some(task);
        chunk.tasks += 1;
        let Self {
            by_key,
            chunks,
            hasher,
            ..
        } = self;
        by_key.insert_unique(hash, id, |id| hasher.hash_one(&known(chunks, *id).key));
        id
    }

    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let (at, slot) = place(id);
        let chunk = self.chunks.get_mut(at)?;
        let task = chunk.slots.get_mut(slot)?.take()?;
        chunk.tasks -= 1;
        if chunk.tasks == 0 && at >= KEPT_KEYS / CHUNK {
            chunk.slots = Box::default();
        }
        let hash = self.hasher.hash_one(&task.key);
        if let Ok(entry) = self.by_key.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
        self.give_back();
        Some(task)
    }

    /// Gives memory of the index back when little of it is used any more.
    fn give_back(&mut self) {
        let capacity = self.by_key.capacity();
        if capacity <= KEPT_KEYS || self.by_key.len() > capacity / 8 {
            return;
        }
        if self.by_key.is_empty() {
            // Nothing refers to any id now.
            self.chunks = Vec::new();
            self.free = Vec::new();
        }
        let Self {
            by_key,
            chunks,
            hasher,
            ..
        } = self;
        by_key.shrink_to(2 * by_key.len(), |id| {
            hasher.hash_one(&known(chunks, *id).key)
        });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            chunk
                .slots
                .iter()
                .enumerate()
                .filter_map(move |(slot, task)| {
                    Some((TaskId((at * CHUNK + slot) as u32), task.as_ref()?))
                })
        })
    }
}

fn known(chunks: &[Chunk], id: TaskId) -> &Task {
    let (chunk, slot) = place(id);
    chunks[chunk].slots[slot]
        .as_ref()
        .expect("ids in sets name known tasks")
}

impl Index<TaskId> for TaskTable {
    type Output = Task;

    fn index(&self, id: TaskId) -> &Task {
        known(&self.chunks, id)
    }
}

impl IndexMut<TaskId> for TaskTable {
    fn index_mut(&mut self, id: TaskId) -> &mut Task {
        let (chunk, slot) = place(id);
        self.chunks[chunk].slots[slot]
            .as_mut()
            .expect("ids in sets name known tasks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_stays_within_its_budget_of_memory() {
        assert!(
            size_of::<Option<Task>>() <= 248,
            "{}",
            size_of::<Option<Task>>()
        );
    }

    #[test]
    fn floats_and_their_ranks_have_the_same_order() {
        let values = [
            f64::NEG_INFINITY,
            -2.5,
            -1.0,
            0.0,
            0.99,
            1.0,
            7e9,
            f64::INFINITY,
        ];
        assert!(values.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
        assert_eq!(rank(-0.0), rank(0.0));
    }

    #[test]
    fn keys_are_found_until_their_task_is_removed() {
        let mut table = TaskTable::new(1);
        let ids: Vec<_> = (0..100)
            .map(|i| table.insert(Task::new(Key::from(i), GroupId(0))))
            .collect();
        assert_eq!(table.find(&Key::from(42)), Some(ids[42]));
        table.remove(ids[42]);
        assert_eq!(table.find(&Key::from(42)), None);
        let again = table.insert(Task::new(Key::from("x"), GroupId(0)));
        assert_eq!(table.find(&Key::from("x")), Some(again));
        assert_eq!(table.len(), 100);
    }

    #[test]
    fn memory_of_tasks_that_are_gone_is_given_back_though_some_stay() {
        let mut table = TaskTable::new(1);
        let ids: Vec<_> = (0..20_000)
            .map(|i| table.insert(Task::new(Key::from(i), GroupId(0))))
            .collect();
        for id in &ids[..ids.len() - 1] {
            table.remove(*id);
        }
        let slots: usize = table.chunks.iter().map(|chunk| chunk.slots.len()).sum();
        assert!(slots <= KEPT_KEYS + CHUNK, "{slots}");
        assert!(table.by_key.capacity() <= KEPT_KEYS);
        assert_eq!(table.find(&Key::from(19_999)), Some(ids[19_999]));
        assert_eq!(table.iter().count(), 1);
        let again = table.insert(Task::new(Key::from(5), GroupId(0)));
        assert_eq!(table.find(&Key::from(5)), Some(again));
    }
}
