//! What workers say about tasks.

use std::sync::Arc;

use oxidask_protocol::Key;

use crate::Core;
use crate::action::TaskStateName::{Erred, Memory, Processing, Released, Waiting};
use crate::event::{TaskErred, TaskFinished};
use crate::ids::{TaskId, WorkerId};
use crate::state::task::Blame;

impl Core {
    /// Source: distributed `stimulus_task_finished`.
    pub(super) fn task_finished(&mut self, finished: TaskFinished) {
        let on = finished.worker;
        if !self.workers.contains_key(&on) {
            return;
        }
        let Some(id) = self.tasks.find(&finished.key) else {
            return self.free_key(on, finished.key);
        };
        let task = &self.tasks[id];
        match task.state {
            Processing if task.processing_on == Some(on) && task.run_id == finished.run_id => {
                self.measure_pace(id, on, finished.compute);
                self.processing_to_memory(id, finished);
            }
            // A run that was taken back: the worker takes it up again under its new number.
            Processing if task.processing_on == Some(on) => self.recommend(id, Released),
            Memory if task.run_id == finished.run_id || task.who_has.contains(on) => {
                self.add_replica(id, on)
            }
            // The data were taken as lost, and the result of the same run comes a second time.
            Waiting if task.run_id == finished.run_id => {}
            _ => self.free_key(on, finished.key),
        }
    }

    /// Learns how fast a worker answers.
    fn measure_pace(&mut self, id: TaskId, on: WorkerId, compute: Option<f64>) {
        let now = self.now;
        let worker = &mut self.workers[&on];
        let had_backlog = worker.busy() > worker.nthreads as usize;
        let pace = &mut worker.pace;
        let blend =
            |mean: Option<f64>, new: f64| Some(mean.map_or(new, |mean| 0.8 * mean + 0.2 * new));
        if let Some((sent, at)) = pace.sent_while_idle
            && sent == id
        {
            let beyond = (now - at).as_secs_f64() - compute.unwrap_or(0.0);
            pace.round_trip = blend(pace.round_trip, beyond.max(0.0));
            pace.sent_while_idle = None;
        }
        match pace.last_finish {
            Some(last) if had_backlog => {
                pace.interval = blend(pace.interval, (now - last).as_secs_f64())
            }
            _ => {}
        }
        pace.last_finish = Some(now);
    }

    /// Source: distributed `stimulus_task_erred`.
    pub(super) fn task_erred(&mut self, erred: TaskErred) {
        let TaskErred {
            worker,
            key,
            run_id,
            error,
            ..
        } = erred;
        let Some(id) = self.tasks.find(&key) else {
            return;
        };
        let task = &mut self.tasks[id];
        if task.state != Processing || task.processing_on != Some(worker) {
            return;
        }
        if task.run_id != run_id {
            self.recommend(id, Released);
        } else if task.special().retries > 0 {
            task.special_mut().retries -= 1;
            self.recommend(id, Waiting);
        } else {
            task.blame_on(Arc::new(Blame { key, error }));
            if let Some(failure) = &mut task.special_mut().failure {
                failure.erred_on.insert(worker);
            }
            self.recommend(id, Erred);
        }
    }

    /// Source: distributed `_reschedule`.
    pub(super) fn rescheduled(&mut self, worker: WorkerId, key: &Key) {
        if let Some(id) = self
            .tasks
            .find(key)
            .filter(|id| self.tasks[*id].processing_on == Some(worker))
        {
            self.recommend(id, Released);
        }
    }

    /// Source: distributed `handle_long_running`.
    pub(super) fn long_running(
        &mut self,
        worker: WorkerId,
        key: &Key,
        run_id: Option<i64>,
        compute_duration: Option<f64>,
    ) {
        let Some(id) = self.tasks.find(key) else {
            return;
        };
        let task = &self.tasks[id];
        if task.processing_on != Some(worker) || run_id.is_some_and(|run_id| run_id != task.run_id)
        {
            return;
        }
        if let Some(seconds) = compute_duration {
            self.groups
                .prefix_of_mut(task.group)
                .observe(seconds.max(0.0));
        }
        if !self.workers[&worker].long_running.contains(&id) {
            self.set_long_running(id, worker);
        }
    }

    /// A task may run on these workers only, until `None` lifts it.
    pub(super) fn set_restriction(&mut self, key: &Key, workers: Option<Vec<String>>) {
        if let Some(id) = self.tasks.find(key) {
            self.tasks[id].special_mut().restriction = workers.map(Vec::into_boxed_slice);
        }
    }
}
