//! One Python executor: started, given its sockets, watched until it ends.

pub(crate) mod wire;

use std::os::{fd::AsFd, unix::net::UnixStream as StdUnixStream};

use anyhow::{Context, Result};
use bytes::Bytes;
use oxidask_protocol::{Value, message::decode_one};
use oxidask_python::{
    Child, ChildSettings, Connection, ConnectionReader, ConnectionWriter, Interpreter,
};
use tokio::{
    net::UnixStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::input::{Input, Inputs};
use wire::{ControlMessage, decode_task_message};

/// An executor that has said what it is, and waits to be told for whom it works.
pub(crate) struct Newborn {
    child: Child,
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

/// Start an interpreter and hear who it is.
///
/// # Errors
/// If the interpreter cannot be used; the text names it.
pub(crate) async fn start(
    interpreter: &Interpreter,
    environment: &[(String, String)],
) -> Result<Newborn> {
    let mut settings = ChildSettings::new("executor");
    settings.environment = environment.to_vec();
    let (child, mut tasks) = Child::start(interpreter, &settings).await?;
    let frames = tasks
        .reader
        .read()
        .await
        .context("the executor said nothing about itself")?;
    let ready: Value =
        decode_one(&frames).context("the executor said something else than who it is")?;
    let field = |name: &str| ready.field(name).cloned().unwrap_or_default();
    let (ours, theirs) = StdUnixStream::pair().context("no socket for the executor")?;
    ours.set_nonblocking(true)?;
    tasks
        .writer
        .pass_fd(theirs.as_fd())
        .await
        .context("the executor took no second socket")?;
    drop(theirs);
    let control = Connection::new(UnixStream::from_std(ours)?);
    Ok(Newborn {
        child,
        tasks,
        control,
        versions: field("versions"),
    })
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
            pid: self.child.pid(),
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
            self.child,
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
    mut child: Child,
    mut reader: ConnectionReader,
    mut kills: UnboundedReceiver<()>,
    generation: u64,
    inputs: Inputs,
) {
    loop {
        let frames = tokio::select! {
            frames = reader.read() => frames,
            _ = kills.recv() => {
                child.kill().await;
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
                break;
            }
        }
    }
    let status = child.ended().await;
    inputs.send(Input::ExecutorEnded {
        generation,
        status,
        output: child.output(),
    });
}
