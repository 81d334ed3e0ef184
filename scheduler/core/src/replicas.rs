//! Superfluous copies of results are dropped.
//!
//! Results are copied where tasks need them. When fewer workers need a result than hold it, the copies on the fullest
//! workers go. Source: distributed `active_memory_manager.ReduceReplicas`.

use oxidask_protocol::Key;

use crate::action::TaskStateName::Memory;
use crate::ids::{TaskId, WorkerId};
use crate::timer::Timer;
use crate::{Core, IdSet};

impl Core {
    /// Looks at the copies from time to time while there are any.
    pub(crate) fn watch_replicas(&mut self) {
        if self.config.active_memory_manager && !self.replicated.is_empty() {
            self.timers.start(
                Timer::Replicas,
                self.now,
                self.config.active_memory_manager_interval,
            );
        }
    }

    /// Drops the copies that nobody needs.
    pub(crate) fn reduce_replicas(&mut self) {
        let mut dropped: Vec<(Key, WorkerId)> = Vec::new();
        for id in self.replicated.iter().copied() {
            let superfluous = self.tasks[id]
                .who_has
                .len()
                .saturating_sub(self.wanted_copies(id));
            dropped.extend(
                self.fullest_holders(id)
                    .into_iter()
                    .take(superfluous)
                    .map(|worker| (self.tasks[id].key.clone(), worker)),
            );
        }
        self.drop_replicas(&dropped);
    }

    /// One copy, or one on each worker that runs a task which needs it; a task without a worker counts as another.
    fn wanted_copies(&self, id: TaskId) -> usize {
        let mut workers: IdSet<WorkerId> = IdSet::default();
        let mut unplaced = 0;
        for waiter in self.tasks[id].waiters.iter() {
            match self.tasks[waiter].processing_on {
                Some(worker) => {
                    workers.insert(worker);
                }
                None => unplaced += 1,
            }
        }
        (workers.len() + unplaced).max(1)
    }

    /// Holders that run nothing which needs the result: those that leave first, then those with most data.
    fn fullest_holders(&self, id: TaskId) -> Vec<WorkerId> {
        let task = &self.tasks[id];
        if task.state != Memory || task.is_actor {
            return Vec::new();
        }
        let needs = |worker: WorkerId| {
            task.waiters
                .iter()
                .any(|t| self.tasks[t].processing_on == Some(worker))
        };
        let mut holders: Vec<WorkerId> = task
            .who_has
            .iter()
            .filter(|worker| !needs(*worker))
            .collect();
        holders.sort_by_key(|worker| {
            let state = &self.workers[worker];
            (
                state.is_running(),
                std::cmp::Reverse(state.memory.max(state.nbytes)),
                *worker,
            )
        });
        holders
    }
}
