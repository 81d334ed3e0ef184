//! What is done when time has passed.

use std::sync::Arc;
use std::time::Duration;

use oxidask_protocol::{Value, exception};

use crate::action::Action;
use crate::action::TaskStateName::Erred;
use crate::event::TaskError;
use crate::ids::{TaskId, WorkerId};
use crate::state::task::Blame;
use crate::timer::Timer;
use crate::{Core, Time};

/// A time-out is noticed at the latest after this share of it has passed once more.
const SHARE: u32 = 5;

impl Core {
    pub(super) fn tick(&mut self) {
        self.advance();
        if self.timers.take_due(Timer::WorkerTtl, self.now) {
            self.time_out_workers();
            self.watch_workers();
        }
        if self.timers.take_due(Timer::NoWorkers, self.now) {
            self.time_out_unrunnable();
            self.watch_unrunnable();
        }
        if self.timers.take_due(Timer::Stealing, self.now) {
            self.balance();
            self.watch_balance();
        }
        if self.timers.take_due(Timer::Replicas, self.now) {
            self.reduce_replicas();
            self.watch_replicas();
        }
        if self.timers.take_due(Timer::Retire, self.now) {
            self.continue_retirements();
        }
    }

    /// Looks at the workers' signs of life from time to time while there are any.
    pub(crate) fn watch_workers(&mut self) {
        if let Some(ttl) = self.config.worker_ttl.filter(|_| !self.workers.is_empty()) {
            self.timers.start(Timer::WorkerTtl, self.now, ttl / SHARE);
        }
    }

    /// Source: distributed `check_worker_ttl`.
    fn time_out_workers(&mut self) {
        let Some(ttl) = self.config.worker_ttl else {
            return;
        };
        let ttl = ttl.max(10 * heartbeat_interval(self.workers.len()));
        let silent: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, w)| self.now - w.last_seen > ttl)
            .map(|(id, _)| *id)
            .collect();
        for worker in silent {
            self.actions.push_back(Action::WorkerTimedOut { worker });
        }
    }

    /// Looks at tasks that nobody can run from time to time while there are any.
    pub(crate) fn watch_unrunnable(&mut self) {
        let waits = !self.unrunnable.is_empty() || self.no_workers_since.is_some();
        if let Some(timeout) = self.config.no_workers_timeout.filter(|_| waits) {
            self.timers
                .start(Timer::NoWorkers, self.now, timeout / SHARE);
        }
    }

    /// Keeps in mind since when there has been no worker for what is ready.
    ///
    /// Source: distributed `_refresh_no_workers_since`.
    pub(crate) fn note_absence(&mut self) {
        let waits = !self.queued.is_empty() || !self.unrunnable.is_empty();
        if !waits || !self.running.is_empty() {
            self.no_workers_since = None;
        } else if self.no_workers_since.is_none() {
            self.no_workers_since = Some(self.now);
            self.watch_unrunnable();
        }
    }

    /// Source: distributed `_check_no_workers`.
    fn time_out_unrunnable(&mut self) {
        let Some(timeout) = self.config.no_workers_timeout else {
            return;
        };
        if self.draining {
            return;
        }
        let is_over = |since: Time| self.now - since >= timeout;
        // Where workers were there at first, it is their absence that counts.
        let absence = self.no_workers_since;
        let mut expired: Vec<(TaskId, bool)> = self
            .unrunnable
            .iter()
            .filter(|(_, since)| is_over(**since))
            .map(|(id, since)| (*id, absence.is_some_and(|absence| absence <= *since)))
            .collect();
        if absence.is_some_and(is_over) {
            expired.extend(self.queued.iter().map(|id| (id, true)));
        }
        if expired.is_empty() {
            return;
        }
        let mut keys = Vec::with_capacity(expired.len());
        for (id, nobody_was_there) in expired {
            keys.push(self.tasks[id].key.clone());
            self.fail_for_want_of_workers(id, nobody_was_there, timeout);
        }
        self.actions.push_back(Action::NoWorkersTimedOut { keys });
    }

    /// Source: distributed `NoWorkerError`, `NoValidWorkerError`.
    fn fail_for_want_of_workers(&mut self, id: TaskId, nobody_was_there: bool, timeout: Duration) {
        let task = &self.tasks[id];
        let seconds = timeout.as_secs_f64();
        let (pickle, why) = if nobody_was_there {
            (
                exception::no_worker(&task.key, seconds),
                "without any running workers",
            )
        } else {
            let (workers, resources) = (task.worker_restrictions(), task.resource_restrictions());
            (
                exception::no_valid_worker(&task.key, workers, resources, seconds),
                "for a valid worker",
            )
        };
        let text = format!(
            "Attempted to run task {:?} but timed out after {seconds} s waiting {why}",
            task.key
        );
        tracing::error!(key = %task.key, "task failed because no worker could run it in time");
        let error = Arc::new(TaskError {
            exception: Value::Bin(pickle),
            traceback: Value::Nil,
            exception_text: text,
            traceback_text: String::new(),
        });
        let key = task.key.clone();
        self.tasks[id].blame_on(Arc::new(Blame { key, error }));
        self.recommend(id, Erred);
    }
}

/// Time between the signs of life of one of `n` workers or clients, so that many do not flood the scheduler.
///
/// Source: distributed `heartbeat_interval`.
pub fn heartbeat_interval(n: usize) -> Duration {
    match n {
        0..=10 => Duration::from_millis(500),
        11..50 => Duration::from_secs(1),
        50..200 => Duration::from_secs(2),
        n => Duration::from_millis((n as u64).saturating_mul(5).saturating_add(1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::heartbeat_interval;

    #[test]
    fn heartbeats_get_rarer_as_workers_get_more() {
        let milliseconds = |n| heartbeat_interval(n).as_millis();
        assert_eq!(
            [10, 11, 50, 1000].map(milliseconds),
            [500, 1000, 2000, 6000]
        );
    }
}
