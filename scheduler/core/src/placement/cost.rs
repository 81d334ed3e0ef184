//! What it costs to run a task on a worker, besides waiting for the worker: values that must be moved to it, and the
//! result that must be moved away.

use crate::ids::{TaskId, WorkerId};
use crate::{Core, IdMap};

/// Dependents of a task that are looked at. Tasks with more feed many places anyhow.
const DEPENDENTS: usize = 4;

/// Inputs of a dependent that are looked at.
const SIBLINGS: usize = 32;

/// Where the inputs of a task's dependents gather, and what it costs to send the task's result there.
#[derive(Debug, Default)]
pub(super) struct Homes {
    /// Seconds to send the result to each of them, by worker.
    seconds: IdMap<WorkerId, f64>,
    /// Their sum.
    total: f64,
}

impl Homes {
    /// Seconds to send the result from a worker to all homes but itself.
    pub(super) fn seconds_from(&self, worker: WorkerId) -> f64 {
        self.total - self.seconds.get(&worker).copied().unwrap_or(0.0)
    }
}

impl Core {
    /// Seconds to fetch what a worker lacks of a task's dependencies and does not fetch already for another task.
    ///
    /// A value that is on its way for one task costs the next one nothing, which is what draws tasks that share
    /// inputs together: the blocks of a product to few rows and columns, and the like.
    pub(super) fn fetch_seconds(&self, id: TaskId, worker: WorkerId) -> f64 {
        let needs = &self.workers[&worker].needs;
        let missing: u64 = self.tasks[id]
            .dependencies
            .iter()
            .filter(|dependency| {
                !self.tasks[*dependency].who_has.contains(worker) && !needs.contains_key(dependency)
            })
            .map(|dependency| self.nbytes_or_default(dependency))
            .sum();
        missing as f64 / self.bandwidth
    }

    /// The worker on which each dependent's other inputs lie or are computed, most of them by count: there the
    /// dependent will run, and the result would have to be sent there. This keeps partial sums where their total is
    /// to be.
    pub(super) fn homes(&self, id: TaskId) -> Homes {
        let mut homes = Homes::default();
        let task = &self.tasks[id];
        if task.dependents.len() > DEPENDENTS {
            return homes;
        }
        let seconds = self.groups.get(task.group).mean_nbytes() as f64 / self.bandwidth;
        if seconds == 0.0 {
            return homes;
        }
        for dependent in task.dependents.iter() {
            let mut counts: IdMap<WorkerId, u64> = IdMap::default();
            let inputs = self.tasks[dependent].dependencies.iter();
            for input in inputs.filter(|input| *input != id).take(SIBLINGS) {
                let input = &self.tasks[input];
                let place = input.processing_on.or_else(|| input.who_has.first());
                if let Some(worker) = place {
                    *counts.entry(worker).or_default() += 1;
                }
            }
            // The first of equals, so that the choice does not depend on anything else.
            let home = counts
                .iter()
                .max_by_key(|(worker, count)| (**count, std::cmp::Reverse(**worker)));
            if let Some((worker, _)) = home {
                *homes.seconds.entry(*worker).or_default() += seconds;
                homes.total += seconds;
            }
        }
        homes
    }
}
