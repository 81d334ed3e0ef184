//! What is known of results and their copies.

use std::sync::Arc;

use oxidask_protocol::Key;

use crate::Core;
use crate::action::Action;
use crate::action::TaskStateName::{Memory, Released};
use crate::ids::{ClientId, TaskId, WorkerId};

impl Core {
    /// Source: distributed `update_data`.
    pub(super) fn data_added(
        &mut self,
        client: Option<ClientId>,
        data: Vec<(Key, u64, Vec<WorkerId>)>,
    ) {
        for (key, nbytes, holders) in data {
            let id = self.task_or_placeholder(&key);
            for worker in holders {
                if self.workers.contains_key(&worker) {
                    self.hold(id, worker, nbytes);
                }
            }
            if let Some(client) = client.filter(|client| self.clients.contains_key(client)) {
                self.begin_interest(client, id);
            }
            for wanter in self.tasks[id].who_wants.to_vec() {
                self.report_state(wanter, id);
            }
        }
    }

    /// A worker holds a value that nobody computed, or computed elsewhere.
    fn hold(&mut self, id: TaskId, on: WorkerId, nbytes: u64) {
        if self.tasks[id].nbytes < 0 || self.tasks[id].state != Memory {
            self.set_nbytes(id, nbytes);
        }
        if self.tasks[id].state != Memory {
            self.stop_computing(id);
            if self.tasks[id].state != Released {
                return;
            }
            self.set_state(id, Memory);
            self.add_replica(id, on);
            self.recommend_ready_dependents(id);
            return;
        }
        self.add_replica(id, on);
    }

    /// A task whose value comes from elsewhere need not run.
    fn stop_computing(&mut self, id: TaskId) {
        if self.tasks[id].state != Released {
            self.transition(id, Released);
            self.recommendations.shift_remove(&id);
            self.let_go_of_dependencies(id);
        }
    }

    /// Source: distributed `add_keys`: copies of results are welcome, anything else is to be dropped.
    pub(super) fn keys_added(&mut self, worker: WorkerId, keys: Vec<Key>) {
        if !self.workers.contains_key(&worker) {
            return;
        }
        let mut refused: Vec<Key> = Vec::new();
        for key in keys {
            match self
                .tasks
                .find(&key)
                .filter(|id| self.tasks[*id].state == Memory)
            {
                Some(id) => self.add_replica(id, worker),
                None => refused.push(key),
            }
        }
        if !refused.is_empty() {
            let stimulus_id = format!("redundant-replicas-{}", self.now.as_secs_f64()).into();
            self.actions.push_back(Action::RemoveReplicas {
                worker,
                keys: refused,
                stimulus_id,
            });
        }
        self.continue_retirements();
    }

    /// Source: distributed `release_worker_data`.
    pub(super) fn worker_data_released(&mut self, worker: WorkerId, key: &Key) {
        if let Some(id) = self.tasks.find(key) {
            self.lose_replica(id, worker);
        }
    }

    /// A copy is gone; the last one takes the result with it.
    fn lose_replica(&mut self, id: TaskId, worker: WorkerId) {
        if !self.tasks[id].who_has.contains(worker) {
            return;
        }
        self.remove_replica(id, worker);
        if self.tasks[id].who_has.is_empty() {
            self.recommend(id, Released);
        }
    }

    /// Holders could not deliver what they should hold. Source: distributed `gather`.
    pub(super) fn replicas_missing(&mut self, missing: &[(Key, WorkerId)]) {
        for (key, worker) in missing {
            let Some(id) = self.tasks.find(key) else {
                continue;
            };
            if self.tasks[id].who_has.contains(*worker) {
                self.free_key(*worker, key.clone());
                self.lose_replica(id, *worker);
            }
        }
    }

    /// Source: distributed `handle_request_refresh_who_has`.
    pub(super) fn who_has_requested(&mut self, worker: WorkerId, keys: Vec<Key>) {
        let mut who_has = Vec::new();
        for key in keys {
            match self.tasks.find(&key) {
                Some(id) => who_has.push((key, self.tasks[id].who_has.to_vec())),
                None => self.free_key(worker, key),
            }
        }
        if !who_has.is_empty() {
            let stimulus_id = Arc::clone(&self.stimulus);
            self.actions.push_back(Action::RefreshWhoHas {
                worker,
                who_has,
                stimulus_id,
            });
        }
    }

    /// Lets workers fetch copies of results.
    pub(crate) fn replicate_to(&mut self, targets: &[(Key, WorkerId)]) {
        let mut by_worker: crate::IdMap<WorkerId, Vec<(Key, Vec<WorkerId>, u64)>> =
            Default::default();
        for (key, worker) in targets {
            let Some(id) = self
                .tasks
                .find(key)
                .filter(|id| self.tasks[*id].state == Memory)
            else {
                continue;
            };
            if self.tasks[id].who_has.contains(*worker) || !self.workers.contains_key(worker) {
                continue;
            }
            let holders = self.tasks[id].who_has.to_vec();
            let nbytes = self.nbytes_or_default(id);
            by_worker
                .entry(*worker)
                .or_default()
                .push((key.clone(), holders, nbytes));
        }
        for (worker, keys) in by_worker {
            let stimulus_id = Arc::clone(&self.stimulus);
            self.actions.push_back(Action::AcquireReplicas {
                worker,
                keys,
                stimulus_id,
            });
        }
    }

    /// Lets workers drop copies of results, never the last one.
    pub(crate) fn drop_replicas(&mut self, targets: &[(Key, WorkerId)]) {
        let mut by_worker: crate::IdMap<WorkerId, Vec<Key>> = Default::default();
        for (key, worker) in targets {
            let Some(id) = self.tasks.find(key) else {
                continue;
            };
            let task = &self.tasks[id];
            if task.who_has.len() > 1 && task.who_has.contains(*worker) {
                self.remove_replica(id, *worker);
                by_worker.entry(*worker).or_default().push(key.clone());
            }
        }
        for (worker, keys) in by_worker {
            let stimulus_id = Arc::clone(&self.stimulus);
            self.actions.push_back(Action::RemoveReplicas {
                worker,
                keys,
                stimulus_id,
            });
        }
    }
}
