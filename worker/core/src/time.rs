//! Time as the core sees it: a number handed in, never a clock read.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Nanoseconds since the driver started. Monotonic; a number, so that a log of
/// `(Time, Event)` lines can be replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The start of the driver's clock.
    pub const ZERO: Self = Self(0);

    /// The time `duration` after the start; saturates after 584 years.
    pub fn from_duration(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(Self::from_duration(rhs).0))
    }
}

impl Sub for Time {
    type Output = Duration;

    /// How much later `self` is than `rhs`; zero if it is not.
    fn sub(self, rhs: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(rhs.0))
    }
}
