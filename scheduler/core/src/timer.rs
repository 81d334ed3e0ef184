//! What is due at a time.

use std::time::Duration;

use crate::Time;

/// A reason for [`Event::Tick`](crate::Event::Tick).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// When to look for workers that have been silent for too long.
    WorkerTtl,
    /// When to look for tasks that have waited for a worker for too long.
    NoWorkers,
    /// When to look again for takers of the data of retiring workers.
    Retire,
    /// When to look whether tasks should move to idle workers.
    Stealing,
    /// When to look for superfluous copies.
    Replicas,
}

const COUNT: usize = 5;

/// The next moment of each timer.
#[derive(Debug, Default)]
pub(crate) struct Timers([Option<Time>; COUNT]);

impl Timers {
    /// Sets a timer, unless it is set already.
    pub(crate) fn start(&mut self, timer: Timer, now: Time, delay: Duration) {
        self.0[timer as usize].get_or_insert(now + delay);
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// True if the timer has run out, which ends it.
    pub(crate) fn take_due(&mut self, timer: Timer, now: Time) -> bool {
        let due = self.0[timer as usize].is_some_and(|at| at <= now);
        if due {
            self.stop(timer);
        }
        due
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.0.iter().flatten().min().copied()
    }
}
