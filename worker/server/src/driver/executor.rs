//! The executor's life and death, and what is sent to it.

use oxidask_protocol::{Key, Value};
use oxidask_worker_core::EventKind;

use super::{Driver, End, Start, actions::task_error, death::Death, queries::key_value};
use crate::{
    executor::{
        Newborn,
        wire::{control, encode_runs},
    },
    input::Input,
};

/// What the executor reports as set up when all preload modules are loaded.
const PRELOAD: &str = "--preload";

impl Driver {
    /// Start an executor; it becomes an input when it is ready.
    ///
    /// `fresh`: from an interpreter that sees what was installed meanwhile.
    pub(super) fn start_executor(&self, fresh: bool) {
        let (executors, environment) = (self.executors.clone(), self.environment.clone());
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let started = executors.start(&environment, fresh).await;
            inputs.send(Input::ExecutorStarted(started.map(Box::new)));
        });
    }

    /// Start the executor of a worker that has put it off, since now there is something for it to do.
    pub(super) fn need_executor(&mut self) {
        if std::mem::take(&mut self.executor_put_off) {
            tracing::info!("the first work for Python: the executor starts");
            self.start_executor(false);
        }
    }

    /// Work without an executor until Python is needed. Plugins and preload modules need it at once.
    pub(crate) fn put_off_executor(&mut self) {
        self.executor_put_off = true;
        let plugins = self.plugins.keys().any(|name| name != "shuffle");
        if plugins || !self.nanny_plugins.is_empty() || !self.settings.preload.is_empty() {
            self.need_executor();
        }
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
        for (reply, answer) in self.answers_with_next.drain(..) {
            let _ = reply.send(Ok(answer));
        }
        self.executor = Some(handle);
        self.start_waiting();
    }

    pub(super) fn start_waiting(&mut self) {
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
            ("name", self.settings.name_or(&self.address)),
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

    pub(super) fn is_current(&self, generation: u64) -> bool {
        generation == self.generation && self.executor.is_some()
    }

    pub(super) fn executor_ended(&mut self, generation: u64, status: &str, output: &str) {
        if !self.is_current(generation) {
            return;
        }
        self.executor = None;
        self.runs.clear();
        self.drops.clear();
        self.gets.executor_gone();
        self.leases.executor_gone();
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
        self.start_executor(replaced);
        let kind = EventKind::ExecutorLost {
            running: started,
            queued,
            resident,
            error,
        };
        self.event(kind, "executor-lost");
    }
}

fn texts(texts: &[String]) -> Value {
    Value::Array(texts.iter().map(|text| Value::Str(text.clone())).collect())
}
