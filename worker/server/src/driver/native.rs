//! Native tasks: their arguments are gathered as for a peer, then a thread runs the kernel.

use std::sync::Arc;

use oxidask_protocol::{
    Key, Payload, message::worker::StartStop, native::NativeTask, numpy::PICKLED_NDARRAY,
    wire::Omit,
};
use oxidask_worker_core::{EventKind, TaskError};
use tokio::sync::oneshot;

use super::{Driver, Start, actions::task_error};
use crate::{
    clock::unix,
    executor::native::{NativeOutcome, NativeRun},
    input::{GetDataReply, Input},
    store::{About, Entry},
};

/// A native task that waits for its arguments or runs.
#[derive(Debug)]
pub(super) struct RunningNative {
    pub(super) key: Key,
    /// Unix seconds.
    pub(super) since: f64,
}

impl Driver {
    /// Gather the arguments of a native task: values that only the executor has are serialised, spilled ones read.
    pub(super) fn start_native(&mut self, start: Start, task: NativeTask) {
        let id = self.store.next_id();
        let mut keys: Vec<Key> = Vec::with_capacity(task.inputs.len());
        for key in &task.inputs {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        if let Some(lost) = keys.iter().find(|key| self.store.get(key).is_none()) {
            let lost = lost.clone();
            self.dependency_lost(start.key, lost);
            return;
        }
        for key in &keys {
            if let Some(entry) = self.store.get_mut(key) {
                entry.last_used = id;
            }
        }
        let since = unix();
        self.native.insert(
            id,
            RunningNative {
                key: start.key,
                since,
            },
        );
        let (reply, mut values) = oneshot::channel();
        self.gather_values(keys, self.bringing.clone(), reply);
        if let Ok(values) = values.try_recv() {
            self.run_native(id, &task, values);
            return;
        }
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let values = values.await.ok();
            inputs.send(Input::NativeReady { id, task, values }).await;
        });
    }

    /// The arguments of a native task are there, or will not come.
    pub(super) fn native_ready(
        &mut self,
        id: u64,
        task: &NativeTask,
        values: Option<GetDataReply>,
    ) {
        match values {
            Some(values) => self.run_native(id, task, values),
            None => self.native_done(id, NativeOutcome::Absent),
        }
    }

    fn run_native(&mut self, id: u64, task: &NativeTask, values: GetDataReply) {
        let GetDataReply::Data(values, _guard) = values else {
            self.native_done(id, NativeOutcome::Absent);
            return;
        };
        let find = |key: &Key| -> Option<(Key, Payload)> {
            let (_, payload, _) = values.iter().find(|(have, ..)| have == key)?;
            Some((key.clone(), payload.clone()))
        };
        let Some(arguments) = task.inputs.iter().map(find).collect::<Option<Vec<_>>>() else {
            self.native_done(id, NativeOutcome::Absent);
            return;
        };
        let run = NativeRun {
            id,
            kernel: task.kernel.clone(),
            arguments,
            limit: self.settings.memory_limit.unwrap_or(u64::MAX),
        };
        self.native_threads.run(run);
    }

    /// A native task ended.
    pub(super) fn native_done(&mut self, id: u64, outcome: NativeOutcome) {
        let Some(RunningNative { key, .. }) = self.native.shift_remove(&id) else {
            return;
        };
        match outcome {
            NativeOutcome::Value {
                payload,
                nbytes,
                start,
                stop,
                thread,
            } => {
                let about = About {
                    typename: "numpy.ndarray".to_owned(),
                    type_: bytes::Bytes::from_static(PICKLED_NDARRAY),
                    thread,
                    startstops: vec![StartStop {
                        action: "compute".to_owned(),
                        start,
                        stop,
                        source: Omit(None),
                    }],
                };
                let entry = Entry {
                    about,
                    ..Entry::received(id, nbytes, payload)
                };
                if !self.core.in_memory(&key)
                    && let Some(old) = self.store.insert(key.clone(), entry)
                {
                    self.drop_from_executors(&old);
                }
                self.meter.computed(stop - start);
                let duration =
                    std::time::Duration::try_from_secs_f64(stop - start).unwrap_or_default();
                self.event(
                    EventKind::Executed {
                        key,
                        nbytes,
                        duration,
                    },
                    "task-finished",
                );
            }
            NativeOutcome::Failed(text) => {
                let pickle = oxidask_protocol::exception::builtin("ValueError", &text);
                let error = Arc::new(TaskError {
                    exception: Payload::of_bytes(pickle),
                    traceback: None,
                    exception_text: format!("ValueError({text:?})"),
                    traceback_text: String::new(),
                });
                self.event(EventKind::ExecuteFailed { key, error }, "task-erred");
            }
            NativeOutcome::Absent => {
                // The core is told of values that are gone by whoever lost them; the task waits for them again.
                let kind = EventKind::ExecutorLost {
                    running: Vec::new(),
                    queued: vec![key],
                    resident: Vec::new(),
                    error: task_error("a dependency could not be given to the task"),
                };
                self.event(kind, "dependency-absent");
            }
        }
    }
}
