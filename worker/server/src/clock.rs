//! The two clocks: one that never goes back for the core, and Unix time for messages.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use oxidask_worker_core::Time;

/// The driver's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Time {
        Time::from_duration(self.start.elapsed())
    }

    /// When the core's `time` will be, for timers.
    pub(crate) fn instant(self, time: Time) -> Instant {
        self.start + std::time::Duration::from_nanos(time.0)
    }
}

/// Unix seconds, as Dask's messages have them.
pub(crate) fn unix() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
