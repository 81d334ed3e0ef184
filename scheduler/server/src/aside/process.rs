//! The driver of the process beside the scheduler: starts it, speaks with it, starts it again.

use std::collections::HashMap;

use bytes::Bytes;
use oxidask_protocol::msgpack::Reader;
use oxidask_protocol::{DecodeError, Value};
use oxidask_python::{Child, ChildSettings, ConnectionReader, Interpreter};
use tokio::sync::{mpsc, oneshot};

use super::call::{Answer, Call, Sink, document_of};
use super::question::{self, Asked, Question};
use super::{AsideConfig, AsideError, Hook, Hooks, Message};

/// Messages that are handed to one write.
const WRITE_TOGETHER: usize = 64;

/// What the driver is told.
#[derive(Debug)]
pub(crate) enum Command {
    Call(Call, Sink),
    /// A plugin is kept over restarts, or no longer.
    Keep {
        name: String,
        plugin: Option<Bytes>,
    },
    KeepPreload(Call),
    Event {
        hook: Hook,
        args: Vec<Value>,
        kwargs: Vec<(&'static str, Value)>,
    },
    /// Nobody reads this feed any more.
    Cancel(u64),
    Close(oneshot::Sender<()>),
}

/// Runs until all handles are gone.
pub(super) async fn drive(
    config: AsideConfig,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    questions: mpsc::UnboundedSender<Question>,
    hooks: Hooks,
) {
    let mut driver = Driver {
        config,
        questions,
        hooks,
        process: None,
        open: HashMap::new(),
        plugins: Vec::new(),
        preloads: Vec::new(),
    };
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(command) => driver.command(command).await,
                None => return,
            },
            frames = next_message(&mut driver.process) => match frames {
                Ok(frames) => {
                    if let Err(error) = driver.message(&frames) {
                        driver.lost(&format!("sent a malformed message: {error}")).await;
                    }
                }
                Err(error) => driver.lost(&error.to_string()).await,
            },
        }
    }
}

async fn next_message(
    process: &mut Option<Process>,
) -> Result<Vec<Bytes>, oxidask_python::ConnectionError> {
    match process {
        Some(process) => process.reader.read().await,
        None => std::future::pending().await,
    }
}

struct Driver {
    config: AsideConfig,
    questions: mpsc::UnboundedSender<Question>,
    hooks: Hooks,
    process: Option<Process>,
    /// Calls without an answer.
    open: HashMap<u64, Sink>,
    /// Plugins that a new process has to start, by name.
    plugins: Vec<(String, Bytes)>,
    /// Preloads that a new process has to run.
    preloads: Vec<Call>,
}

struct Process {
    child: Child,
    reader: ConnectionReader,
    outbox: mpsc::UnboundedSender<Message>,
    interpreter: String,
}

impl Driver {
    async fn command(&mut self, command: Command) {
        match command {
            Command::Call(call, sink) => match self.running().await {
                Ok(()) => self.call(call, sink),
                Err(error) => sink.end(Err(error)),
            },
            Command::Keep { name, plugin } => {
                self.plugins.retain(|(known, _)| *known != name);
                self.plugins.extend(plugin.map(|plugin| (name, plugin)));
            }
            Command::KeepPreload(call) => self.preloads.push(call),
            Command::Event { hook, args, kwargs } => {
                let event = Value::map([
                    ("op", "event".into()),
                    ("hook", hook.name().into()),
                    ("args", Value::Array(args)),
                    ("kwargs", Value::map(kwargs)),
                ]);
                self.send(vec![document_of(&event)]);
            }
            Command::Cancel(call) => {
                if self.open.contains_key(&call) {
                    let cancel = Value::map([("op", Value::from("cancel")), ("id", call.into())]);
                    self.send(vec![document_of(&cancel)]);
                }
            }
            Command::Close(done) => {
                if self.process.is_some() {
                    let (reply, answer) = oneshot::channel();
                    self.call(Call::new("close", [], Vec::new()), Sink::Once(reply));
                    tokio::spawn(async move {
                        let _ = answer.await;
                        let _ = done.send(());
                    });
                }
            }
        }
    }

    fn call(&mut self, call: Call, sink: Sink) {
        self.open.insert(call.id, sink);
        self.send(call.message());
    }

    fn send(&self, message: Message) {
        if let Some(process) = &self.process {
            // The writer ends only with the process, which the reader notices.
            let _ = process.outbox.send(message);
        }
    }

    /// Makes sure that there is a process.
    async fn running(&mut self) -> Result<(), AsideError> {
        if self.process.is_some() {
            return Ok(());
        }
        let unavailable = |error: &dyn std::error::Error| {
            AsideError::unavailable(&oxidask_python::with_causes(error))
        };
        let interpreter = Interpreter::find(self.config.python.as_deref())
            .map_err(|error| unavailable(&error))?;
        let mut settings = ChildSettings::new("aside");
        settings.start_timeout = self.config.start_timeout;
        let (child, connection) = Child::start(&interpreter, &settings)
            .await
            .map_err(|error| unavailable(&error))?;
        let outbox = connection.writer.into_outbox(WRITE_TOGETHER);
        let interpreter = interpreter.to_string();
        self.process = Some(Process {
            child,
            reader: connection.reader,
            outbox,
            interpreter,
        });
        for preload in self.preloads.clone() {
            self.call(
                preload.again(),
                Sink::Log("a preload failed in the new process beside the scheduler"),
            );
        }
        for (name, plugin) in self.plugins.clone() {
            let args = [("name", name.into()), ("idempotent", false.into())];
            let call = Call::new("register_plugin", args, vec![plugin]);
            self.call(
                call,
                Sink::Log("a plugin failed in the new process beside the scheduler"),
            );
        }
        Ok(())
    }

    /// Takes in a message of the process.
    fn message(&mut self, frames: &[Bytes]) -> Result<(), DecodeError> {
        let (op, id) = read_head(frames)?;
        match op.as_str() {
            "reply" => {
                let (id, answer) = Answer::read(frames)?;
                if let Some(sink) = self.open.remove(&id) {
                    sink.end(answer);
                }
            }
            "feed" => {
                let message = frames.get(1..).unwrap_or_default().to_vec();
                let full = match self.open.get(&id) {
                    Some(Sink::Feed(messages)) => messages.try_send(Ok(message)).is_err(),
                    _ => false,
                };
                if full {
                    // The client reads too slowly, or not at all.
                    self.open.remove(&id);
                    let cancel = Value::map([("op", Value::from("cancel")), ("id", id.into())]);
                    self.send(vec![document_of(&cancel)]);
                }
            }
            "ask" => self.asked(Asked::read(frames)?),
            other => tracing::warn!(
                op = other,
                "unknown message from the process beside the scheduler"
            ),
        }
        Ok(())
    }

    fn asked(&mut self, asked: Asked) {
        let Some(process) = &self.process else {
            return;
        };
        let outbox = process.outbox.clone();
        let id = asked.id;
        if asked.what == "hooks" {
            self.hooks.set(asked.hooks.iter().map(String::as_str));
        }
        match asked.pose() {
            Some((question, answer)) => {
                // If nobody answers questions any more, the reply is dropped and the answer says so.
                let _ = self.questions.send(question);
                tokio::spawn(async move {
                    let _ = outbox.send(answer.await);
                });
            }
            None => {
                let _ = outbox.send(question::answer(id, Value::Nil, Vec::new()));
            }
        }
    }

    /// The process is gone or has to go: open calls fail, and what was kept is started anew.
    async fn lost(&mut self, why: &str) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        self.hooks.set([]);
        // Nobody waits for this answer.
        let _ = self.questions.send(Question::HooksChanged {
            reply: oneshot::channel().0,
        });
        let status = process.child.ended().await;
        let output = process.child.output();
        let mut text = format!(
            "the Python process beside the scheduler ({}) has ended: {why} ({status})",
            process.interpreter
        );
        if !output.is_empty() {
            text.push_str(&format!("; its last output was:\n{output}"));
        }
        tracing::warn!(
            error = text,
            open_calls = self.open.len(),
            "lost the process beside the scheduler"
        );
        for (_, sink) in self.open.drain() {
            sink.end(Err(AsideError::unavailable(&text)));
        }
        if !(self.plugins.is_empty() && self.preloads.is_empty())
            && let Err(error) = self.running().await
        {
            tracing::warn!(error = %error, "no process beside the scheduler for its plugins");
        }
    }
}

fn read_head(frames: &[Bytes]) -> Result<(String, u64), DecodeError> {
    let mut r = Reader::of_message(frames)?;
    let (mut op, mut id) = (String::new(), 0);
    for _ in 0..r.map()? {
        match r.str()? {
            "op" => op = r.str()?.to_owned(),
            "id" => id = r.uint()?,
            _ => r.skip()?,
        }
    }
    Ok((op, id))
}
