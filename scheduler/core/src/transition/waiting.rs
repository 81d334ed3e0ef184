//! Transitions of waiting tasks: some dependencies are not in memory.

use super::TaskStateName::{Forgotten, NoWorker, Queued, Released, Waiting};
use crate::Core;
use crate::ids::TaskId;
use crate::placement::Place;

impl Core {
    /// Source: distributed `_transition_waiting_released`.
    pub(super) fn waiting_to_released(&mut self, id: TaskId) {
        self.let_go_of_dependencies(id);
        self.tasks[id].waiting_on = Default::default();
        self.set_state(id, Released);
        let task = &mut self.tasks[id];
        if task.has_lost_dependencies {
            self.recommend(id, Forgotten);
        } else if task.failure().is_none() && task.is_needed() {
            self.recommend(id, Waiting);
        } else {
            task.waiters = Default::default();
        }
    }

    /// The task is ready: it goes to a worker, or is parked.
    pub(super) fn waiting_to_processing(&mut self, id: TaskId) {
        if !self.tasks[id].waiting_on.is_empty() {
            // A dependency was lost again in the same round.
            return;
        }
        match self.place(id) {
            Place::On(worker) => self.assign(id, worker),
            Place::Queue => self.recommend(id, Queued),
            Place::Nowhere => self.recommend(id, NoWorker),
        }
    }

    pub(super) fn waiting_to_queued(&mut self, id: TaskId) {
        self.set_state(id, Queued);
        self.queued.insert(self.tasks[id].rank(), id);
    }

    pub(super) fn waiting_to_no_worker(&mut self, id: TaskId) {
        self.set_state(id, NoWorker);
        self.unrunnable.insert(id, self.now);
        self.watch_unrunnable();
    }
}
