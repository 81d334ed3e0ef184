//! Lives and deaths of executors, and what is sent to them.

use hashbrown::HashSet;
use oxidask_protocol::{Key, Value};
use oxidask_worker_core::EventKind;

use super::{
    Driver, End, Start, actions::task_error, death::Death, executors::Executor, queries::key_value,
    start::PRIMARY,
};
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
    fn start_executor(&self, executor: usize) {
        let (maker, environment) = (self.maker.clone(), self.environment.clone());
        let after = self.templates_after;
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let started = maker.start(&environment, after).await;
            let started = started.map(Box::new);
            inputs
                .send(Input::ExecutorStarted { executor, started })
                .await;
        });
    }

    /// Start all executors.
    pub(crate) fn start_executors(&self) {
        (0..self.executors.len()).for_each(|executor| self.start_executor(executor));
    }

    /// Start the executors of a worker that has put it off, since now there is something for them to do.
    pub(super) fn need_executor(&mut self) {
        if std::mem::take(&mut self.executors_put_off) {
            tracing::info!("the first work for Python: the executor starts");
            self.start_executors();
        }
    }

    /// Work without an executor until Python is needed. Plugins and preload modules need it at once.
    pub(crate) fn put_off_executors(&mut self) {
        self.executors_put_off = true;
        let plugins = self.plugins.keys().any(|name| name != "shuffle");
        if plugins || !self.nanny_plugins.is_empty() || !self.settings.preload.is_empty() {
            self.need_executor();
        }
    }

    pub(super) fn executor_started(
        &mut self,
        executor: usize,
        started: anyhow::Result<Box<Newborn>>,
    ) {
        match started {
            // Executors are to be others than when it was asked for.
            Ok(newborn) if !newborn.is_from_after(self.templates_after) => {
                self.start_executor(executor);
            }
            Ok(newborn) => self.put_to_work(executor, *newborn),
            Err(error) => {
                self.stop = Some(End::Failed(format!("no executor can be had: {error:#}")));
            }
        }
    }

    /// Give an executor its settings and plugins, then the tasks that waited for it.
    fn put_to_work(&mut self, executor: usize, newborn: Newborn) {
        self.last_generation += 1;
        let handle = newborn.work(
            self.last_generation,
            &self.executor_settings(executor),
            Vec::new(),
            self.inputs.clone(),
            self.scheduler.backlog(),
        );
        let names = self
            .plugins
            .keys()
            .map(|name| Value::Str(name.clone()))
            .collect();
        let pickles = self.plugins.values().cloned().collect();
        // Dask's own shuffle plugin is set up on first use, so nothing waits for it.
        let mut pending: HashSet<String> = self
            .plugins
            .keys()
            .filter(|name| *name != "shuffle")
            .cloned()
            .collect();
        if !self.settings.preload.is_empty() {
            pending.insert(PRELOAD.to_owned());
        }
        if !self.plugins.is_empty() {
            handle.send_control(control(
                "plugins",
                vec![("names", Value::Array(names))],
                pickles,
            ));
        }
        if executor == PRIMARY && !self.nanny_plugins.is_empty() {
            let (names, pickles): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.nanny_plugins).into_iter().unzip();
            handle.send_control(control(
                "nanny-plugins",
                vec![("names", texts(&names))],
                pickles,
            ));
        }
        let place = &mut self.executors[executor];
        *place = Executor {
            handle: Some(handle),
            generation: self.last_generation,
            threads: place.threads,
            plugins_pending: pending,
            ..Executor::default()
        };
        if self.executors.iter().all(|known| known.handle.is_some()) {
            for (reply, answer) in self.answers_with_next.drain(..) {
                let _ = reply.send(Ok(answer));
            }
        }
        self.start_waiting();
    }

    pub(super) fn start_waiting(&mut self) {
        if !self.waiting.is_empty() && self.executors.iter().any(Executor::is_ready) {
            let waiting: Vec<Start> = self.waiting.drain(..).collect();
            waiting.into_iter().for_each(|start| self.start(start));
        }
    }

    fn executor_settings(&self, executor: usize) -> Value {
        let text = |text: &str| Value::Str(text.to_owned());
        let resources = self.settings.resources.iter();
        Value::map([
            ("parent", Value::Int(std::process::id().into())),
            ("nthreads", Value::Int(self.settings.nthreads as i128)),
            ("executor", Value::from(executor)),
            ("threads", Value::from(self.executors[executor].threads)),
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

    /// Send what has gathered for executors.
    pub(super) fn flush_executors(&mut self) {
        let transitions = self.core.take_transitions();
        if !transitions.is_empty()
            && let Some(primary) = self.handle(PRIMARY).filter(|primary| !primary.is_deaf())
        {
            let row = |(key, from, to): &(Key, &str, &str)| {
                Value::Array(vec![
                    key_value(key),
                    Value::Str((*from).into()),
                    Value::Str((*to).into()),
                ])
            };
            let rows = Value::Array(transitions.iter().map(row).collect());
            let fields = vec![("transitions", rows)];
            primary.send_control(control("transitions", fields, Vec::new()));
        }
        for executor in &mut self.executors {
            let Some(handle) = &executor.handle else {
                executor.drops.clear();
                continue;
            };
            if !executor.runs.is_empty() {
                handle.send_tasks(encode_runs(&executor.runs));
                executor.runs.clear();
            }
            // Numbers take less room here than messages would there.
            if !executor.drops.is_empty() && !handle.is_deaf() {
                let ids = executor.drops.drain(..);
                let ids = ids.map(|id| Value::Int(id.into())).collect();
                let fields = vec![("ids", Value::Array(ids))];
                handle.send_control(control("drop", fields, Vec::new()));
            }
        }
    }

    pub(super) fn executor_ended(&mut self, generation: u64, status: &str, output: &str) {
        let Some(executor) = self.executor_of(generation) else {
            return;
        };
        let threads = self.executors[executor].threads;
        let place = Executor {
            threads,
            ..Executor::default()
        };
        let ended = std::mem::replace(&mut self.executors[executor], place);
        self.relay_executor_gone(executor, status);
        if executor == PRIMARY {
            self.handlers.clear();
            self.stream_handlers.clear();
        }
        let (started, queued) = ended.blame();
        let mut resident = Vec::new();
        let mut gone = Vec::new();
        for (key, entry) in self.store.iter_mut() {
            if !entry.holders.contains(executor) {
                continue;
            }
            entry.holders.remove(executor);
            if entry.holders.is_empty() && entry.only_in_executors() {
                resident.push(key.clone());
                gone.push(entry.id);
            }
        }
        for id in gone {
            self.gets.value_gone(id);
            self.value_gone_for_spilling(id);
        }
        tracing::error!(
            executor,
            status,
            running = started.len(),
            lost = resident.len(),
            "the executor ended"
        );
        let status = ended.kill_reason.as_deref().unwrap_or(status);
        let error = task_error(status);
        self.death = Some(Death {
            status: status.to_owned(),
            output: output.to_owned(),
            placeholder: error.clone(),
        });
        self.start_executor(executor);
        let kind = EventKind::ExecutorLost {
            running: started,
            queued,
            resident,
            error,
        };
        self.event(kind, "executor-lost");
    }
}

impl Executor {
    /// Keys of the tasks that had started in an executor which has ended, and of those that had not.
    fn blame(&self) -> (Vec<Key>, Vec<Key>) {
        let (mut started, mut queued) = (Vec::new(), Vec::new());
        let mut slots = self.threads;
        for run in self.running.values() {
            let key = run.key.clone();
            if self.replaced {
                // It was killed on purpose: no task is to blame.
                queued.push(key);
            } else if run.seceded {
                started.push(key);
            } else if slots > 0 {
                // Threads take tasks in the order in which they were handed over.
                slots -= 1;
                started.push(key);
            } else {
                queued.push(key);
            }
        }
        (started, queued)
    }
}

fn texts(texts: &[String]) -> Value {
    Value::Array(texts.iter().map(|text| Value::Str(text.clone())).collect())
}
