//! Transitions of ready tasks that wait for a worker: queued and no-worker.

use crate::Core;
use crate::ids::TaskId;
use crate::placement::Place;

impl Core {
    pub(super) fn queued_to_released(&mut self, id: TaskId) {
        self.queued.remove(self.tasks[id].rank(), id);
        self.release_task(id);
    }

    /// Source: distributed `_transition_queued_processing`. Stays queued if no worker has an open slot.
    pub(super) fn queued_to_processing(&mut self, id: TaskId) {
        if let Some(worker) = self.emptiest_open_worker() {
            self.queued.remove(self.tasks[id].rank(), id);
            self.assign(id, worker);
        }
    }

    pub(super) fn queued_to_erred(&mut self, id: TaskId) {
        self.queued.remove(self.tasks[id].rank(), id);
        self.fail(id);
    }

    pub(super) fn no_worker_to_released(&mut self, id: TaskId) {
        self.unrunnable.remove(&id);
        self.release_task(id);
    }

    /// Source: distributed `_transition_no_worker_processing`. Stays in no-worker if none may run it.
    pub(super) fn no_worker_to_processing(&mut self, id: TaskId) {
        if self.draining {
            return;
        }
        if let Place::On(worker) = self.place_by_objective(id) {
            self.unrunnable.remove(&id);
            self.assign(id, worker);
        }
    }

    pub(super) fn no_worker_to_erred(&mut self, id: TaskId) {
        self.unrunnable.remove(&id);
        self.fail(id);
    }
}
