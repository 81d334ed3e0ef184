//! One Python executor: started, given its sockets, watched until it ends.

pub(crate) mod array;
pub(crate) mod native;
pub(crate) mod wire;

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use oxidask_protocol::{Value, message::decode_one};
use oxidask_python::{
    ChildSettings, Connection, ConnectionReader, ConnectionWriter, Forked, Interpreter, Template,
};
use tokio::sync::{Mutex, Notify};

use crate::{
    input::{Input, Inputs},
    outbox::{Backlog, Outbox, Outgoing, outbox},
};
use wire::{ControlMessage, decode_task_message};

/// An executor that waits to be told for whom it works.
pub(crate) struct Newborn {
    process: Forked,
    tasks: Connection,
    control: Connection,
    /// When its template's interpreter began to start.
    since: Instant,
}

/// How to send to a running executor.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) pid: u32,
    tasks: Outbox,
    control: Outbox,
    kill: Arc<Notify>,
}

impl Handle {
    /// Sends a message on the socket for tasks. Lost if the executor has ended: that is reported anyway.
    pub(crate) fn send_tasks(&self, frames: Vec<Bytes>) {
        self.tasks.send(frames);
    }

    /// Sends a message on the control socket.
    pub(crate) fn send_control(&self, frames: Vec<Bytes>) {
        self.control.send(frames);
    }

    /// It has not read its control socket for so long that nothing more should be put there than must.
    pub(crate) fn is_deaf(&self) -> bool {
        self.control.backlog().is_long()
    }

    /// Kills the process; its end is reported as any other.
    pub(crate) fn kill(&self) {
        self.kill.notify_one();
    }
}

/// Environment variables beside those of this process.
pub(crate) type Environment = Vec<(String, String)>;

/// Makes executors for all workers of this process, by forking them from a template.
#[derive(Clone)]
pub(crate) struct Maker {
    /// The interpreter as named on the command line; it is looked for when an executor is needed.
    python: Option<PathBuf>,
    current: Arc<Mutex<Option<Current>>>,
}

/// The template of the moment.
struct Current {
    template: Template,
    /// When its interpreter began to start.
    since: Instant,
    environment: Environment,
    /// Versions of its packages as clients compare them.
    versions: Value,
}

impl Maker {
    pub(crate) fn new(python: Option<PathBuf>) -> Self {
        Self {
            python,
            current: Arc::default(),
        }
    }

    /// Versions of the packages that executors with this environment will have, as clients compare them. Known before
    /// there is an executor.
    ///
    /// # Errors
    /// If the interpreter cannot be used; the text names it.
    pub(crate) async fn versions(&self, environment: &Environment) -> Result<Value> {
        let mut current = self.current.lock().await;
        let current = self.fitting(&mut current, environment, None).await?;
        Ok(current.versions.clone())
    }

    /// An executor with this environment, from an interpreter that was not started before `after`: one that sees
    /// packages that were installed until then.
    ///
    /// # Errors
    /// If the interpreter cannot be used; the text names it.
    pub(crate) async fn start(
        &self,
        environment: &Environment,
        after: Option<Instant>,
    ) -> Result<Newborn> {
        let mut current = self.current.lock().await;
        let known = self.fitting(&mut current, environment, after).await?;
        match known.newborn().await {
            Ok(newborn) => Ok(newborn),
            Err(error) => {
                tracing::warn!(%error, "a new template of executors is started");
                *current = None;
                let started = self.fitting(&mut current, environment, after).await?;
                let newborn = started.newborn().await;
                newborn.context("the template of executors forked none")
            }
        }
    }

    /// The template of the moment, or a new one if that does not fit.
    async fn fitting<'a>(
        &self,
        current: &'a mut Option<Current>,
        environment: &Environment,
        after: Option<Instant>,
    ) -> Result<&'a Current> {
        let fits = |current: &Current| {
            current.environment == *environment && after.is_none_or(|after| current.since >= after)
        };
        let known = current.take().filter(fits);
        let fitting = match known {
            Some(known) => known,
            None => self.template(environment).await?,
        };
        Ok(current.insert(fitting))
    }

    async fn template(&self, environment: &Environment) -> Result<Current> {
        let since = Instant::now();
        let mut settings = ChildSettings::new("template");
        settings.environment = environment.clone();
        let interpreter = Interpreter::find(self.python.as_deref())?;
        let (template, frames) = Template::start(&interpreter, &settings).await?;
        let ready: Value =
            decode_one(&frames).context("the template said something else than who it is")?;
        Ok(Current {
            template,
            since,
            environment: environment.clone(),
            versions: ready.field("versions").cloned().unwrap_or_default(),
        })
    }
}

impl Current {
    async fn newborn(&self) -> std::io::Result<Newborn> {
        let (process, tasks, control) = self.template.fork().await?;
        Ok(Newborn {
            process,
            tasks,
            control,
            since: self.since,
        })
    }
}

impl Newborn {
    /// Its interpreter has seen what was there at that time.
    pub(crate) fn is_from_after(&self, after: Option<Instant>) -> bool {
        after.is_none_or(|after| self.since >= after)
    }

    /// Tell it its settings and let it work; all that it says becomes inputs, as long as the scheduler hears what
    /// comes of them (`backlog`).
    pub(crate) fn work(
        self,
        generation: u64,
        settings: &Value,
        plugins: Vec<Bytes>,
        inputs: Inputs,
        backlog: &Backlog,
    ) -> Handle {
        let (tasks, task_orders) = outbox();
        let (control, control_orders) = outbox();
        let kill = Arc::new(Notify::new());
        let handle = Handle {
            pid: self.process.pid(),
            tasks,
            control,
            kill: Arc::clone(&kill),
        };
        let mut first = oxidask_protocol::message::encode_one(settings);
        first.extend(plugins);
        handle.send_tasks(first);
        tokio::spawn(write(self.tasks.writer, task_orders));
        tokio::spawn(write(self.control.writer, control_orders));
        tokio::spawn(read_control(
            self.control.reader,
            generation,
            inputs.clone(),
            backlog.clone(),
        ));
        let watched = Watched {
            process: self.process,
            generation,
            inputs,
            backlog: backlog.clone(),
        };
        tokio::spawn(watched.run(self.tasks.reader, kill));
        handle
    }
}

/// Writes what is ordered, as much at once as has gathered.
async fn write(mut writer: ConnectionWriter, mut orders: Outgoing) {
    let mut batch = Vec::new();
    while orders.next(&mut batch).await {
        if writer.write(&batch).await.is_err() {
            return;
        }
    }
}

async fn read_control(
    mut reader: ConnectionReader,
    generation: u64,
    inputs: Inputs,
    backlog: Backlog,
) {
    while let Ok(frames) = reader.read().await {
        match ControlMessage::decode(frames) {
            Ok(message) => {
                if message.op() == "send" {
                    // Whoever says more than the scheduler hears waits for it, and a task with it.
                    backlog.short().await;
                }
                inputs
                    .send(Input::Control {
                        generation,
                        message,
                    })
                    .await;
            }
            Err(error) => tracing::error!(%error, "the executor sent a malformed message"),
        }
    }
}

/// An executor at work.
struct Watched {
    process: Forked,
    generation: u64,
    inputs: Inputs,
    /// Of the scheduler.
    backlog: Backlog,
}

impl Watched {
    /// Reads reports of runs until the process ends, then says how it ended.
    async fn run(mut self, mut reader: ConnectionReader, kill: Arc<Notify>) {
        tokio::select! {
            () = self.pass_reports_on(&mut reader) => {}
            () = kill.notified() => self.process.kill(),
        }
        let status = self.process.ended().await;
        let ended = Input::ExecutorEnded {
            generation: self.generation,
            status,
            output: self.process.output(),
        };
        self.inputs.send(ended).await;
    }

    async fn pass_reports_on(&self, reader: &mut ConnectionReader) {
        while let Ok(frames) = reader.read().await {
            match decode_task_message(&frames) {
                Ok(message) => {
                    self.backlog.short().await;
                    let runs = Input::Runs {
                        generation: self.generation,
                        message,
                    };
                    self.inputs.send(runs).await;
                }
                Err(error) => {
                    tracing::error!(%error, "the executor sent a malformed report and is killed");
                    self.process.kill();
                    return;
                }
            }
        }
    }
}
