//! What the core asks for, done.

use std::sync::Arc;

use oxidask_protocol::{
    Key, Payload, PayloadKind, Value,
    message::worker::{
        FromWorker, KeyStimulus, Keys, LongRunning, StealResponse, TaskErred, TaskFinished,
    },
    msgpack::Reader,
    native::NativeTask,
    wire::Omit,
};
use oxidask_worker_core::{Action, Address, EventKind, Message, TaskError};

use super::{Driver, Running, Start};
use crate::{
    clock::unix,
    executor::wire::{self, Run},
    input::Input,
};

impl Driver {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Execute {
                key,
                run_spec,
                dependencies,
                ..
            } => {
                self.start(Start {
                    key,
                    run_spec,
                    dependencies,
                });
            }
            Action::GatherDep {
                worker,
                keys,
                nbytes,
                ..
            } => self.gather(worker, keys, nbytes),
            Action::FreeData(key) => self.free(&key),
            Action::Send(message, stimulus_id) => self.send(message, &stimulus_id),
        }
    }

    /// Hand a task to the executor, now or when there is one.
    pub(super) fn start(&mut self, start: Start) {
        match NativeTask::of_run_spec(&start.run_spec.payload) {
            Ok(None) => {}
            Ok(Some(task)) => {
                self.start_native(start, task);
                return;
            }
            Err(error) => {
                self.malformed(start.key, &error.to_string());
                return;
            }
        }
        if self.executor.is_none() || !self.plugins_pending.is_empty() {
            self.waiting.push_back(start);
            self.need_executor();
            return;
        }
        let id = self.store.next_id();
        match self.prepare(id, &start) {
            Ok(run) => {
                for (_, _, input) in &run.dependencies {
                    if let wire::Input::Segments { segments, .. } = input {
                        self.leases.grant(segments);
                    }
                }
                let (actor, span) = (start.run_spec.actor, start.run_spec.span_id.clone());
                self.running.insert(
                    id,
                    Running {
                        key: start.key,
                        since: unix(),
                        seceded: false,
                        actor,
                        span,
                    },
                );
                self.runs.push(run);
            }
            Err(Unready::Lost(dependency)) => self.dependency_lost(start.key, dependency),
            Err(Unready::Malformed(text)) => self.malformed(start.key, &text),
        }
    }

    /// The core believes that a dependency is here: tell it otherwise and let the task wait again.
    pub(super) fn dependency_lost(&mut self, key: Key, dependency: Key) {
        tracing::warn!(%key, %dependency, "a dependency is gone from the store");
        self.event(
            EventKind::ExecutorLost {
                running: Vec::new(),
                queued: vec![key],
                resident: vec![dependency],
                error: task_error("a dependency was lost"),
            },
            "dependency-lost",
        );
    }

    fn malformed(&mut self, key: Key, text: &str) {
        let error = task_error(&format!("the task could not be read: {text}"));
        self.event(EventKind::ExecuteFailed { key, error }, "malformed-task");
    }

    fn prepare(&mut self, id: u64, start: &Start) -> Result<Run, Unready> {
        let mut dependencies = Vec::with_capacity(start.dependencies.len());
        for key in &start.dependencies {
            let entry = self
                .store
                .get_mut(key)
                .ok_or_else(|| Unready::Lost(key.clone()))?;
            let input = entry.input().ok_or_else(|| Unready::Lost(key.clone()))?;
            entry.in_executor = true;
            entry.last_used = id;
            dependencies.push((key.clone(), entry.id, input));
        }
        let pickle = pickled_object(&start.run_spec.payload).map_err(Unready::Malformed)?;
        Ok(Run {
            id,
            key: start.key.clone(),
            pickle,
            buffers: start.run_spec.payload.frames.as_slice().to_vec(),
            dependencies,
            annotations: start.run_spec.annotations.clone(),
            span: start.run_spec.span_id.clone(),
            actor: start.run_spec.actor,
            short: self.core.running() > self.settings.nthreads,
        })
    }

    fn gather(&mut self, worker: Address, keys: Vec<Key>, nbytes: u64) {
        let (peers, inputs, who) = (
            self.peers.clone(),
            self.inputs.clone(),
            self.address.clone(),
        );
        tokio::spawn(async move {
            let outcome = peers.get_data(&worker, &keys, &who, nbytes).await;
            inputs.send(Input::Transfer { worker, outcome });
        });
    }

    fn free(&mut self, key: &Key) {
        if let Some(entry) = self.store.remove(key) {
            if entry.in_executor {
                self.drops.push(entry.id);
            }
            self.note_unspilled(&entry);
            self.gets.value_gone(entry.id);
        }
    }

    fn send(&mut self, message: Message, stimulus_id: &Arc<str>) {
        let stimulus_id = stimulus_id.to_string();
        let message = match message {
            Message::TaskFinished {
                key,
                run_id,
                nbytes,
            } => self.task_finished(key, run_id, nbytes, stimulus_id),
            Message::TaskErred { key, run_id, error } => {
                let blamed = self
                    .death
                    .as_ref()
                    .and_then(|death| death.blame(&key, &error, self));
                task_erred(key, run_id, blamed.as_ref().unwrap_or(&error), stimulus_id)
            }
            Message::Reschedule(key) => FromWorker::Reschedule(KeyStimulus { key, stimulus_id }),
            Message::LongRunning {
                key,
                run_id,
                compute_duration,
            } => FromWorker::LongRunning(LongRunning {
                key,
                run_id: Omit(Some(run_id)),
                compute_duration: compute_duration.map(|duration| duration.as_secs_f64()),
                stimulus_id,
            }),
            Message::AddKeys(keys) => FromWorker::AddKeys(Keys { keys, stimulus_id }),
            Message::ReleaseWorkerData(key) => {
                FromWorker::ReleaseWorkerData(KeyStimulus { key, stimulus_id })
            }
            Message::RequestRefreshWhoHas(keys) => {
                FromWorker::RequestRefreshWhoHas(Keys { keys, stimulus_id })
            }
            Message::StealResponse { key, state } => FromWorker::StealResponse(StealResponse {
                key,
                state: state.map(str::to_owned),
                stimulus_id,
            }),
        };
        self.tell_scheduler(message);
    }

    fn task_finished(&self, key: Key, run_id: i64, nbytes: u64, stimulus_id: String) -> FromWorker {
        let about = self
            .store
            .get(&key)
            .map(|entry| entry.about.clone())
            .unwrap_or_default();
        FromWorker::TaskFinished(TaskFinished {
            key,
            run_id,
            status: Omit(Some("OK".to_owned())),
            nbytes: Some(nbytes),
            type_: Some(about.type_),
            typename: about.typename,
            metadata: Value::Map(Vec::new()),
            thread: Value::Int(about.thread.into()),
            startstops: Some(about.startstops),
            stimulus_id,
        })
    }
}

fn task_erred(key: Key, run_id: i64, error: &TaskError, stimulus_id: String) -> FromWorker {
    FromWorker::TaskErred(TaskErred {
        key,
        run_id,
        status: Omit(Some("error".to_owned())),
        exception: Value::Payload(error.exception.clone()),
        traceback: error.traceback.clone().map_or(Value::Nil, Value::Payload),
        exception_text: error.exception_text.clone(),
        traceback_text: error.traceback_text.clone(),
        thread: Value::Nil,
        startstops: Some(Vec::new()),
        stimulus_id,
    })
}

/// Why a task cannot be handed over.
enum Unready {
    Lost(Key),
    Malformed(String),
}

/// The pickle inside a `__Pickled__` payload's header.
fn pickled_object(payload: &Payload) -> Result<bytes::Bytes, String> {
    if payload.kind != PayloadKind::Pickled {
        return Err("run_spec is no pickle".to_owned());
    }
    let read = || {
        let mut r = Reader::new(&payload.header, &[]);
        for _ in 0..r.map()? {
            if r.str_or_skip()? == Some("pickled-obj") {
                return r.shared_bin().map(Some);
            }
            r.skip()?;
        }
        Ok(None)
    };
    read()
        .map_err(|error: oxidask_protocol::DecodeError| error.to_string())?
        .ok_or_else(|| "pickled-obj is missing".into())
}

/// An error that arose on this side of the executor: a RuntimeError with this text.
pub(super) fn task_error(text: &str) -> Arc<TaskError> {
    let pickle = oxidask_protocol::exception::builtin("RuntimeError", text);
    Arc::new(TaskError {
        exception: Payload::of_bytes(pickle),
        traceback: None,
        exception_text: format!("RuntimeError({text:?})"),
        traceback_text: String::new(),
    })
}
