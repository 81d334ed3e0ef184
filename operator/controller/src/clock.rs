//! The time of day, driven by tokio's clock so that tests can move it.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A clock that starts at the system's time and goes with tokio's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started_at: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that shows the system's time now.
    pub fn new() -> Self {
        Self {
            started_at: Timestamp::now(),
            started: Instant::now(),
        }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        let passed =
            SignedDuration::try_from(self.started.elapsed()).unwrap_or(SignedDuration::ZERO);
        self.started_at
            .saturating_add(passed)
            .unwrap_or(self.started_at)
    }

    /// When it was started, which is when its process was.
    pub fn started(&self) -> Timestamp {
        self.started_at
    }

    /// Seconds since the epoch.
    pub fn seconds(&self) -> f64 {
        self.now().as_nanosecond() as f64 / 1e9
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// A time as Kubernetes and the clients of dask-kubernetes write it: UTC, whole
/// seconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_whole_seconds_and_a_z() {
        let time: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        assert_eq!(rfc3339(time), "2026-01-02T03:04:05Z");
    }
}
