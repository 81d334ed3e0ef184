//! What the executor says, and its life and death.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use oxidask_protocol::{
    Key, Payload, Value,
    message::{decode_one, worker::StartStop},
    msgpack::Writer,
    wire::Omit,
};
use oxidask_worker_core::{EventKind, TaskError};

use super::{Driver, End, Outgoing, Start, actions::task_error, queries::key_value};
use crate::{
    executor::{
        self, Newborn,
        wire::{ControlMessage, Outcome, TaskMessage, control, encode_runs},
    },
    input::Input,
    store::{About, Entry, MemoryFile},
};

/// What the executor reports as set up when all preload modules are loaded.
const PRELOAD: &str = "--preload";

impl Driver {
    /// Start an executor; it becomes an input when it is ready.
    pub(super) fn start_executor(&self) {
        let (interpreter, environment) = (self.interpreter.clone(), self.environment.clone());
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let started = executor::start(&interpreter, &environment).await;
            inputs.send(Input::ExecutorStarted(started.map(Box::new)));
        });
    }

    pub(super) fn executor_started(&mut self, started: anyhow::Result<Box<Newborn>>) {
        match started {
            Ok(newborn) => self.put_to_work(*newborn),
            Err(error) => self.stop = Some(End::Stop(format!("no executor can be had: {error:#}"))),
        }
    }

    /// Give the executor its settings and plugins, then the tasks that waited for it.
    pub(crate) fn put_to_work(&mut self, newborn: Newborn) {
        self.generation += 1;
        let handle = newborn.work(
            self.generation,
            &self.executor_settings(),
            Vec::new(),
            self.inputs.clone(),
        );
        let names = self
            .plugins
            .keys()
            .map(|name| Value::Str(name.clone()))
            .collect();
        let pickles = self.plugins.values().cloned().collect();
        // Dask's own shuffle plugin is set up on first use, so nothing waits for it.
        self.plugins_pending = self
            .plugins
            .keys()
            .filter(|name| *name != "shuffle")
            .cloned()
            .collect();
        if !self.settings.preload.is_empty() {
            self.plugins_pending.insert(PRELOAD.to_owned());
        }
        if !self.plugins.is_empty() {
            handle.send_control(control(
                "plugins",
                vec![("names", Value::Array(names))],
                pickles,
            ));
        }
        if !self.nanny_plugins.is_empty() {
            let (names, pickles): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.nanny_plugins).into_iter().unzip();
            handle.send_control(control(
                "nanny-plugins",
                vec![("names", texts(&names))],
                pickles,
            ));
        }
        self.executor = Some(handle);
        self.start_waiting();
    }

    fn start_waiting(&mut self) {
        if self.executor.is_some() && self.plugins_pending.is_empty() {
            let waiting: Vec<Start> = self.waiting.drain(..).collect();
            waiting.into_iter().for_each(|start| self.start(start));
        }
    }

    fn executor_settings(&self) -> Value {
        let text = |text: &str| Value::Str(text.to_owned());
        let resources = self.settings.resources.iter();
        Value::map([
            ("parent", Value::Int(std::process::id().into())),
            ("nthreads", Value::Int(self.settings.nthreads as i128)),
            (
                "name",
                Value::Str(
                    self.settings
                        .name
                        .clone()
                        .unwrap_or_else(|| self.address.to_string()),
                ),
            ),
            ("id", text(&self.settings.server_id)),
            ("address", text(&self.address)),
            ("scheduler", text(&self.settings.scheduler)),
            (
                "local_directory",
                text(&self.settings.local_directory.to_string_lossy()),
            ),
            (
                "memory_limit",
                self.settings
                    .memory_limit
                    .map_or(Value::Nil, |limit| Value::Int(limit.into())),
            ),
            ("security", self.security()),
            ("preload", texts(&self.settings.preload)),
            ("preload_argv", texts(&self.settings.preload_argv)),
            (
                "resources",
                Value::map(
                    resources.map(|(name, amount)| (name.to_string(), Value::Float(*amount))),
                ),
            ),
        ])
    }

    /// Arguments of `distributed.security.Security` for the executor's own connections.
    fn security(&self) -> Value {
        let files = &self.settings.tls_files;
        if !self.settings.scheduler.starts_with("tls") {
            return Value::Nil;
        }
        let pairs = [
            ("tls_ca_file", &files.ca_file),
            ("tls_worker_cert", &files.cert),
            ("tls_worker_key", &files.key),
            ("tls_client_cert", &files.cert),
            ("tls_client_key", &files.key),
        ];
        let present = pairs
            .into_iter()
            .filter_map(|(name, file)| Some((name, Value::Str(file.clone()?))));
        let mut fields: Vec<_> = present.collect();
        fields.push(("require_encryption", Value::Bool(true)));
        Value::map(fields)
    }

    /// Send what has gathered for the executor.
    pub(super) fn flush_executor(&mut self) {
        let Some(executor) = &self.executor else {
            self.drops.clear();
            return;
        };
        if !self.runs.is_empty() {
            executor.send_tasks(encode_runs(&self.runs));
            self.runs.clear();
        }
        let transitions = self.core.take_transitions();
        if !transitions.is_empty() {
            let row = |(key, from, to): &(Key, &str, &str)| {
                Value::Array(vec![
                    key_value(key),
                    Value::Str((*from).into()),
                    Value::Str((*to).into()),
                ])
            };
            let rows = Value::Array(transitions.iter().map(row).collect());
            executor.send_control(control(
                "transitions",
                vec![("transitions", rows)],
                Vec::new(),
            ));
        }
        if !self.drops.is_empty() {
            let ids = self
                .drops
                .drain(..)
                .map(|id| Value::Int(id.into()))
                .collect();
            executor.send_control(control(
                "drop",
                vec![("ids", Value::Array(ids))],
                Vec::new(),
            ));
        }
    }

    fn is_current(&self, generation: u64) -> bool {
        generation == self.generation && self.executor.is_some()
    }

    // Reports of runs

    pub(super) fn reports(&mut self, generation: u64, message: TaskMessage) {
        if !self.is_current(generation) {
            return;
        }
        match message {
            TaskMessage::Wake => {
                if let Some(executor) = &self.executor {
                    executor.send_tasks(encode_runs(&[]));
                }
            }
            TaskMessage::Done(runs) => runs
                .into_iter()
                .for_each(|(id, outcome)| self.report(id, outcome)),
        }
    }

    fn report(&mut self, id: u64, outcome: Outcome) {
        let Some(run) = self.running.shift_remove(&id) else {
            return;
        };
        let (key, actor, span) = (run.key, run.actor, run.span);
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
                let startstops = vec![compute(start, stop)];
                let about = About {
                    typename,
                    type_,
                    thread,
                    startstops,
                };
                let mut entry = Entry {
                    actor,
                    ..Entry::resident(id, nbytes, about)
                };
                entry.payload = inline.map(inline_payload);
                if self.core.in_memory(&key) {
                    // Scattered meanwhile: that value counts.
                    self.drops.push(id);
                } else if let Some(old) = self.store.insert(key.clone(), entry)
                    && old.in_executor
                {
                    self.drops.push(old.id);
                }
                if let Some(span) = span {
                    self.digest(&span, &key, "thread-cpu", cpu);
                    self.digest(&span, &key, "thread-noncpu", (stop - start - cpu).max(0.0));
                }
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
            Outcome::Absent(ids) => self.run_again(key, &ids),
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

    /// The executor lacks values that it was thought to have: send them along this time.
    fn run_again(&mut self, key: Key, absent: &[u64]) {
        let mut lost = Vec::new();
        for id in absent {
            if let Some((key, entry)) = self.store.by_id(*id) {
                entry.in_executor = false;
                if entry.payload.is_none() && entry.spilled.is_none() {
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

    // Other messages

    pub(super) fn executor_says(&mut self, generation: u64, message: ControlMessage) {
        if !self.is_current(generation) {
            return;
        }
        match message.op() {
            "sealed" => self.sealed(&message),
            "secede" => {
                if let (Some(key), Some(seconds)) = (message.key(), message.f64("duration")) {
                    self.seceded(key, seconds);
                }
            }
            "send" => {
                if let Some(packed) = message.bin("message") {
                    self.outgoing.push(Outgoing::Packed(packed.clone()));
                }
            }
            "reply" => {
                if let Some(reply) = message.uint("id").and_then(|id| self.relays.remove(&id)) {
                    let _ = reply.send(Ok(message.parts));
                }
            }
            "handlers" => {
                self.handlers = message.texts("names").into_iter().collect();
                for (op, frames, reply) in std::mem::take(&mut self.early_relays) {
                    self.relay(op, frames, reply);
                }
            }
            "stream-handlers" => self.stream_handlers.extend(message.texts("names")),
            "extensions" => self.has_extensions = true,
            "heartbeat" => self.heartbeat(&message),
            "plugin-added" => {
                self.plugins_pending.remove(message.text("name"));
                self.start_waiting();
            }
            "close" => self.close(
                message.flag("graceful"),
                "a task closes this worker".to_owned(),
            ),
            "call" => self.call(&message),
            "environ" => self.environ(&message),
            "watch-transitions" => self.core.watch_transitions(),
            op => tracing::warn!(op, "unknown message of the executor"),
        }
    }

    /// A nanny plugin changed the environment; the next executor has it, and that may be wanted at once.
    fn environ(&mut self, message: &ControlMessage) {
        for (name, value) in message
            .fields
            .field("environ")
            .and_then(Value::as_map)
            .unwrap_or_default()
        {
            if let (Some(name), Some(value)) = (name.as_str(), value.as_str()) {
                self.environment.retain(|(known, _)| known != name);
                self.environment.push((name.to_owned(), value.to_owned()));
            }
        }
        if message.flag("restart")
            && let Some(executor) = &self.executor
        {
            self.replacing = true;
            executor.kill();
        }
    }

    fn heartbeat(&mut self, message: &ControlMessage) {
        let decode = |field: &str| {
            let bytes = message.bin(field)?.clone();
            decode_one::<Value>(&[bytes]).ok()
        };
        if let Some(extensions) = decode("extensions") {
            self.extensions = extensions;
        }
        if let Some(Value::Map(digests)) = decode("digests") {
            self.digests.extend(digests);
        }
    }

    fn seceded(&mut self, key: Key, seconds: f64) {
        if let Some(run) = self.running.values_mut().find(|run| run.key == key) {
            run.seceded = true;
        }
        let compute_duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.event(
            EventKind::Seceded {
                key,
                compute_duration,
            },
            "secede",
        );
    }

    /// The executor has serialised a value.
    fn sealed(&mut self, message: &ControlMessage) {
        let Some(id) = message.uint("id") else { return };
        let (pid, fd) = (
            self.executor.as_ref().map_or(0, |executor| executor.pid),
            message.uint("fd"),
        );
        let payload = match (message.bin("header"), fd) {
            (None, _) => None,
            (Some(header), None) => Some((
                Payload::serialized(header.clone(), message.parts.clone()),
                None,
            )),
            (Some(header), Some(fd)) => {
                let file = MemoryFile::of_executor(pid, fd, message.places());
                if let Some(executor) = &self.executor {
                    let fds = Value::Array(vec![Value::Int(fd.into())]);
                    executor.send_control(control("took", vec![("fds", fds)], Vec::new()));
                }
                match file {
                    Ok(file) => Some((
                        Payload::serialized(header.clone(), file.frames()),
                        Some(Arc::new(file)),
                    )),
                    Err(error) => {
                        tracing::error!(%error, "a memory file of the executor cannot be used");
                        None
                    }
                }
            }
        };
        let Some((payload, file)) = payload else {
            self.gets.value_gone(id);
            self.sealed_for_spilling(id, None);
            return;
        };
        self.gets.value_ready(id, &payload);
        self.sealed_for_spilling(id, (!message.flag("pinned")).then_some(&payload));
        if let Some((_, entry)) = self.store.by_id(id) {
            if message.flag("pinned") {
                entry.pinned = true;
            } else if !entry.actor {
                // An actor is serialised as a proxy, which is no copy of its value.
                entry.payload = Some(payload);
                entry.file = file;
            }
        }
    }

    /// The executor asks and waits for an answer.
    fn call(&mut self, message: &ControlMessage) {
        let mut fields = vec![(
            "id",
            Value::Int(message.uint("id").unwrap_or_default().into()),
        )];
        let mut parts = Vec::new();
        match message.text("what") {
            "keys" => {
                let keys = self.store.iter().map(|(key, _)| key_value(key)).collect();
                fields.push(("keys", Value::Array(keys)));
            }
            "tasks" => {
                let tasks = self.core.snapshot().map(|(key, state, nbytes)| {
                    Value::Array(vec![
                        key_value(key),
                        Value::Str(state.into()),
                        Value::Int(nbytes.into()),
                    ])
                });
                fields.push(("tasks", Value::Array(tasks.collect())));
            }
            "status" => fields.push(("status", Value::Str(self.status.name().into()))),
            "data" => match message.key().and_then(|key| self.store.get_mut(&key)) {
                Some(Entry {
                    id,
                    payload: Some(payload),
                    in_executor,
                    ..
                }) => {
                    *in_executor = true;
                    // The message's own `id` answers the call; the value's is another field.
                    fields.push(("value", Value::Int((*id).into())));
                    fields.push(("header", Value::Bin(payload.header.clone())));
                    parts = payload.frames.as_slice().to_vec();
                }
                Some(Entry {
                    id,
                    spilled: Some(file),
                    in_executor,
                    ..
                }) => {
                    *in_executor = true;
                    fields.push(("value", Value::Int((*id).into())));
                    fields.push(("header", Value::Bin(file.header().clone())));
                    fields.push((
                        "path",
                        Value::Str(file.path().to_string_lossy().into_owned()),
                    ));
                    let place = |(offset, length): &(u64, u64)| {
                        Value::Array(vec![
                            Value::Int((*offset).into()),
                            Value::Int((*length).into()),
                        ])
                    };
                    fields.push((
                        "places",
                        Value::Array(file.places().iter().map(place).collect()),
                    ));
                }
                _ => fields.push(("absent", Value::Bool(true))),
            },
            "scatter" => {
                if let (Some(key), Some(header), Some(nbytes)) =
                    (message.key(), message.bin("header"), message.uint("nbytes"))
                {
                    let payload = Payload::serialized(header.clone(), message.parts.clone());
                    self.receive(key.clone(), payload, nbytes);
                    self.event(EventKind::Scattered(vec![(key, nbytes)]), "update-data");
                }
            }
            what => tracing::warn!(what, "the executor asks an unknown question"),
        }
        if let Some(executor) = &self.executor {
            executor.send_control(control("answer", fields, parts));
        }
    }

    // Its end

    pub(super) fn executor_ended(&mut self, generation: u64, status: &str, output: &str) {
        if !self.is_current(generation) {
            return;
        }
        self.executor = None;
        self.runs.clear();
        self.drops.clear();
        self.gets.executor_gone();
        self.memory_executor_gone();
        for (_, reply) in self.relays.drain() {
            let _ = reply.send(Err(format!("the executor ended ({status})")));
        }
        self.handlers.clear();
        self.stream_handlers.clear();
        self.has_extensions = false;
        let (mut started, mut queued) = (Vec::new(), Vec::new());
        let mut slots = self.settings.nthreads;
        let replaced = std::mem::take(&mut self.replacing);
        for (_, run) in self.running.drain(..) {
            if replaced {
                // It was killed on purpose: no task is to blame.
                queued.push(run.key);
            } else if run.seceded {
                started.push(run.key);
            } else if slots > 0 {
                // Threads take tasks in the order in which they were handed over.
                slots -= 1;
                started.push(run.key);
            } else {
                queued.push(run.key);
            }
        }
        let mut resident = Vec::new();
        for (key, entry) in self.store.iter_mut() {
            entry.in_executor = false;
            if entry.payload.is_none() && entry.spilled.is_none() {
                resident.push(key.clone());
            }
        }
        tracing::error!(
            status,
            running = started.len(),
            lost = resident.len(),
            "the executor ended"
        );
        let reason = self.memory_state.kill_reason.take();
        let status = reason.as_deref().unwrap_or(status);
        let error = task_error(status);
        self.death = Some(Death {
            status: status.to_owned(),
            output: output.to_owned(),
            placeholder: error.clone(),
        });
        self.start_executor();
        let kind = EventKind::ExecutorLost {
            running: started,
            queued,
            resident,
            error,
        };
        self.event(kind, "executor-lost");
    }
}

/// How an executor died, for the errors of the tasks that are blamed for it.
#[derive(Debug)]
pub(super) struct Death {
    status: String,
    output: String,
    /// Stands in the core's events until it is known which task is blamed.
    placeholder: Arc<TaskError>,
}

impl Death {
    /// What is told of the task `key`, if it is blamed for this death.
    pub(super) fn blame(
        &self,
        key: &Key,
        error: &Arc<TaskError>,
        driver: &Driver,
    ) -> Option<TaskError> {
        if !Arc::ptr_eq(&self.placeholder, error) {
            return None;
        }
        let allowed = driver.settings.allowed_failures;
        let mut text = format!(
            "task {key} killed its process {} times while it ran alone on worker {}; the last time: {}",
            allowed + 1,
            driver.address,
            self.status
        );
        if !self.output.is_empty() {
            text.push_str("; its last output was:\n");
            text.push_str(&self.output);
        }
        let worker = format!("{} ({})", driver.address, self.status);
        let pickle =
            oxidask_python::exception::killed_worker(&key.to_string(), &worker, i64::from(allowed));
        Some(TaskError {
            exception: Payload::of_bytes(pickle),
            traceback: None,
            exception_text: format!("KilledWorker({text:?})"),
            traceback_text: String::new(),
        })
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

fn texts(texts: &[String]) -> Value {
    Value::Array(texts.iter().map(|text| Value::Str(text.clone())).collect())
}
