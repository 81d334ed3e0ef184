//! Root tasks: who they are, the slots that are open for them, the queue.

use super::Place;
use crate::Core;
use crate::action::TaskStateName::{Processing, Released, Waiting};
use crate::ids::{TaskId, WorkerId};
use crate::state::task::rank;
use crate::state::worker::Worker;

/// Tasks that take longer than this are never handed out ahead of a free slot. Unit: seconds.
const SHORT_TASK: f64 = 0.005;

/// Most tasks handed out ahead for one thread.
const MOST_AHEAD: f64 = 64.0;

/// Results of tasks that are handed out ahead may take this share of a worker's memory.
const SHARE_OF_MEMORY_AHEAD: u64 = 100;

/// Memory assumed for workers without limit. Unit: bytes.
const ASSUMED_MEMORY: u64 = 1 << 30;

/// Assumed time from a result to the next task on its worker, until measured. Unit: seconds.
const ASSUMED_ROUND_TRIP: f64 = 0.005;

impl Core {
    /// Whether a task is one of many without (many) dependencies.
    ///
    /// Source: distributed `SchedulerState.is_rootish`.
    pub(super) fn is_rootish(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        if !task.resource_restrictions().is_empty()
            || !task.worker_restrictions().is_empty()
            || task.is_actor
        {
            return false;
        }
        if task.data_producer {
            return true;
        }
        let group = self.groups.get(task.group);
        group.len() > self.total_nthreads * 2
            && (group.dependencies.len() as u64) < self.config.rootish_dependencies
            && group
                .dependencies
                .iter()
                .filter_map(|g| self.groups.try_get(g))
                .map(|g| g.len())
                .sum::<u64>()
                < self.config.rootish_dependency_tasks
    }

    /// Without a queue: siblings go to the same worker, in runs as long as its share of the group.
    ///
    /// Source: distributed `decide_worker_rootish_queuing_disabled`.
    pub(super) fn place_beside_siblings(&mut self, id: TaskId) -> Place {
        let group_id = self.tasks[id].group;
        let group = self.groups.get(group_id);
        let last = group
            .last_worker
            .filter(|(worker, left)| *left > 0 && self.running.contains(worker));
        let (worker, left) = match last {
            Some(last) => last,
            None => {
                let pool = if self.idle.is_empty() {
                    &self.running
                } else {
                    &self.idle
                };
                let Some(worker) = self.best_by_objective(id, pool.iter().copied()) else {
                    return Place::Nowhere;
                };
                let share = group.len() * u64::from(self.workers[&worker].nthreads)
                    / self.total_nthreads.max(1);
                (worker, share.max(1))
            }
        };
        let group = self.groups.get_mut(group_id);
        let remaining = group.states[Released as usize] + group.states[Waiting as usize];
        group.last_worker = (remaining > 1).then_some((worker, left - 1));
        Place::On(worker)
    }

    /// The worker with open slots that has least to do for its threads.
    pub(crate) fn emptiest_open_worker(&self) -> Option<WorkerId> {
        self.open.first().map(|(_, worker)| *worker)
    }

    /// Root tasks that a worker can still take.
    ///
    /// `worker-saturation` × threads, as stock; beyond that only tasks so short that the worker would stand idle
    /// until the next one reaches it, as many as fill that time.
    fn open_slots(&self, worker: &Worker) -> usize {
        let saturation = self.config.worker_saturation;
        if !worker.is_running() {
            return 0;
        }
        if saturation.is_infinite() {
            return usize::MAX;
        }
        let wanted = (saturation * f64::from(worker.nthreads)).ceil().max(1.0) as usize;
        (wanted + self.ahead(worker)).saturating_sub(worker.busy())
    }

    /// Short root tasks that a worker gets beyond its slots.
    fn ahead(&self, worker: &Worker) -> usize {
        let Some(next) = self.queued.first() else {
            return 0;
        };
        let group = self.groups.get(self.tasks[next].group);
        let prefix = self.groups.prefix_by_id(group.prefix);
        if prefix.duration.is_none_or(|seconds| seconds > SHORT_TASK) {
            return 0;
        }
        let Some(interval) = worker.pace.interval else {
            return 0;
        };
        let round_trip = worker
            .pace
            .round_trip
            .unwrap_or(ASSUMED_ROUND_TRIP)
            .min(4.0 * ASSUMED_ROUND_TRIP);
        let threads = f64::from(worker.nthreads);
        let by_time = (round_trip / interval.max(1e-6)).min(MOST_AHEAD * threads);
        let memory = if worker.memory_limit == 0 {
            ASSUMED_MEMORY
        } else {
            worker.memory_limit
        };
        let by_memory = memory / SHARE_OF_MEMORY_AHEAD / group.mean_nbytes().max(1);
        (by_time as usize).min(usize::try_from(by_memory).unwrap_or(usize::MAX))
    }

    /// Brings a worker's place among those with open slots up to date.
    pub(super) fn note_open_slots(&mut self, id: WorkerId) {
        let worker = &self.workers[&id];
        let fullness = rank(worker.busy() as f64 / f64::from(worker.nthreads));
        let before = worker.open_at;
        let now = (self.open_slots(worker) > 0).then_some(fullness);
        if before == now {
            return;
        }
        if let Some(fullness) = before {
            self.open.remove(&(fullness, id));
        }
        if let Some(fullness) = now {
            self.open.insert((fullness, id));
        }
        self.workers[&id].open_at = now;
    }

    /// Hands out queued tasks while workers have open slots.
    ///
    /// Comes after all other transitions of an event, so that what follows from finished tasks goes first.
    /// Source: distributed `stimulus_queue_slots_maybe_opened`.
    pub(crate) fn fill_open_slots(&mut self) {
        while !self.draining
            && let (Some(next), Some((_, worker))) = (self.queued.first(), self.open.first())
        {
            let worker = *worker;
            if self.open_slots(&self.workers[&worker]) == 0 {
                // What may be handed out ahead depends on the task whose turn it is.
                self.note_open_slots(worker);
                continue;
            }
            self.transition(next, Processing);
            self.run_recommendations();
        }
    }

    /// A worker takes no part any more.
    pub(crate) fn forget_open_slots(&mut self, id: WorkerId) {
        if let Some(fullness) = self.workers[&id].open_at.take() {
            self.open.remove(&(fullness, id));
        }
    }
}
