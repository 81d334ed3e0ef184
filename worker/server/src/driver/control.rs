//! What the executor says beside its reports, and asks.

use std::{sync::Arc, time::Duration};

use oxidask_protocol::{Key, Payload, Value, message::decode_one};
use oxidask_worker_core::EventKind;
use tokio::sync::oneshot;

use super::{Driver, Outgoing, queries::key_value, start::PRIMARY};
use crate::{
    executor::wire::{ControlMessage, control},
    input::Input,
    store::{Entry, MemoryFile},
};

impl Driver {
    pub(super) fn executor_says(&mut self, generation: u64, message: ControlMessage) {
        let Some(executor) = self.executor_of(generation) else {
            return;
        };
        match message.op() {
            "sealed" => self.sealed(executor, &message),
            "unmapped" => {
                let ids = message
                    .fields
                    .field("ids")
                    .and_then(Value::as_array)
                    .unwrap_or_default();
                let ids = ids.iter().filter_map(Value::as_u64);
                self.executors[executor].leases.give_back(ids);
            }
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
                if let Some(id) = message.uint("id") {
                    self.relay_answered(executor, id, message.parts);
                }
            }
            // Operations go to the first executor alone, whatever plugins register in the others.
            "handlers" if executor == PRIMARY => {
                self.handlers = message.texts("names").into_iter().collect();
                for (op, frames, reply) in std::mem::take(&mut self.early_relays) {
                    self.relay(op, frames, reply);
                }
            }
            "stream-handlers" if executor == PRIMARY => {
                self.stream_handlers.extend(message.texts("names"));
            }
            "handlers" | "stream-handlers" => {}
            "extensions" | "measured" => self.executors[executor].has_news = true,
            "heartbeat" => self.heartbeat(executor, &message),
            "plugin-added" => {
                let pending = &mut self.executors[executor].plugins_pending;
                pending.remove(message.text("name"));
                self.start_waiting();
            }
            "close" => self.close(
                message.flag("graceful"),
                "a task closes this worker".to_owned(),
            ),
            "call" => self.call(executor, generation, message),
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
        if message.flag("restart") {
            // Who asked is answered first, when the next executor is there.
            self.replacement_for = message.uint("request");
            if self.replacement_for.is_none() {
                self.replace_executors();
            }
        }
    }

    pub(super) fn replace_executors(&mut self) {
        self.replacement_for = None;
        self.templates_after = Some(std::time::Instant::now());
        for executor in &mut self.executors {
            if let Some(handle) = &executor.handle {
                executor.replaced = true;
                handle.kill();
            }
        }
    }

    fn heartbeat(&mut self, executor: usize, message: &ControlMessage) {
        let decode = |field: &str| {
            let bytes = message.bin(field)?.clone();
            decode_one::<Value>(&[bytes]).ok()
        };
        if let Some(extensions) = decode("extensions") {
            let none = extensions.as_map().is_none_or(<[_]>::is_empty);
            // It says so when tasks have measured something again.
            self.executors[executor].has_news = !none;
            if executor == PRIMARY {
                self.extensions = extensions;
            }
        }
        if let Some(Value::Map(digests)) = decode("digests") {
            self.digests.extend(digests);
        }
    }

    fn seceded(&mut self, key: Key, seconds: f64) {
        let mut runs = self
            .executors
            .iter_mut()
            .flat_map(|executor| executor.running.values_mut());
        if let Some(run) = runs.find(|run| run.key == key) {
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

    /// An executor has serialised a value.
    fn sealed(&mut self, executor: usize, message: &ControlMessage) {
        let Some(id) = message.uint("id") else { return };
        let handle = self.handle(executor);
        let (pid, fd) = (handle.map_or(0, |handle| handle.pid), message.uint("fd"));
        let payload = match (message.bin("header"), fd) {
            (None, _) => None,
            (Some(header), None) => Some((
                Payload::serialized(header.clone(), message.parts.clone()),
                None,
            )),
            (Some(header), Some(fd)) => {
                let file = MemoryFile::of_executor(pid, fd, message.places());
                if let Some(handle) = handle {
                    let fds = Value::Array(vec![Value::Int(fd.into())]);
                    handle.send_control(control("took", vec![("fds", fds)], Vec::new()));
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
        self.gets.value_ready(id, &payload, file.as_ref());
        self.sealed_for_spilling(id, (!message.flag("pinned")).then_some(&payload));
        if let Some((_, entry)) = self.store.by_id(id) {
            if message.flag("pinned") {
                entry.pinned = true;
            } else if !entry.actor && entry.payload.is_none() {
                // An actor is serialised as a proxy, which is no copy of its value. A value may be serialised twice,
                // because its executor did it by itself while somebody asked: peers have the first.
                entry.payload = Some(payload);
                entry.file = file;
            }
        }
    }

    /// An executor asks and waits for an answer.
    fn call(&mut self, executor: usize, generation: u64, message: ControlMessage) {
        if message.text("what") == "data"
            && let Some(key) = message.key()
            && self.is_to_be_brought(&key, executor)
        {
            self.bring_for_call(key, generation, message);
            return;
        }
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
                    holders,
                    ..
                }) => {
                    holders.insert(executor);
                    // The message's own `id` answers the call; the value's is another field.
                    fields.push(("value", Value::Int((*id).into())));
                    fields.push(("header", Value::Bin(payload.header.clone())));
                    parts = payload.frames.as_slice().to_vec();
                }
                Some(Entry {
                    id,
                    spilled: Some(file),
                    holders,
                    ..
                }) => {
                    holders.insert(executor);
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
                    self.receive(key.clone(), payload, nbytes, None);
                    self.event(EventKind::Scattered(vec![(key, nbytes)]), "update-data");
                }
            }
            what => tracing::warn!(what, "the executor asks an unknown question"),
        }
        if let Some(handle) = self.handle(executor) {
            handle.send_control(control("answer", fields, parts));
        }
    }

    /// Another executor has the value, and it can leave it.
    fn is_to_be_brought(&self, key: &Key, executor: usize) -> bool {
        self.store.get(key).is_some_and(|entry| {
            entry.only_in_executors()
                && !entry.holders.is_empty()
                && !entry.holders.contains(executor)
                && !entry.pinned
                && !entry.actor
        })
    }

    /// Have a value serialised, then look at the question again.
    fn bring_for_call(&mut self, key: Key, generation: u64, message: ControlMessage) {
        let (reply, answer) = oneshot::channel();
        self.gather_values(vec![key], self.bringing.clone(), reply);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            // What did not come is known to the store, where it is looked for.
            let _ = answer.await;
            let again = Input::Control {
                generation,
                message,
            };
            inputs.send(again).await;
        });
    }
}
