//! Memory thresholds: spill, pause, and kill what grows too large.

use std::{sync::Arc, time::Duration};

use oxidask_protocol::Payload;
use oxidask_worker_core::EventKind;

use super::{Driver, Status};
use crate::{
    executor::wire::control,
    input::Input,
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
    /// Why the executor was killed, for the error of its tasks.
    pub(super) kill_reason: Option<String>,
    /// Over the pause threshold, or the disk failed.
    paused: bool,
}

impl Driver {
    /// Compare memory with the thresholds.
    pub(super) fn look_at_memory(&mut self) {
        let Some(limit) = self.settings.memory_limit.map(|limit| limit as f64) else {
            return;
        };
        self.free_segments = self.peers.segments.trim(std::time::Instant::now());
        let thresholds = self.settings.thresholds;
        let process = self.memory() as f64;
        let over = |fraction: Option<f64>, bytes: f64| {
            fraction.is_some_and(|fraction| bytes > fraction * limit)
        };
        let managed =
            (self.core.stats().nbytes - self.spilled.0.min(self.core.stats().nbytes)) as f64;
        // Values outlive the executor: where they alone are too much, its death would free nothing.
        let death_helps = !over(thresholds.terminate, managed);
        if over(thresholds.terminate, process) && death_helps {
            self.kill_executor(process, limit);
            return;
        }
        if over(thresholds.target, managed) || over(thresholds.spill, process) {
            self.spill_one();
        }
        let disk_failed = self.disk_failed();
        let pause =
            over(thresholds.pause, process) || (disk_failed && over(thresholds.spill, process));
        self.pause_for_memory(pause, process, limit);
    }

    fn disk_failed(&self) -> bool {
        self.memory_state
            .disk_failed_until
            .is_some_and(|until| std::time::Instant::now() < until)
    }

    fn kill_executor(&mut self, process: f64, limit: f64) {
        if self.memory_state.kill_reason.is_some() {
            return;
        }
        if let Some(executor) = &self.executor {
            let reason = format!(
                "killed because the worker used {process:.0} of {limit:.0} bytes of memory"
            );
            tracing::error!(
                process,
                limit,
                "memory above the terminate threshold; the executor is killed"
            );
            self.memory_state.kill_reason = Some(reason);
            executor.kill();
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
            if let Some(executor) = &self.executor {
                executor.send_control(control("collect-garbage", Vec::new(), Vec::new()));
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

    /// Let the executor forget values that are on disk, or write the one that was used longest ago.
    fn spill_one(&mut self) {
        let on_disk = self
            .store
            .iter_mut()
            .filter(|(_, entry)| entry.spilled.is_some() && entry.in_executor);
        let forgotten: Vec<u64> = on_disk
            .map(|(_, entry)| {
                entry.in_executor = false;
                entry.id
            })
            .collect();
        if !forgotten.is_empty() {
            self.drops.extend(forgotten);
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
            inputs.send(Input::Spilled {
                id,
                written: SpillFile::write(&folder, id, &payload),
            });
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

    /// Nothing that waits for the executor goes on.
    pub(super) fn memory_executor_gone(&mut self) {
        self.memory_state.sealing = None;
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
        if std::mem::take(&mut entry.in_executor) {
            self.drops.push(id);
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
    let held = entry.payload.is_some() || entry.in_executor;
    held && entry.spilled.is_none() && !entry.pinned && !entry.actor && entry.nbytes >= SMALL
}
