//! Transitions of tasks whose result is on a worker.

use std::sync::Arc;

use super::TaskStateName::{Erred, Forgotten, NoWorker, Processing, Queued, Released, Waiting};
use crate::Core;
use crate::action::Report;
use crate::event::TaskError;
use crate::ids::TaskId;
use crate::state::task::Blame;

impl Core {
    /// Source: distributed `_transition_memory_released`.
    pub(super) fn memory_to_released(&mut self, id: TaskId) {
        if self.tasks[id].is_actor && !self.tasks[id].who_wants.is_empty() {
            // An actor is not made again: its state would be another.
            self.recommend(id, Erred);
            return;
        }
        self.drop_all_replicas(id);
        self.set_state(id, Released);
        let key = self.tasks[id].key.clone();
        self.report(id, &Report::LostData { key });
        let task = &self.tasks[id];
        if task.run_spec.is_none() || task.has_lost_dependencies {
            self.recommend(id, Forgotten);
        } else if task.is_needed() && !self.blame_erred_dependency(id) {
            self.recommend(id, Waiting);
        }
        for waiter in self.tasks[id].waiters.to_vec() {
            match self.tasks[waiter].state {
                NoWorker | Processing | Queued => self.recommend(waiter, Waiting),
                Waiting => {
                    self.tasks[waiter].waiting_on.insert(id);
                }
                _ => {}
            }
        }
    }

    /// Actors only: their worker is gone, and their state with it. Source: distributed `_transition_memory_erred`.
    pub(super) fn memory_to_erred(&mut self, id: TaskId) {
        self.drop_all_replicas(id);
        let key = self.tasks[id].key.clone();
        let error = Arc::new(TaskError::builtin(
            "RuntimeError",
            "Worker holding Actor was lost",
        ));
        let blame = Arc::new(Blame { key, error });
        for dependent in self.tasks[id].dependents.to_vec() {
            let task = &mut self.tasks[dependent];
            if task.who_has.is_empty() {
                task.blame_on(Arc::clone(&blame));
                self.recommend(dependent, Erred);
            }
        }
        self.tasks[id].blame_on(blame);
        self.fail(id);
    }

    /// Source: distributed `_transition_memory_forgotten`.
    pub(super) fn memory_to_forgotten(&mut self, id: TaskId) {
        self.forget(id);
    }
}
