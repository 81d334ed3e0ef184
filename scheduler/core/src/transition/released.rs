//! Transitions of released tasks: known, but nothing is done for them.

use std::sync::Arc;

use super::TaskStateName::{Erred, Forgotten, Processing, Released, Waiting};
use crate::Core;
use crate::action::Report;
use crate::ids::TaskId;
use crate::state::set::Set;

impl Core {
    /// Source: distributed `_transition_released_waiting`.
    pub(super) fn released_to_waiting(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        if task.has_lost_dependencies {
            self.recommend(id, Forgotten);
            return;
        }
        if task.run_spec.is_none() {
            // A placeholder: its graph is still to come.
            return;
        }
        if !self.retrying && self.blame_erred_dependency(id) {
            // It failed while nothing was to be done for this task. (What is tried again leaves erred one by one.)
            return;
        }
        self.tasks[id].take_failure();
        self.set_state(id, Waiting);
        let mut waiting_on = Set::Empty;
        for dependency in self.tasks[id].dependencies.to_vec() {
            let task = &mut self.tasks[dependency];
            task.waiters.insert(id);
            if task.who_has.is_empty() {
                waiting_on.insert(dependency);
            }
            if task.state == Released {
                self.recommend(dependency, Waiting);
            }
        }
        let is_ready = waiting_on.is_empty();
        self.tasks[id].waiting_on = waiting_on;
        if is_ready {
            // It may end up queued or in no-worker.
            self.recommend(id, Processing);
        }
    }

    /// Source: distributed `_transition_released_erred`.
    pub(super) fn released_to_erred(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        let blame = Arc::clone(
            &task
                .failure()
                .expect("who recommends erred gives the blame first")
                .blame,
        );
        for dependent in task.dependents.to_vec() {
            let task = &mut self.tasks[dependent];
            if task.who_has.is_empty() {
                task.blame_on(Arc::clone(&blame));
                self.recommend(dependent, Erred);
            }
        }
        // Nothing waits for it any more; what did would otherwise release it when it fails in turn.
        self.tasks[id].waiters = Default::default();
        self.set_state(id, Erred);
        let key = self.tasks[id].key.clone();
        self.report(
            id,
            &Report::Erred {
                key,
                error: Arc::clone(&blame.error),
            },
        );
        self.release_fire_and_forget(id);
    }

    /// Source: distributed `_transition_released_forgotten`.
    pub(super) fn released_to_forgotten(&mut self, id: TaskId) {
        self.forget(id);
    }
}
