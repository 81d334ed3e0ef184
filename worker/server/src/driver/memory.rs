//! Memory thresholds: spill, pause, and kill what grows too large.

use std::{sync::Arc, time::Duration};

use oxidask_protocol::Payload;
use oxidask_worker_core::EventKind;

use super::{Driver, Status, executors::Executor};
use crate::{
    executor::wire::control,
    input::Input,
    metrics::anonymous_memory,
    settings::Thresholds,
    store::{Entry, SpillFile},
};

/// Values below this are not worth a file. Unit: bytes.
const SMALL: u64 = 4096;

/// How long a disk that failed is left alone.
const DISK_PAUSE: Duration = Duration::from_secs(5);

/// What is going on about memory.
#[derive(Debug, Default)]
pub(super) struct MemoryState {
    /// The value that is being written.
    spilling: Option<u64>,
    /// The value that is being serialised in order to be written.
    sealing: Option<u64>,
    /// No spilling before this, because the disk failed.
    disk_failed_until: Option<std::time::Instant>,
    /// Over the pause threshold, or the disk failed.
    paused: bool,
}

/// What is to be done about memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measures {
    /// Kill the largest executor. Then nothing else is done.
    kill: bool,
    /// Write a value to disk.
    spill: bool,
    /// Start nothing more.
    pause: bool,
}

/// Memory of a worker. Unit: bytes.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Of all its processes.
    process: f64,
    /// Of its values that are not on disk.
    managed: f64,
    /// Of its largest executor alone.
    executor: f64,
}

/// Executors below this share of the limit are not killed: it is not they who take the memory, but values that have
/// come and are not counted yet.
const WORTH_KILLING: f64 = 0.1;

impl Measures {
    fn of(usage: Usage, limit: f64, thresholds: Thresholds, disk_failed: bool) -> Self {
        let Usage {
            process,
            managed,
            executor,
        } = usage;
        let over = |fraction: Option<f64>, bytes: f64| {
            fraction.is_some_and(|fraction| bytes > fraction * limit)
        };
        Self {
            // Values outlive the executor: where they alone are too much, its death would free nothing.
            kill: over(thresholds.terminate, process)
                && !over(thresholds.terminate, managed)
                && executor > WORTH_KILLING * limit,
            spill: over(thresholds.target, managed) || over(thresholds.spill, process),
            pause: over(thresholds.pause, process)
                || (disk_failed && over(thresholds.spill, process)),
        }
    }
}

impl Driver {
    /// Compare memory with the thresholds.
    pub(super) fn look_at_memory(&mut self) {
        let Some(limit) = self.settings.memory_limit.map(|limit| limit as f64) else {
            return;
        };
        self.free_segments = self.peers.segments.trim(std::time::Instant::now());
        let process = self.memory() as f64;
        let nbytes = self.core.stats().nbytes;
        let managed = (nbytes - self.spilled.0.min(nbytes)) as f64;
        let usage = Usage {
            process,
            managed,
            executor: self.largest_executor().map_or(0, |(bytes, _)| bytes) as f64,
        };
        let thresholds = self.settings.thresholds;
        let measures = Measures::of(usage, limit, thresholds, self.disk_failed());
        if measures.kill {
            self.kill_executor(process, limit);
            return;
        }
        if measures.spill {
            self.spill_one();
        }
        self.pause_for_memory(measures.pause, process, limit);
    }

    fn disk_failed(&self) -> bool {
        self.memory_state
            .disk_failed_until
            .is_some_and(|until| std::time::Instant::now() < until)
    }

    /// Bytes of the executor that takes the most, and its number.
    fn largest_executor(&self) -> Option<(u64, usize)> {
        let used = |(number, executor): (usize, &Executor)| {
            let pid = executor.handle.as_ref()?.pid;
            Some((anonymous_memory(pid), number))
        };
        self.executors.iter().enumerate().filter_map(used).max()
    }

    /// Kill the executor that takes the most, unless one is being killed already.
    fn kill_executor(&mut self, process: f64, limit: f64) {
        if self
            .executors
            .iter()
            .any(|known| known.kill_reason.is_some())
        {
            return;
        }
        let largest = self
            .executors
            .iter_mut()
            .filter_map(|executor| {
                Some((anonymous_memory(executor.handle.as_ref()?.pid), executor))
            })
            .max_by_key(|(bytes, _)| *bytes);
        let Some((bytes, executor)) = largest else {
            return;
        };
        tracing::error!(
            process,
            limit,
            bytes,
            "memory above the terminate threshold; the executor is killed"
        );
        executor.kill_reason = Some(format!(
            "killed because the worker used {process:.0} of {limit:.0} bytes of memory"
        ));
        if let Some(handle) = &executor.handle {
            handle.kill();
        }
    }

    fn pause_for_memory(&mut self, pause: bool, process: f64, limit: f64) {
        if pause == self.memory_state.paused {
            return;
        }
        self.memory_state.paused = pause;
        if pause {
            tracing::warn!(
                process,
                limit,
                "memory above the pause threshold; no more tasks start"
            );
            for handle in self.handles() {
                handle.send_control(control("collect-garbage", Vec::new(), Vec::new()));
            }
            if self.status == Status::Running {
                self.set_status(Status::Paused, "memory-pause".to_owned());
                self.event(EventKind::Pause, "memory-pause");
            }
        } else if self.status == Status::Paused {
            tracing::info!(process, limit, "memory below the pause threshold");
            self.set_status(Status::Running, "memory-unpause".to_owned());
            self.event(EventKind::Unpause, "memory-unpause");
        }
    }

    /// Let executors forget values that are on disk, or write the one that was used longest ago.
    fn spill_one(&mut self) {
        let mut forgotten = false;
        for (_, entry) in self.store.iter_mut() {
            if entry.spilled.is_some() && !entry.holders.is_empty() {
                forgotten = true;
                for executor in std::mem::take(&mut entry.holders).iter() {
                    self.executors[executor].drops.push(entry.id);
                }
            }
        }
        if forgotten {
            return;
        }
        if self.memory_state.spilling.is_some()
            || self.memory_state.sealing.is_some()
            || self.disk_failed()
        {
            return;
        }
        let oldest = self
            .store
            .iter()
            .filter(|(_, entry)| may_spill(entry))
            .min_by_key(|(_, entry)| entry.last_used);
        let Some((id, payload)) = oldest.map(|(_, entry)| (entry.id, entry.payload.clone())) else {
            return;
        };
        match payload {
            Some(payload) => self.write(id, payload),
            None => {
                // Only the executor has it: it must be serialised first.
                self.memory_state.sealing = Some(id);
                self.seal(vec![id]);
            }
        }
    }

    fn write(&mut self, id: u64, payload: Payload) {
        self.memory_state.spilling = Some(id);
        let folder = self.settings.local_directory.join("storage");
        let inputs = self.inputs.clone();
        tokio::task::spawn_blocking(move || {
            let written = SpillFile::write(&folder, id, &payload);
            inputs.send_blocking(Input::Spilled { id, written });
        });
    }

    /// A value was serialised, perhaps in order to be spilled.
    pub(super) fn sealed_for_spilling(&mut self, id: u64, payload: Option<&Payload>) {
        if self.memory_state.sealing == Some(id) {
            self.memory_state.sealing = None;
            if let Some(payload) = payload {
                self.write(id, payload.clone());
            }
        }
    }

    /// A value that is gone is not waited for.
    pub(super) fn value_gone_for_spilling(&mut self, id: u64) {
        self.memory_state.sealing.take_if(|sealing| *sealing == id);
    }

    pub(super) fn spill_written(&mut self, id: u64, written: std::io::Result<Arc<SpillFile>>) {
        self.memory_state.spilling = None;
        match written {
            Ok(file) => self.spill_done(id, file),
            Err(error) => {
                tracing::error!(
                    %error,
                    folder = %self.settings.local_directory.display(),
                    "values cannot be spilled to disk; they stay in memory and the worker pauses when that is short"
                );
                self.memory_state.disk_failed_until = Some(std::time::Instant::now() + DISK_PAUSE);
            }
        }
        // Without waiting for the next look, as long as it is needed.
        self.look_at_memory();
    }

    fn spill_done(&mut self, id: u64, file: Arc<SpillFile>) {
        let Some((_, entry)) = self.store.by_id(id) else {
            return;
        };
        self.spilled.0 += entry.nbytes;
        self.spilled.1 += file.bytes();
        entry.spilled = Some(file);
        entry.payload = None;
        entry.file = None;
        entry.segments.clear();
        for executor in std::mem::take(&mut entry.holders).iter() {
            self.executors[executor].drops.push(id);
        }
    }

    /// A spilled value's entry is gone.
    pub(super) fn note_unspilled(&mut self, entry: &Entry) {
        if let Some(file) = &entry.spilled {
            self.spilled.0 -= entry.nbytes.min(self.spilled.0);
            self.spilled.1 -= file.bytes().min(self.spilled.1);
        }
    }
}

fn may_spill(entry: &Entry) -> bool {
    let held = entry.payload.is_some() || !entry.holders.is_empty();
    held && entry.spilled.is_none() && !entry.pinned && !entry.actor && entry.nbytes >= SMALL
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds {
        target: Some(0.6),
        spill: Some(0.7),
        pause: Some(0.8),
        terminate: Some(0.95),
    };

    fn usage(process: f64, managed: f64) -> Usage {
        Usage {
            process,
            managed,
            executor: 11.0,
        }
    }

    fn measures(process: f64, managed: f64, disk_failed: bool) -> (bool, bool, bool) {
        let measures = Measures::of(usage(process, managed), 100.0, THRESHOLDS, disk_failed);
        (measures.kill, measures.spill, measures.pause)
    }

    #[test]
    fn executor_is_killed_for_what_tasks_take_and_not_for_what_values_weigh() {
        assert_eq!(measures(99.0, 10.0, false), (true, true, true));
        assert_eq!(measures(99.0, 94.0, false), (true, true, true));
        assert_eq!(measures(120.0, 96.0, false), (false, true, true));
        assert_eq!(measures(94.0, 10.0, false), (false, true, true));
        // Values that have come and are not counted yet.
        let small = Usage {
            executor: 9.0,
            ..usage(120.0, 80.0)
        };
        assert!(!Measures::of(small, 100.0, THRESHOLDS, false).kill);
    }

    #[test]
    fn thresholds_follow_each_other() {
        assert_eq!(measures(59.0, 59.0, false), (false, false, false));
        assert_eq!(measures(65.0, 61.0, false), (false, true, false));
        assert_eq!(measures(75.0, 10.0, false), (false, true, false));
        assert_eq!(measures(75.0, 10.0, true), (false, true, true));
        assert_eq!(measures(85.0, 10.0, false), (false, true, true));
    }

    #[test]
    fn threshold_that_is_off_does_nothing() {
        let off = Thresholds {
            target: None,
            spill: None,
            pause: None,
            terminate: None,
        };
        let none = Measures::of(usage(1e12, 1e12), 100.0, off, true);
        assert!(!none.kill && !none.spill && !none.pause);
    }
}
