//! One Python executor: started, given its sockets, watched until it ends.

pub(crate) mod array;
pub(crate) mod native;
pub(crate) mod wire;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use bytes::Bytes;
use oxidask_protocol::{Value, message::decode_one};
use oxidask_python::{
    ChildSettings, Connection, ConnectionReader, ConnectionWriter, Forked, Interpreter, Template,
};
use tokio::sync::{
    Mutex,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::input::{Input, Inputs};
use wire::{ControlMessage, decode_task_message};

/// An executor that waits to be told for whom it works.
pub(crate) struct Newborn {
    process: Forked,
    tasks: Connection,
    control: Connection,
    /// Versions as clients compare them.
    pub(crate) versions: Value,
}

/// How to send to a running executor.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) pid: u32,
    tasks: UnboundedSender<Vec<Bytes>>,
    control: UnboundedSender<Vec<Bytes>>,
    kill: UnboundedSender<()>,
}

impl Handle {
    /// Sends a message on the socket for tasks. Lost if the executor has ended: that is reported anyway.
    pub(crate) fn send_tasks(&self, frames: Vec<Bytes>) {
        let _ = self.tasks.send(frames);
    }

    /// Sends a message on the control socket.
    pub(crate) fn send_control(&self, frames: Vec<Bytes>) {
        let _ = self.control.send(frames);
    }

    /// Kills the process; its end is reported as any other.
    pub(crate) fn kill(&self) {
        let _ = self.kill.send(());
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
    environment: Environment,
    versions: Value,
}

impl Maker {
    pub(crate) fn new(python: Option<PathBuf>) -> Self {
        Self {
            python,
            current: Arc::default(),
        }
    }

    /// An executor with this environment. `fresh`: from an interpreter that starts now, which sees packages that
    /// were installed meanwhile.
    ///
    /// # Errors
    /// If the interpreter cannot be used; the text names it.
    pub(crate) async fn start(&self, environment: &Environment, fresh: bool) -> Result<Newborn> {
        let mut current = self.current.lock().await;
        if fresh
            || current
                .as_ref()
                .is_some_and(|current| current.environment != *environment)
        {
            *current = None;
        }
        if let Some(known) = &*current {
            match known.newborn().await {
                Ok(newborn) => return Ok(newborn),
                Err(error) => tracing::warn!(%error, "a new template of executors is started"),
            }
        }
        let started = self.template(environment).await?;
        let newborn = started.newborn().await;
        *current = Some(started);
        newborn.context("the template of executors forked none")
    }

    async fn template(&self, environment: &Environment) -> Result<Current> {
        let mut settings = ChildSettings::new("template");
        settings.environment = environment.clone();
        let interpreter = Interpreter::find(self.python.as_deref())?;
        let (template, frames) = Template::start(&interpreter, &settings).await?;
        let ready: Value =
            decode_one(&frames).context("the template said something else than who it is")?;
        Ok(Current {
            template,
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
            versions: self.versions.clone(),
        })
    }
}

impl Newborn {
    /// Tell it its settings and let it work; all that it says becomes inputs.
    pub(crate) fn work(
        self,
        generation: u64,
        settings: &Value,
        plugins: Vec<Bytes>,
        inputs: Inputs,
    ) -> Handle {
        let (tasks, task_orders) = unbounded_channel();
        let (control, control_orders) = unbounded_channel();
        let (kill, kills) = unbounded_channel();
        let handle = Handle {
            pid: self.process.pid(),
            tasks,
            control,
            kill,
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
        ));
        tokio::spawn(watch(
            self.process,
            self.tasks.reader,
            kills,
            generation,
            inputs,
        ));
        handle
    }
}

/// Writes what is ordered, as much at once as has gathered.
async fn write(mut writer: ConnectionWriter, mut orders: UnboundedReceiver<Vec<Bytes>>) {
    let mut batch = Vec::new();
    while orders.recv_many(&mut batch, 64).await > 0 {
        if writer.write(&batch).await.is_err() {
            return;
        }
        batch.clear();
    }
}

async fn read_control(mut reader: ConnectionReader, generation: u64, inputs: Inputs) {
    while let Ok(frames) = reader.read().await {
        match ControlMessage::decode(frames) {
            Ok(message) => inputs.send(Input::Control {
                generation,
                message,
            }),
            Err(error) => tracing::error!(%error, "the executor sent a malformed message"),
        }
    }
}

/// Reads reports of runs until the process ends, then says how it ended.
async fn watch(
    mut process: Forked,
    mut reader: ConnectionReader,
    mut kills: UnboundedReceiver<()>,
    generation: u64,
    inputs: Inputs,
) {
    loop {
        let frames = tokio::select! {
            frames = reader.read() => frames,
            _ = kills.recv() => {
                process.kill();
                break;
            }
        };
        let Ok(frames) = frames else { break };
        match decode_task_message(&frames) {
            Ok(message) => inputs.send(Input::Runs {
                generation,
                message,
            }),
            Err(error) => {
                tracing::error!(%error, "the executor sent a malformed report and is killed");
                process.kill();
                break;
            }
        }
    }
    let status = process.ended().await;
    inputs.send(Input::ExecutorEnded {
        generation,
        status,
        output: process.output(),
    });
}
