//! The worker on which a task is expected to start soonest.

use super::Place;
use super::cost::Homes;
use crate::Core;
use crate::ids::{TaskId, WorkerId};

/// (actors there, for actors; seconds that the choice costs; bytes held). Smaller is better.
type Objective = (f64, f64, u64);

/// Below this number of workers the least occupied is looked for; above, they take turns.
const FEW_WORKERS: usize = 20;

impl Core {
    /// Source: distributed `decide_worker_non_rootish`, `decide_worker`.
    pub(crate) fn place_by_objective(&mut self, id: TaskId) -> Place {
        if self.running.is_empty() {
            return Place::Nowhere;
        }
        let task = &self.tasks[id];
        let valid = self.valid_workers(task);
        if task.dependencies.is_empty() && valid.is_none() {
            return Place::On(self.next_in_turn());
        }
        let is_valid =
            |worker: &WorkerId| valid.as_ref().is_none_or(|valid| valid.contains(worker));
        let mut candidates: Vec<WorkerId> = if task.is_actor {
            self.running.iter().copied().filter(is_valid).collect()
        } else {
            let mut holders: Vec<WorkerId> = task
                .dependencies
                .iter()
                .flat_map(|dependency| self.tasks[dependency].who_has.iter())
                .filter(|worker| self.running.contains(worker) && is_valid(worker))
                .collect();
            holders.sort_unstable();
            holders.dedup();
            holders
        };
        if candidates.is_empty() {
            candidates = match valid {
                Some(valid) => valid,
                None => self.running.iter().copied().collect(),
            };
        }
        if candidates.is_empty() && self.allows_other_workers(task) {
            candidates = self.running.iter().copied().collect();
        }
        self.best_by_objective(id, candidates.into_iter())
            .map_or(Place::Nowhere, Place::On)
    }

    /// The worker with the smallest objective; the first of equals.
    pub(super) fn best_by_objective(
        &self,
        id: TaskId,
        workers: impl Iterator<Item = WorkerId>,
    ) -> Option<WorkerId> {
        let homes = self.homes(id);
        let mut best: Option<(Objective, WorkerId)> = None;
        for worker in workers {
            let objective = self.objective(id, worker, &homes);
            if best.is_none_or(|(least, _)| objective < least) {
                best = Some((objective, worker));
            }
        }
        best.map(|(_, worker)| worker)
    }

    /// Source: distributed `worker_objective`, which charges each missing value to each task that needs it, and
    /// nothing for the result.
    fn objective(&self, id: TaskId, worker: WorkerId, homes: &Homes) -> Objective {
        let state = &self.workers[&worker];
        let cost = self.occupancy(worker) / f64::from(state.nthreads)
            + self.fetch_seconds(id, worker)
            + homes.seconds_from(worker);
        let actors = if self.tasks[id].is_actor {
            state.actors.len() as f64
        } else {
            0.0
        };
        (actors, cost, state.nbytes)
    }

    /// Seconds to fetch what a worker lacks of a task's dependencies.
    pub(crate) fn transfer_seconds(&self, id: TaskId, worker: WorkerId) -> f64 {
        let missing: u64 = self.tasks[id]
            .dependencies
            .iter()
            .filter(|dependency| !self.tasks[*dependency].who_has.contains(worker))
            .map(|dependency| self.nbytes_or_default(dependency))
            .sum();
        missing as f64 / self.bandwidth
    }

    /// For tasks without dependencies and restrictions: the least occupied worker, in turn where several have
    /// nothing to do.
    fn next_in_turn(&self) -> WorkerId {
        let pool = if self.idle.is_empty() {
            &self.running
        } else {
            &self.idle
        };
        let turn = usize::try_from(self.assigned).unwrap_or(0) % pool.len();
        if pool.len() >= FEW_WORKERS {
            return *pool
                .iter()
                .nth(turn)
                .expect("the turn is below the number of workers");
        }
        let unoccupied = pool
            .iter()
            .cycle()
            .skip(turn)
            .take(pool.len())
            .find(|w| self.occupancy(**w) == 0.0);
        let least = || {
            pool.iter()
                .min_by(|a, b| self.occupancy(**a).total_cmp(&self.occupancy(**b)))
        };
        *unoccupied.or_else(least).expect("the pool is not empty")
    }
}
