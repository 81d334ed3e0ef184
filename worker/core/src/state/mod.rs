//! The data of the state machine; the invariants stand at the fields.

mod peer;
mod task;

use hashbrown::HashMap;
use oxidask_protocol::Key;

use crate::ids::TaskId;

pub(crate) use peer::{Flight, Peers};
pub(crate) use task::{Busy, Slot, State, Task, TaskSet};

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    task: Option<Task>,
}

/// All tasks that are not forgotten.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    by_key: HashMap<Key, TaskId>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Tasks {
    pub(crate) fn find(&self, key: &Key) -> Option<TaskId> {
        self.by_key.get(key).copied()
    }

    /// The task, or nothing once it is forgotten.
    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        let entry = &self.entries[id.index as usize];
        if entry.generation == id.generation {
            entry.task.as_ref()
        } else {
            None
        }
    }

    pub(crate) fn insert(&mut self, task: Task) -> TaskId {
        let key = task.key.clone();
        let index = if let Some(index) = self.free.pop() {
            index
        } else {
            self.entries.push(Entry::default());
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 tasks fit in memory")
        };
        let entry = &mut self.entries[index as usize];
        entry.task = Some(task);
        let id = TaskId {
            index,
            generation: entry.generation,
        };
        self.by_key.insert(key, id);
        id
    }

    pub(crate) fn remove(&mut self, id: TaskId) {
        let entry = &mut self.entries[id.index as usize];
        if entry.generation != id.generation {
            return;
        }
        if let Some(task) = entry.task.take() {
            self.by_key.remove(&task.key);
            entry.generation = entry.generation.wrapping_add(1);
            self.free.push(id.index);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                let id = TaskId {
                    index: index as u32,
                    generation: entry.generation,
                };
                entry.task.as_ref().map(|task| (id, task))
            })
    }
}

impl std::ops::Index<TaskId> for Tasks {
    type Output = Task;

    fn index(&self, id: TaskId) -> &Task {
        self.get(id)
            .expect("ids of forgotten tasks are resolved with `get`")
    }
}

impl std::ops::IndexMut<TaskId> for Tasks {
    fn index_mut(&mut self, id: TaskId) -> &mut Task {
        let entry = &mut self.entries[id.index as usize];
        debug_assert_eq!(entry.generation, id.generation);
        entry
            .task
            .as_mut()
            .expect("ids of forgotten tasks are resolved with `get`")
    }
}
