//! The two clocks: one that never goes backwards for the core, one that peers compare with theirs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oxidask_scheduler_core::Time;

/// Both clocks, read together at the start so that core time can be shown as wall time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_unix: f64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            start_unix: unix_time(),
        }
    }

    /// The core's time.
    pub fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// When a core time is, for `sleep_until`.
    pub fn instant(&self, time: Time) -> Instant {
        self.start + Duration::from_nanos(time.0)
    }

    /// Core time as Unix seconds.
    pub fn unix(&self, time: Time) -> f64 {
        self.start_unix + time.as_secs_f64()
    }

    /// Unix seconds of the start.
    pub fn started(&self) -> f64 {
        self.start_unix
    }
}

/// Unix seconds now.
pub fn unix_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}
