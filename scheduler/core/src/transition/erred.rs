//! The way into and out of erred.

use std::sync::Arc;

use super::TaskStateName::{Erred, Forgotten, Released, Waiting};
use crate::Core;
use crate::action::Report;
use crate::ids::TaskId;
use crate::state::take_out;

impl Core {
    /// A task fails: what waits for it fails with it, and its clients are told who is to blame.
    /// The blame was put on the task before. Source: distributed `_propagate_erred`.
    pub(super) fn fail(&mut self, id: TaskId) {
        let blame = &self.tasks[id]
            .failure()
            .expect("who recommends erred gives the blame first")
            .blame;
        let blame = Arc::clone(blame);
        self.set_state(id, Erred);
        for waiter in self.tasks[id].waiters.to_vec() {
            self.tasks[waiter].blame_on(Arc::clone(&blame));
            self.recommend(waiter, Erred);
        }
        self.let_go_of_dependencies(id);
        self.tasks[id].waiters = Default::default();
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

    /// A failed task is tried again, and with it those that failed because of it.
    /// Source: distributed `_transition_erred_released`.
    pub(super) fn erred_to_released(&mut self, id: TaskId) {
        let failure = self.tasks[id].take_failure();
        for dependent in self.tasks[id].dependents.to_vec() {
            if self.tasks[dependent].state == Erred {
                self.recommend(dependent, Waiting);
            }
        }
        let key = self.tasks[id].key.clone();
        for worker in failure.iter().flat_map(|failure| failure.erred_on.to_vec()) {
            self.free_key(worker, key.clone());
        }
        self.set_state(id, Released);
        self.report(id, &Report::Retried { key });
    }

    /// Nobody waits for a fire-and-forget task: its end releases it.
    pub(super) fn release_fire_and_forget(&mut self, id: TaskId) {
        let Some(client) = self.fire_and_forget else {
            return;
        };
        if self.tasks[id].who_wants.contains(client) {
            self.end_interest(client, id);
        }
    }

    /// A client no longer wants a task; what nobody needs is released or forgotten.
    /// Source: distributed `_client_releases_keys`.
    pub(crate) fn end_interest(&mut self, client: crate::ClientId, id: TaskId) {
        let task = &mut self.tasks[id];
        if !task.who_wants.remove(client) {
            return;
        }
        take_out(&mut self.clients[&client].wants, &id);
        if !task.who_wants.is_empty() {
            return;
        }
        if task.dependents.is_empty() {
            self.recommend(id, Forgotten);
        } else if task.state != Erred && task.waiters.is_empty() {
            self.recommend(id, Released);
        }
    }

    /// A task that depends on a failed one fails too; false if there is none.
    pub(crate) fn blame_erred_dependency(&mut self, id: TaskId) -> bool {
        let blame = self.tasks[id].dependencies.iter().find_map(|dependency| {
            let task = &self.tasks[dependency];
            task.failure()
                .filter(|_| task.state == Erred)
                .map(|failure| Arc::clone(&failure.blame))
        });
        let Some(blame) = blame else { return false };
        self.tasks[id].blame_on(blame);
        self.recommend(id, Erred);
        true
    }
}
