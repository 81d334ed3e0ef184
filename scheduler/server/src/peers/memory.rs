//! The memory of a worker's process over the last half minute.

use std::collections::VecDeque;

use oxidask_protocol::Value;

/// Unmanaged memory younger than this may be the passing need of a task
/// (`distributed.worker.memory.recent-to-old-time`). Unit: seconds.
const RECENT: f64 = 30.0;

/// Measurements kept; workers send at most two per second.
const KEPT: usize = 128;

/// What a worker reported of its memory.
#[derive(Debug, Default)]
pub struct Memory {
    /// Memory of its process. Unit: bytes.
    pub process: u64,
    /// Results that are on disk, by their size in memory. Unit: bytes.
    pub spilled: u64,
    /// Results that are on disk, by their size there. Unit: bytes.
    pub on_disk: u64,
    /// Time and unmanaged bytes, oldest first.
    history: VecDeque<(f64, u64)>,
}

/// Which of a worker's memory counts (`…active-memory-manager.measure`, `…memory.rebalance.measure`, memory samplers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// All of its process.
    Process,
    /// Results, in memory or on disk.
    ManagedTotal,
    /// Results in memory.
    Managed,
    /// Results on disk.
    Spilled,
    /// What is not results.
    Unmanaged,
    /// What is not results and has been there for a while.
    UnmanagedOld,
    /// What is not results and is new.
    UnmanagedRecent,
    /// What will stay: results in memory, and old unmanaged memory.
    #[default]
    Optimistic,
}

impl Measure {
    /// All measures by Dask's names.
    pub const ALL: [(&'static str, Self); 8] = [
        ("managed", Self::Managed),
        ("managed_total", Self::ManagedTotal),
        ("optimistic", Self::Optimistic),
        ("process", Self::Process),
        ("spilled", Self::Spilled),
        ("unmanaged", Self::Unmanaged),
        ("unmanaged_old", Self::UnmanagedOld),
        ("unmanaged_recent", Self::UnmanagedRecent),
    ];

    /// The measure of this name.
    pub fn parse(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, measure)| *measure)
    }

    /// The names, for messages.
    pub fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }
}

impl Memory {
    /// A measure; `managed`: bytes of the results that the worker holds. Unit: bytes.
    pub fn by(&self, measure: Measure, managed: u64) -> u64 {
        let in_memory = managed.saturating_sub(self.spilled);
        let unmanaged = self.process.saturating_sub(in_memory);
        match measure {
            Measure::Process => self.process,
            Measure::ManagedTotal => managed,
            Measure::Managed => in_memory,
            Measure::Spilled => self.on_disk,
            Measure::Unmanaged => unmanaged,
            Measure::UnmanagedOld => self.unmanaged_old(),
            Measure::UnmanagedRecent => unmanaged.saturating_sub(self.unmanaged_old()),
            Measure::Optimistic => self.optimistic(managed),
        }
    }

    /// Takes in measurements; `managed`: bytes of the results that the worker holds, `now` in Unix seconds.
    pub fn measured(&mut self, metrics: &Value, managed: u64, now: f64) {
        let number = |value: Option<&Value>| value.and_then(Value::as_f64).map_or(0, |n| n as u64);
        self.process = number(metrics.field("memory"));
        self.spilled = number(
            metrics
                .field("spilled_bytes")
                .and_then(|spilled| spilled.field("memory")),
        );
        self.on_disk = number(
            metrics
                .field("spilled_bytes")
                .and_then(|spilled| spilled.field("disk")),
        );
        let unmanaged = (self.process + self.spilled).saturating_sub(managed);
        while self.history.len() >= KEPT
            || self
                .history
                .front()
                .is_some_and(|(at, _)| now - at > RECENT)
        {
            self.history.pop_front();
        }
        self.history.push_back((now, unmanaged));
    }

    /// Unmanaged memory that has been there for a while. Unit: bytes.
    pub fn unmanaged_old(&self) -> u64 {
        self.history
            .iter()
            .map(|(_, bytes)| *bytes)
            .min()
            .unwrap_or(0)
    }

    /// Memory without what may soon be free again: results in memory and old unmanaged memory. Unit: bytes.
    pub fn optimistic(&self, managed: u64) -> u64 {
        managed.saturating_sub(self.spilled) + self.unmanaged_old()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(memory: u64) -> Value {
        Value::map([("memory", Value::from(memory))])
    }

    #[test]
    fn a_passing_peak_does_not_count() {
        let mut memory = Memory::default();
        memory.measured(&metrics(300), 100, 0.0);
        memory.measured(&metrics(900), 100, 1.0);
        assert_eq!(memory.optimistic(100), 300);
        memory.measured(&metrics(900), 100, 40.0);
        assert_eq!(memory.optimistic(100), 900);
    }
}
