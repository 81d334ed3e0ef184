//! Workers come, change, and go.

use std::sync::Arc;

use oxidask_protocol::{Value, exception};

use crate::Core;
use crate::action::Action;
use crate::action::TaskStateName::{Erred, Forgotten, Processing, Released};
use crate::event::{Heartbeat, NewWorker, TaskError, WorkerStatus};
use crate::ids::{TaskId, WorkerId};
use crate::state::task::Blame;
use crate::state::worker::Worker;

/// Weight of a worker's report in the mean bandwidth.
const BANDWIDTH_WEIGHT: f64 = 0.05;

/// Changes of the number of threads that are remembered.
const NTHREADS_HISTORY: usize = 10_000;

impl Core {
    /// Source: distributed `add_worker`.
    pub(super) fn worker_added(&mut self, new: NewWorker) {
        let id = new.worker;
        self.total_nthreads += u64::from(new.nthreads.max(1));
        self.forget_plan();
        self.note_total_nthreads();
        self.workers.insert(id, Worker::new(self.now, new));
        self.watch_workers();
        if self.workers[&id].is_running() {
            self.worker_runs(id);
        }
    }

    /// Remembers how many threads there were when; the oldest are forgotten.
    fn note_total_nthreads(&mut self) {
        if self.nthreads_history.len() == NTHREADS_HISTORY {
            self.nthreads_history.pop_front();
        }
        let entry = (self.now, self.total_nthreads);
        self.nthreads_history.push_back(entry);
    }

    fn worker_runs(&mut self, id: WorkerId) {
        self.running.insert(id);
        self.note_busyness(id);
        self.schedule_unrunnable_on(id);
        self.watch_balance();
    }

    /// Tasks that no worker could run may run on this one; the first in order goes first.
    ///
    /// Source: distributed `bulk_schedule_unrunnable_after_adding_worker`.
    fn schedule_unrunnable_on(&mut self, id: WorkerId) {
        let mut runnable: Vec<TaskId> = self
            .unrunnable
            .keys()
            .copied()
            .filter(|task| {
                self.valid_workers(&self.tasks[*task])
                    .is_none_or(|valid| valid.contains(&id))
            })
            .collect();
        runnable.sort_by_key(|task| std::cmp::Reverse(self.tasks[*task].rank()));
        for task in runnable {
            self.recommend(task, Processing);
        }
    }

    /// Source: distributed `handle_worker_status_change`.
    pub(crate) fn worker_status_changed(&mut self, id: WorkerId, status: WorkerStatus) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut worker.status, status);
        if before == status {
            return;
        }
        if status == WorkerStatus::Running {
            self.worker_runs(id);
        } else {
            self.running.remove(&id);
            self.note_busyness(id);
        }
        self.continue_retirements();
    }

    /// Source: distributed `heartbeat_worker`.
    pub(super) fn heartbeat(&mut self, heartbeat: Heartbeat) {
        let Heartbeat {
            worker: Some(id),
            executing,
            memory,
            spilled: _,
            bandwidth,
            spans,
        } = heartbeat
        else {
            return;
        };
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.last_seen = now;
        worker.memory = memory;
        worker.executing.clear();
        self.span_metrics(spans);
        for (key, seconds) in executing {
            let Some(task) = self.tasks.find(&key) else {
                continue;
            };
            if self.workers[&id].processing.contains(&task) {
                self.workers[&id].executing.insert(task, seconds);
                self.groups
                    .prefix_of_mut(self.tasks[task].group)
                    .observe_running(seconds);
            }
        }
        if let Some((speed, count)) = bandwidth
            && count > 0
            && speed > 0.0
        {
            self.bandwidth = self.bandwidth * (1.0 - BANDWIDTH_WEIGHT) + speed * BANDWIDTH_WEIGHT;
        }
    }

    pub(super) fn resources_set(&mut self, id: WorkerId, resources: Vec<(String, f64)>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        for (name, amount) in resources {
            match worker.resources.iter_mut().find(|(have, _)| *have == name) {
                Some(entry) => entry.1 = amount,
                None => worker.resources.push((name, amount)),
            }
        }
        if self.running.contains(&id) {
            self.schedule_unrunnable_on(id);
        }
    }

    /// Source: distributed `remove_worker`.
    pub(super) fn worker_removed(&mut self, id: WorkerId, expected: bool) {
        if !self.workers.contains_key(&id) {
            return;
        }
        self.restart_shuffles_of(id);
        let processing: Vec<TaskId> = self.workers[&id].processing.iter().copied().collect();
        let held: Vec<TaskId> = self.workers[&id].has_what.iter().copied().collect();
        self.take_out(id);
        let lost = self.lose_results(id, &held);
        let worker = self.workers.shift_remove(&id).expect("looked up above");
        for task in processing {
            self.end_theft(task);
            self.recommend(task, Released);
            if !expected {
                self.suspect(task, &worker);
            }
        }
        if !lost.is_empty() {
            tracing::warn!(worker = %worker.address, keys = lost.len(), "removing a worker lost results");
        }
        self.run_recommendations();
        let (address, stimulus_id) = (worker.address, Arc::clone(&self.stimulus));
        self.actions.push_back(Action::AnnounceWorkerRemoved {
            address,
            stimulus_id,
        });
        self.continue_retirements();
    }

    /// A worker is no longer counted anywhere, except for its tasks and results.
    fn take_out(&mut self, id: WorkerId) {
        self.running.remove(&id);
        self.idle.remove(&id);
        self.saturated.remove(&id);
        self.forget_open_slots(id);
        self.forget_plan();
        self.freed.swap_remove(&id);
        let worker = &mut self.workers[&id];
        worker.status = WorkerStatus::Closed;
        self.total_nthreads -= u64::from(worker.nthreads);
        self.network_bytes -= worker.network_bytes;
        let counts = std::mem::take(&mut worker.prefix_counts);
        self.note_total_nthreads();
        for (prefix, count) in counts {
            let total = &mut self.prefix_counts[&prefix];
            *total -= count;
            if *total == 0 {
                self.prefix_counts.swap_remove(&prefix);
            }
        }
    }

    /// The copies on a worker are gone. Gives the results of which it had the only one.
    fn lose_results(&mut self, id: WorkerId, held: &[TaskId]) -> Vec<TaskId> {
        let mut lost = Vec::new();
        for task in held {
            self.remove_replica(*task, id);
            let state = &self.tasks[*task];
            // What others hold of an actor are ways to reach it, and it is not there any more.
            let lives_here = self.workers[&id].actors.contains(task);
            if !state.who_has.is_empty() && !lives_here {
                continue;
            }
            lost.push(*task);
            let next = match (state.is_actor, &state.run_spec) {
                (true, _) => Erred,
                (false, Some(_)) => Released,
                (false, None) => Forgotten,
            };
            self.recommend(*task, next);
        }
        lost
    }

    /// A task whose workers die again and again is taken as their killer.
    fn suspect(&mut self, id: TaskId, worker: &Worker) {
        let task = &mut self.tasks[id];
        let deaths = &mut task.special_mut().suspicious;
        *deaths += 1;
        let deaths = *deaths;
        self.groups.prefix_of_mut(task.group).totals.suspicious += 1;
        if deaths <= self.config.allowed_failures {
            return;
        }
        let key = task.key.clone();
        let allowed = self.config.allowed_failures;
        let pickle =
            exception::killed_worker(&key, &worker.address, &worker.name, &worker.host, allowed);
        let text = format!(
            "Attempted to run task {key:?} on {} different workers, but all those workers died while running it. \
             The last worker that attempt to run the task was {}.",
            allowed + 1,
            worker.address
        );
        tracing::error!(key = %key, deaths, "task failed because its workers died");
        let error = Arc::new(TaskError {
            exception: Value::Bin(pickle),
            traceback: Value::Nil,
            exception_text: text,
            traceback_text: String::new(),
        });
        task.blame_on(Arc::new(Blame { key, error }));
        self.recommend(id, Erred);
    }
}
