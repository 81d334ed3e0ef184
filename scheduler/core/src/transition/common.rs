//! What several transitions have in common.

use super::TaskStateName::{Forgotten, Memory, Released, Waiting};
use crate::Core;
use crate::action::{Action, Report};
use crate::ids::{ClientId, TaskId, WorkerId};
use crate::state::take_out;

impl Core {
    /// A task that was to run no longer does: it waits again if it is needed, else it lets go of its dependencies.
    pub(super) fn release_task(&mut self, id: TaskId) {
        self.set_state(id, Released);
        let task = &self.tasks[id];
        if task.has_lost_dependencies {
            self.recommend(id, Forgotten);
        } else if task.is_needed() {
            self.recommend(id, Waiting);
            return;
        }
        self.let_go_of_dependencies(id);
        self.tasks[id].waiters = Default::default();
    }

    /// A task no longer waits for its dependencies; those that nobody else needs are released.
    pub(crate) fn let_go_of_dependencies(&mut self, id: TaskId) {
        for dependency in self.tasks[id].dependencies.to_vec() {
            let task = &mut self.tasks[dependency];
            let waited = task.waiters.remove(id);
            if waited && task.state != Released && !task.is_needed() {
                self.recommend(dependency, Released);
            }
        }
    }

    /// Tells every client that wants a task.
    pub(super) fn report(&mut self, id: TaskId, report: &Report) {
        for client in self.tasks[id].who_wants.to_vec() {
            self.report_to(client, report.clone());
        }
    }

    pub(crate) fn report_to(&mut self, client: ClientId, report: Report) {
        self.actions.push_back(Action::Report { client, report });
    }

    /// The copy of a result on a worker is known.
    pub(crate) fn add_replica(&mut self, id: TaskId, on: WorkerId) {
        let task = &mut self.tasks[id];
        let worker = &mut self.workers[&on];
        if !task.who_has.insert(on) {
            return;
        }
        worker.has_what.insert(id);
        if task.who_has.len() == 2 {
            self.replicated.insert(id);
        }
        worker.nbytes += u64::try_from(task.nbytes).unwrap_or(0);
        if let Some((_, bytes)) = worker.needs.swap_remove(&id) {
            worker.network_bytes -= bytes;
            self.network_bytes -= bytes;
        }
        self.watch_replicas();
    }

    /// The copy of a result on a worker is gone.
    pub(crate) fn remove_replica(&mut self, id: TaskId, on: WorkerId) {
        let task = &mut self.tasks[id];
        if !task.who_has.remove(on) {
            return;
        }
        if task.who_has.len() == 1 {
            self.replicated.swap_remove(&id);
        }
        if let Some(worker) = self.workers.get_mut(&on) {
            take_out(&mut worker.has_what, &id);
            worker.nbytes -= u64::try_from(task.nbytes).unwrap_or(0);
        }
    }

    /// Forgets all copies of a result and tells their workers to drop them.
    pub(super) fn drop_all_replicas(&mut self, id: TaskId) {
        for worker in self.tasks[id].who_has.to_vec() {
            self.remove_replica(id, worker);
            if let Some(state) = self.workers.get_mut(&worker) {
                state.actors.swap_remove(&id);
            }
            let key = self.tasks[id].key.clone();
            self.free_key(worker, key);
        }
    }

    /// The size of a result is known, now or anew.
    pub(crate) fn set_nbytes(&mut self, id: TaskId, nbytes: u64) {
        let task = &mut self.tasks[id];
        let before = u64::try_from(task.nbytes).unwrap_or(0);
        task.nbytes = i64::try_from(nbytes).unwrap_or(i64::MAX);
        for worker in task.who_has.to_vec() {
            let worker = &mut self.workers[&worker];
            worker.nbytes = worker.nbytes - before + nbytes;
        }
        let (group, in_memory) = (self.tasks[id].group, self.tasks[id].state == Memory);
        if in_memory {
            let totals = &mut self.groups.prefix_of_mut(group).totals;
            totals.output_bytes = totals.output_bytes - before + nbytes;
        }
        let group = self.groups.get_mut(group);
        group.nbytes.0 = group.nbytes.0.saturating_add(nbytes);
        group.nbytes.1 += 1;
    }

    /// Bytes of a result, or the usual size while it is unknown.
    pub(crate) fn nbytes_or_default(&self, id: TaskId) -> u64 {
        u64::try_from(self.tasks[id].nbytes).unwrap_or(self.config.default_data_size)
    }

    /// Takes a task out of the table, with all that points to it.
    ///
    /// Its dependents can never run again and go too, unless they are in memory or erred; dependencies that nobody
    /// else needs go as well.
    pub(super) fn forget(&mut self, id: TaskId) {
        for client in self.tasks[id].who_wants.to_vec() {
            take_out(&mut self.clients[&client].wants, &id);
            let keys = vec![self.tasks[id].key.clone()];
            let reason = Some("already forgotten".to_owned());
            self.actions.push_back(Action::CancelledKeys {
                client: Some(client),
                keys,
                reason,
                message: None,
            });
        }
        for dependent in self.tasks[id].dependents.to_vec() {
            let task = &mut self.tasks[dependent];
            task.has_lost_dependencies = true;
            task.dependencies.remove(id);
            task.waiting_on.remove(id);
            if let Some(worker) = task.processing_on {
                self.unneed(worker, id);
            }
            let task = &self.tasks[dependent];
            if !matches!(task.state, Memory | super::Erred) {
                self.recommend(dependent, Forgotten);
            }
        }
        for dependency in self.tasks[id].dependencies.to_vec() {
            let task = &mut self.tasks[dependency];
            task.dependents.remove(id);
            task.waiters.remove(id);
            if task.dependents.is_empty() && task.who_wants.is_empty() {
                self.forget_soon(dependency);
            }
        }
        self.drop_all_replicas(id);
        self.set_state(id, Forgotten);
        self.recommendations.shift_remove(&id);
        self.planned.swap_remove(&id);
        self.slices.note_forgotten(id);
        self.tasks.remove(id);
    }
}
