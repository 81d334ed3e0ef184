//! How busy workers are.

use crate::ids::{TaskId, WorkerId};
use crate::state::group::{GroupId, PrefixId};
use crate::state::take_out;
use crate::{Core, IdMap};

/// A worker with more work per thread than this, and than [`SATURATED`] times the mean, is saturated. Unit: seconds.
const SATURATED_SECONDS: f64 = 0.4;
const SATURATED: f64 = 1.9;

impl Core {
    /// Expected seconds of computing of a task of this group.
    ///
    /// The mean of its prefix, else twice the longest that one was seen to run, else the configured guess.
    /// Source: distributed `_get_prefix_duration`.
    pub(crate) fn expected_duration(&self, group: GroupId) -> f64 {
        self.prefix_duration(self.groups.get(group).prefix)
    }

    fn prefix_duration(&self, prefix: PrefixId) -> f64 {
        let prefix = self.groups.prefix_by_id(prefix);
        match prefix.duration {
            Some(mean) => mean,
            None if prefix.max_exec_time > 0.0 => 2.0 * prefix.max_exec_time,
            None => self.config.unknown_task_duration,
        }
    }

    fn seconds_of_work(&self, counts: &IdMap<PrefixId, u64>, bytes: u64) -> f64 {
        let compute: f64 = counts
            .iter()
            .map(|(prefix, count)| self.prefix_duration(*prefix) * *count as f64)
            .sum();
        compute + bytes as f64 / self.bandwidth
    }

    /// Expected seconds of work assigned to a worker: computing of its tasks, and transfer of what they lack.
    ///
    /// Source: distributed `WorkerState.occupancy`.
    pub(crate) fn occupancy(&self, worker: WorkerId) -> f64 {
        let worker = &self.workers[&worker];
        self.seconds_of_work(&worker.prefix_counts, worker.network_bytes)
    }

    /// Expected seconds of work assigned to all workers. Source: distributed `total_occupancy`.
    pub fn total_occupancy(&self) -> f64 {
        self.seconds_of_work(&self.prefix_counts, self.network_bytes)
    }

    /// A worker gets a task.
    pub(crate) fn occupy(&mut self, id: TaskId, on: WorkerId) {
        let prefix = self.groups.get(self.tasks[id].group).prefix;
        let needs: Vec<(TaskId, u64)> = self.tasks[id]
            .dependencies
            .iter()
            .filter(|dependency| !self.tasks[*dependency].who_has.contains(on))
            .map(|dependency| (dependency, self.nbytes_or_default(dependency)))
            .collect();
        let worker = &mut self.workers[&on];
        if worker.busy() == 0 {
            worker.pace.sent_while_idle = Some((id, self.now));
        }
        worker.processing.insert(id);
        *worker.prefix_counts.entry(prefix).or_default() += 1;
        *self.prefix_counts.entry(prefix).or_default() += 1;
        for (dependency, bytes) in needs {
            let need = worker.needs.entry(dependency).or_insert((0, bytes));
            if need.0 == 0 {
                worker.network_bytes += bytes;
                self.network_bytes += bytes;
            }
            need.0 += 1;
        }
        self.note_busyness(on);
        self.watch_balance();
    }

    /// A worker no longer has a task.
    pub(crate) fn unoccupy(&mut self, id: TaskId, on: WorkerId) {
        if !self.workers.contains_key(&on) {
            return;
        }
        self.end_theft(id);
        self.end_counting(id, on);
        let worker = &mut self.workers[&on];
        take_out(&mut worker.processing, &id);
        worker.long_running.swap_remove(&id);
        worker.executing.swap_remove(&id);
        for dependency in self.tasks[id].dependencies.to_vec() {
            self.unneed(on, dependency);
        }
        self.note_busyness(on);
    }

    /// A task that runs, but no longer counts as work to be done: it leaves the slot that it had.
    pub(crate) fn set_long_running(&mut self, id: TaskId, on: WorkerId) {
        self.end_counting(id, on);
        self.workers[&on].long_running.insert(id);
        self.note_busyness(on);
    }

    fn end_counting(&mut self, id: TaskId, on: WorkerId) {
        let worker = &mut self.workers[&on];
        if worker.long_running.contains(&id) {
            return;
        }
        let prefix = self.groups.get(self.tasks[id].group).prefix;
        for counts in [&mut worker.prefix_counts, &mut self.prefix_counts] {
            let count = &mut counts[&prefix];
            *count -= 1;
            if *count == 0 {
                counts.swap_remove(&prefix);
            }
        }
    }

    /// One task less on this worker needs a result that is elsewhere.
    pub(crate) fn unneed(&mut self, on: WorkerId, dependency: TaskId) {
        let Some(worker) = self.workers.get_mut(&on) else {
            return;
        };
        let Some(need) = worker.needs.get_mut(&dependency) else {
            return;
        };
        need.0 -= 1;
        if need.0 == 0 {
            let bytes = need.1;
            worker.needs.swap_remove(&dependency);
            worker.network_bytes -= bytes;
            self.network_bytes -= bytes;
        }
    }

    /// Brings a worker's place among idle, open and saturated ones up to date.
    ///
    /// Source: distributed `check_idle_saturated`.
    pub(crate) fn note_busyness(&mut self, id: WorkerId) {
        self.note_open_slots(id);
        let worker = &self.workers[&id];
        self.saturated.remove(&id);
        if !worker.is_running() {
            self.idle.remove(&id);
            return;
        }
        let threads = f64::from(worker.nthreads);
        let tasks = worker.processing.len() as f64;
        if tasks < threads {
            self.idle.insert(id);
            return;
        }
        let occupancy = self.occupancy(id);
        let mean = self.total_occupancy() / self.total_nthreads.max(1) as f64;
        if occupancy < threads * mean / 2.0 {
            self.idle.insert(id);
            return;
        }
        self.idle.remove(&id);
        let pending = occupancy * (tasks - threads) / (tasks * threads);
        if pending > SATURATED_SECONDS && pending > SATURATED * mean {
            self.saturated.insert(id);
        }
    }
}
