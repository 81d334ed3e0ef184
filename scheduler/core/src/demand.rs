//! How many workers of each group would be right, where several kinds of workers exist.

use crate::state::worker::has_resources;
use crate::{Core, IdMap, WorkerId};

/// A kind of workers: all alike, and scaled by themselves.
#[derive(Clone, Debug, Default)]
pub struct WorkerGroup {
    /// Threads of one of its workers.
    pub nthreads: u32,
    /// Resources of one of its workers.
    pub resources: Vec<(String, f64)>,
    /// Those that are there.
    pub members: Vec<WorkerId>,
}

/// Work for a group.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    seconds: f64,
    tasks: u64,
    /// Of `tasks`, those that no worker has yet.
    parked: u64,
}

impl Core {
    /// How many workers of each group would do its work in `target_duration` seconds.
    ///
    /// What is assigned counts for the group of its worker; what is parked counts for the first group with all
    /// resources that the task needs, for a task without needs the first group without resources. A task that no
    /// group can run counts for none. The rules for one group are those of
    /// [`adaptive_target`](Self::adaptive_target), but a group that has more workers than work keeps those that
    /// cannot go without moving data.
    ///
    /// Cost: the workers, and the tasks in state no-worker.
    pub fn desired_by_group(&self, groups: &[WorkerGroup], target_duration: f64) -> Vec<usize> {
        let mut work = vec![Work::default(); groups.len()];
        self.count_assigned(groups, &mut work);
        self.count_parked(groups, &mut work);
        groups
            .iter()
            .zip(work)
            .map(|(group, work)| self.desired(group, work, target_duration))
            .collect()
    }

    fn count_assigned(&self, groups: &[WorkerGroup], work: &mut [Work]) {
        let group_of: IdMap<WorkerId, usize> = groups
            .iter()
            .enumerate()
            .flat_map(|(n, group)| group.members.iter().map(move |id| (*id, n)))
            .collect();
        let other = general(groups);
        for (id, worker) in &self.workers {
            let Some(n) = group_of.get(id).copied().or(other) else {
                continue;
            };
            work[n].seconds += self.occupancy(*id);
            work[n].tasks += worker.processing.len() as u64;
        }
    }

    fn count_parked(&self, groups: &[WorkerGroup], work: &mut [Work]) {
        let general = general(groups);
        // Tasks with restrictions are never queued.
        if let (Some(n), false) = (general, self.queued.is_empty()) {
            work[n].seconds += self.seconds_of_parked(self.queued.iter(), self.queued.len());
            work[n].tasks += self.queued.len() as u64;
            work[n].parked += self.queued.len() as u64;
        }
        for id in self.unrunnable.keys() {
            let task = &self.tasks[*id];
            let needs = task.resource_restrictions();
            let group = if needs.is_empty() {
                general
            } else {
                groups
                    .iter()
                    .position(|group| has_resources(&group.resources, needs))
            };
            if let Some(n) = group {
                work[n].seconds += self.expected_duration(task.group);
                work[n].tasks += 1;
                work[n].parked += 1;
            }
        }
    }

    fn desired(&self, group: &WorkerGroup, work: Work, target_duration: f64) -> usize {
        let members = || group.members.iter().filter_map(|id| self.workers.get(id));
        let present = members().count();
        let threads = (work.seconds / target_duration).ceil();
        let threads = threads.min(work.tasks as f64);
        let mut wanted = (threads / f64::from(group.nthreads.max(1))).ceil() as usize;
        if work.parked > 0 {
            wanted = wanted.max(1);
        }
        let limit: u64 = members().map(|w| w.memory_limit).sum();
        let held: u64 = members().map(|w| w.nbytes).sum();
        if limit > 0 && held as f64 > crate::scaling::FULL * limit as f64 {
            wanted = wanted.max(2 * present);
        }
        if wanted >= present {
            return wanted;
        }
        let unique = self.unique();
        let free = group
            .members
            .iter()
            .filter(|id| {
                self.workers
                    .get(*id)
                    .is_some_and(|worker| worker.processing.is_empty())
                    && unique.get(*id).is_none_or(|unique| unique.results == 0)
            })
            .count();
        wanted.max(present - free)
    }
}

/// The group that takes tasks without needs: the first without resources, else the first.
fn general(groups: &[WorkerGroup]) -> Option<usize> {
    groups
        .iter()
        .position(|group| group.resources.is_empty())
        .or((!groups.is_empty()).then_some(0))
}
