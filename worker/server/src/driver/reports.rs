//! Reports of runs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use oxidask_protocol::{Key, Payload, message::worker::StartStop, msgpack::Writer, wire::Omit};
use oxidask_worker_core::{EventKind, TaskError};

use super::{Driver, actions::task_error};
use crate::{
    executor::wire::{Outcome, TaskMessage, encode_runs},
    store::{About, Entry},
};

impl Driver {
    pub(super) fn reports(&mut self, generation: u64, message: TaskMessage) {
        let Some(executor) = self.executor_of(generation) else {
            return;
        };
        match message {
            TaskMessage::Wake => {
                if let Some(handle) = self.handle(executor) {
                    handle.send_tasks(encode_runs(&[]));
                }
            }
            TaskMessage::Done(runs) => {
                for (id, outcome) in runs {
                    self.report(executor, id, outcome);
                }
                // A slot is free for those that wait for an executor which is being started.
                self.start_waiting();
            }
        }
    }

    fn report(&mut self, executor: usize, id: u64, outcome: Outcome) {
        let Some(run) = self.executors[executor].running.shift_remove(&id) else {
            return;
        };
        let (key, actor, span) = (run.key, run.actor, run.span);
        let mut startstops = run.transfers;
        match outcome {
            Outcome::Value {
                nbytes,
                typename,
                type_,
                start,
                stop,
                thread,
                cpu,
                inline,
            } => {
                startstops.push(compute(start, stop));
                let about = About {
                    typename,
                    type_,
                    thread,
                    startstops,
                };
                let mut entry = Entry {
                    actor,
                    ..Entry::resident(id, nbytes, about, executor)
                };
                entry.payload = inline.map(inline_payload);
                if self.core.in_memory(&key) {
                    // Scattered meanwhile: that value counts.
                    self.executors[executor].drops.push(id);
                } else if let Some(old) = self.store.insert(key.clone(), entry) {
                    self.drop_from_executors(&old);
                }
                if let Some(span) = span {
                    self.digest(&span, &key, "thread-cpu", cpu);
                    self.digest(&span, &key, "thread-noncpu", (stop - start - cpu).max(0.0));
                }
                self.meter.computed(stop - start);
                let duration = Duration::try_from_secs_f64(stop - start).unwrap_or_default();
                self.event(
                    EventKind::Executed {
                        key,
                        nbytes,
                        duration,
                    },
                    "task-finished",
                );
            }
            Outcome::Erred {
                exception,
                traceback,
                exception_text,
                traceback_text,
                ..
            } => {
                let error = Arc::new(TaskError {
                    exception: Payload::of_bytes(exception),
                    traceback: traceback.map(Payload::of_bytes),
                    exception_text,
                    traceback_text,
                });
                self.event(EventKind::ExecuteFailed { key, error }, "task-erred");
            }
            Outcome::Reschedule => self.event(EventKind::Rescheduled(key), "reschedule"),
            Outcome::Absent(ids) => self.run_again(executor, key, &ids),
            Outcome::NeedsPrimary => {
                self.primary_prefixes.insert(key.prefix().into_owned());
                self.run_again(executor, key, &[]);
            }
        }
    }

    /// Add to what the next heartbeat says about a kind of task. Unit: seconds.
    fn digest(&mut self, span: &Arc<str>, key: &Key, label: &'static str, seconds: f64) {
        let prefix = key.prefix().into_owned();
        *self
            .activity
            .entry((span.clone(), prefix, label))
            .or_default() += seconds;
    }

    /// A run did not come about, perhaps because the executor lacks values that it was thought to have: send them
    /// along this time.
    fn run_again(&mut self, executor: usize, key: Key, absent: &[u64]) {
        let mut lost = Vec::new();
        for id in absent {
            if let Some((key, entry)) = self.store.by_id(*id) {
                entry.holders.remove(executor);
                if entry.holders.is_empty() && entry.only_in_executors() {
                    lost.push(key);
                }
            }
        }
        let error = task_error("a dependency could not be given to the task");
        let kind = EventKind::ExecutorLost {
            running: Vec::new(),
            queued: vec![key],
            resident: lost,
            error,
        };
        self.event(kind, "dependency-absent");
    }
}

fn compute(start: f64, stop: f64) -> StartStop {
    StartStop {
        action: "compute".to_owned(),
        start,
        stop,
        source: Omit(None),
    }
}

/// A payload of family pickle with one frame.
fn inline_payload(pickle: Bytes) -> Payload {
    use std::sync::OnceLock;
    static HEADER: OnceLock<Bytes> = OnceLock::new();
    let header = HEADER.get_or_init(|| {
        let mut w = Writer::new();
        w.map(6);
        w.str("serializer");
        w.str("pickle");
        w.str("writeable");
        w.array(0);
        w.str("split-num-sub-frames");
        encode_ints(&mut w, &[1]);
        w.str("split-offsets");
        encode_ints(&mut w, &[0]);
        w.str("compression");
        w.array(1);
        w.nil();
        w.str("num-sub-frames");
        w.uint(1);
        w.into_document()
    });
    Payload::serialized(header.clone(), vec![pickle])
}

fn encode_ints(w: &mut Writer, values: &[u64]) {
    w.array(values.len());
    values.iter().for_each(|value| w.uint(*value));
}
