//! User code that runs "on the scheduler": in one long-lived Python process beside it ([`Aside`]).
//!
//! `run_on_scheduler`, scheduler plugins, preloads, `feed` (progress bars), the scheduler's half of P2P shuffles
//! and whatever else needs Python and outlives one call, such as XGBoost's tracker. User code gets a facade in the
//! scheduler's place; what it reads comes back as a [`Question`]. The process starts at the first call; if it
//! dies, all open calls fail, and plugins and preloads are started again in a new one.

mod call;
mod error;
mod process;
mod question;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::{Key, Payload, Value};
use tokio::sync::{mpsc, oneshot};

pub use call::Answer;
pub use error::AsideError;
pub use question::{Question, TaskInfo};

use call::{Call, Sink};
use process::Command;

/// Frames of a whole Dask message, ready to be written to a client.
pub type Message = Vec<Bytes>;

/// How the process is started.
#[derive(Debug, Clone)]
pub struct AsideConfig {
    /// The interpreter as named on the command line; see [`oxidask_python::Interpreter::find`].
    pub python: Option<PathBuf>,
    /// How long the interpreter may take to start.
    pub start_timeout: Duration,
}

impl Default for AsideConfig {
    fn default() -> Self {
        Self {
            python: None,
            start_timeout: Duration::from_secs(60),
        }
    }
}

/// Something that scheduler plugins may want to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Arguments `key, start, finish`; keywords `stimulus_id` and what the transition knows (`worker`, `exception`…).
    Transition,
    /// Keywords `client`, `tasks`, `keys`, `annotations`, `priority`, `stimulus_id`.
    UpdateGraph,
    /// Argument: the worker's address.
    AddWorker,
    /// Argument: the worker's address; keyword `stimulus_id`.
    RemoveWorker,
    /// Argument: the client's id.
    AddClient,
    /// Argument: the client's id.
    RemoveClient,
    /// No arguments.
    Restart,
    /// Asked, not told: [`Aside::workers_downscaling`].
    ValidWorkersDownscaling,
    /// Arguments: topic, message.
    LogEvent,
    /// Argument: what the active memory manager was told: `start`, `stop` or `run_once`. Wanted while it has policies
    /// in the process.
    MemoryManager,
}

impl Hook {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Transition, "transition"),
        (Self::UpdateGraph, "update_graph"),
        (Self::AddWorker, "add_worker"),
        (Self::RemoveWorker, "remove_worker"),
        (Self::AddClient, "add_client"),
        (Self::RemoveClient, "remove_client"),
        (Self::Restart, "restart"),
        (Self::LogEvent, "log_event"),
        (Self::ValidWorkersDownscaling, "valid_workers_downscaling"),
        (Self::MemoryManager, "amm"),
    ];

    fn bit(self) -> u32 {
        1 << self as u32
    }

    fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(hook, _)| *hook == self)
            .map_or("", |(_, name)| name)
    }
}

/// The hooks that plugins have, readable from any thread at the cost of one load.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hooks(Arc<AtomicU32>);

impl Hooks {
    fn set<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let known = |name: &str| {
            Hook::ALL
                .iter()
                .find(|(_, known)| *known == name)
                .map_or(0, |(hook, _)| hook.bit())
        };
        let bits = names.into_iter().map(known).fold(0, |all, bit| all | bit);
        self.0.store(bits, Ordering::Release);
    }

    fn has(&self, hook: Hook) -> bool {
        self.0.load(Ordering::Acquire) & hook.bit() != 0
    }
}

/// A function that a client wants to run on the scheduler. All parts are pickles; empty bytes for what is absent.
#[derive(Debug, Clone, Default)]
pub struct RunFunction {
    /// The function.
    pub function: Bytes,
    /// A tuple.
    pub args: Bytes,
    /// A dict.
    pub kwargs: Bytes,
    /// False: do not wait for a coroutine.
    pub wait: bool,
}

/// What a client wants to be told again and again. All functions are pickles; empty bytes for what is absent.
#[derive(Debug, Clone, Default)]
pub struct FeedRequest {
    /// `setup(scheduler)`, whose result goes to the others.
    pub setup: Bytes,
    /// `function(scheduler[, state])`, whose results are sent.
    pub function: Bytes,
    /// `teardown(scheduler, state)`, run when nobody reads any more.
    pub teardown: Bytes,
    /// Time between two messages: seconds, or a text such as `"100ms"`.
    pub interval: Value,
}

/// Messages of a feed. Dropping it ends the feed in the process.
#[derive(Debug)]
pub struct Feed {
    messages: mpsc::Receiver<Result<Message, AsideError>>,
    call: u64,
    commands: mpsc::UnboundedSender<Command>,
}

impl Feed {
    /// The next message for the client. `None` when the feed has ended; after an error nothing comes.
    pub async fn next(&mut self) -> Option<Result<Message, AsideError>> {
        self.messages.recv().await
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // If the driver is gone, so is the feed.
        let _ = self.commands.send(Command::Cancel(self.call));
    }
}

/// A pickled function in a message.
#[derive(Debug, Clone)]
pub enum Pickle {
    /// Pickled by its sender.
    Bytes(Bytes),
    /// Pickled by Dask, which does so with what msgpack does not know.
    Payload(Payload),
}

/// A new run of a P2P shuffle.
#[derive(Debug, Clone)]
pub struct P2pRequest {
    /// The run spec of the barrier task.
    pub barrier: Payload,
    /// Number of the run, larger than that of any earlier run of any shuffle: workers refuse others.
    pub run_id: u64,
    /// Workers that may take part, in the order in which partitions are dealt out.
    pub workers: Vec<String>,
    /// Where partitions must go because another active shuffle shares their output tasks.
    pub existing: Vec<(Key, String)>,
    /// The span of the barrier task.
    pub span_id: Option<String>,
}

/// What workers are told of a run of a P2P shuffle.
#[derive(Debug, Clone, PartialEq)]
pub struct P2pSpec {
    /// The worker of each output partition.
    pub worker_for: Vec<(Key, String)>,
    /// The pickled `ShuffleRunSpec`.
    pub run_spec: Payload,
}

/// The process beside the scheduler. Cheap to clone; dropping the last clone ends the process.
#[derive(Debug, Clone)]
pub struct Aside {
    commands: mpsc::UnboundedSender<Command>,
    hooks: Hooks,
}

impl Aside {
    /// Makes the driver task; no process is started. Must be called inside a tokio runtime.
    ///
    /// Questions of user code come out of the receiver and must be answered; one that is dropped is answered with
    /// an error.
    pub fn new(config: AsideConfig) -> (Self, mpsc::UnboundedReceiver<Question>) {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (questions, receiver) = mpsc::unbounded_channel();
        let hooks = Hooks::default();
        tokio::spawn(process::drive(config, inbox, questions, hooks.clone()));
        (Self { commands, hooks }, receiver)
    }

    async fn call(&self, call: Call) -> Result<Answer, AsideError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Call(call, Sink::Once(reply)));
        match (sent, answer.await) {
            (Ok(()), Ok(answer)) => answer,
            _ => Err(AsideError::unavailable("the scheduler shuts down")),
        }
    }

    /// Runs a function; the message is what `run_on_scheduler` gets: a result or the user's error.
    ///
    /// # Errors
    /// If there is no Python, or the process dies meanwhile.
    pub async fn run_function(&self, request: RunFunction) -> Result<Message, AsideError> {
        let parts = vec![request.function, request.args, request.kwargs];
        let call = Call::new("run_function", [("wait", request.wait.into())], parts);
        Ok(self.call(call).await?.parts)
    }

    /// Starts a pickled scheduler plugin and keeps it over restarts of the process. Gives its name.
    ///
    /// Give it to [`crate::graph::GraphIntake::set_plugin`] too, so that graphs can use modules that it brings.
    ///
    /// # Errors
    /// What the plugin raises, or if there is no Python.
    pub async fn register_plugin(
        &self,
        plugin: Bytes,
        name: Option<String>,
        idempotent: bool,
    ) -> Result<String, AsideError> {
        let args = [
            ("name", name.clone().into()),
            ("idempotent", idempotent.into()),
        ];
        let answer = self
            .call(Call::new("register_plugin", args, vec![plugin.clone()]))
            .await?;
        let name = answer.value.as_str().unwrap_or_default().to_owned();
        let _ = self.commands.send(Command::Keep {
            name: name.clone(),
            plugin: Some(plugin),
        });
        Ok(name)
    }

    /// Takes a plugin away.
    ///
    /// # Errors
    /// `ValueError` if there is none of this name.
    pub async fn unregister_plugin(&self, name: &str) -> Result<(), AsideError> {
        let _ = self.commands.send(Command::Keep {
            name: name.to_owned(),
            plugin: None,
        });
        self.call(Call::new(
            "unregister_plugin",
            [("name", name.into())],
            Vec::new(),
        ))
        .await?;
        Ok(())
    }

    /// Imports modules (names, files or addresses) and runs their `dask_setup`, each with its arguments. Again
    /// after a restart of the process.
    ///
    /// # Errors
    /// What the modules raise, or if there is no Python.
    pub async fn preload(
        &self,
        modules: Vec<String>,
        argv: Vec<Vec<String>>,
    ) -> Result<(), AsideError> {
        let argv = Value::array(argv.into_iter().map(Value::array));
        let call = Call::new(
            "preload",
            [("modules", Value::array(modules)), ("argv", argv)],
            Vec::new(),
        );
        self.call(call.clone()).await?;
        // Kept only now: the process that this very call starts must not run the modules twice.
        let _ = self.commands.send(Command::KeepPreload(call));
        Ok(())
    }

    /// Starts the policies of the active memory manager that the configuration names, as far as they are Python.
    ///
    /// # Errors
    /// If one of them cannot be had.
    pub async fn memory_policies(&self) -> Result<(), AsideError> {
        let call = Call::new("memory_policies", [], Vec::new());
        self.call(call.clone()).await?;
        let _ = self.commands.send(Command::KeepPreload(call));
        Ok(())
    }

    /// Starts a feed.
    pub fn feed(&self, request: FeedRequest) -> Feed {
        let (sender, messages) = mpsc::channel(FEED_BACKLOG);
        let parts = vec![request.setup, request.function, request.teardown];
        let request = Call::new("feed", [("interval", request.interval)], parts);
        let call = request.id;
        // If the driver is gone, the sender is dropped and the feed ends.
        let _ = self
            .commands
            .send(Command::Call(request, Sink::Feed(sender)));
        Feed {
            messages,
            call,
            commands: self.commands.clone(),
        }
    }

    /// Assigns the partitions of a P2P shuffle to workers.
    ///
    /// # Errors
    /// If the barrier cannot be unpickled, or there is no Python.
    pub async fn p2p_spec(&self, request: P2pRequest) -> Result<P2pSpec, AsideError> {
        let existing = request.existing.iter();
        let existing =
            existing.map(|(key, worker)| Value::Array(vec![key.into(), worker.as_str().into()]));
        let args = [
            ("run_id", request.run_id.into()),
            ("workers", Value::array(request.workers)),
            ("existing", Value::Array(existing.collect())),
            ("span_id", request.span_id.into()),
        ];
        let mut parts = vec![request.barrier.header];
        parts.extend_from_slice(request.barrier.frames.as_slice());
        let answer = self.call(Call::new("p2p_spec", args, parts)).await?;
        answer
            .into_p2p_spec()
            .ok_or_else(|| AsideError::unavailable("the answer about a P2P shuffle makes no sense"))
    }

    /// For each worker a number that is the same for workers to which a key function gives equal values.
    ///
    /// # Errors
    /// What the function raises, or if there is no Python.
    pub async fn worker_groups(
        &self,
        key: Pickle,
        workers: &[String],
    ) -> Result<Vec<u64>, AsideError> {
        let addresses = Value::array(workers.iter().map(String::as_str));
        let is_payload = matches!(key, Pickle::Payload(_)).into();
        let args = [("workers", addresses), ("payload", is_payload)];
        let parts = match key {
            Pickle::Bytes(pickle) => vec![pickle],
            Pickle::Payload(payload) => std::iter::once(payload.header)
                .chain(payload.frames.as_slice().iter().cloned())
                .collect(),
        };
        let answer = self.call(Call::new("worker_groups", args, parts)).await?;
        Ok(answer
            .value
            .as_array()
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_u64)
            .collect())
    }

    /// Addresses of the workers that all plugins would let go.
    ///
    /// # Errors
    /// What a plugin raises.
    pub async fn workers_downscaling(&self) -> Result<Vec<String>, AsideError> {
        let call = Call::new("workers_downscaling", [], Vec::new());
        let answer = self.call(call).await?;
        let addresses = answer.value.as_array().unwrap_or_default().iter();
        Ok(addresses
            .filter_map(|a| Some(a.as_str()?.to_owned()))
            .collect())
    }

    /// Has one of the operations carried out that need Dask's own code (`performance_report`, writing a dump); gives
    /// the reply for the client.
    ///
    /// # Errors
    /// What it raises, or if there is no Python.
    pub async fn operation(&self, name: &str, args: Value) -> Result<Message, AsideError> {
        let args = [("name", name.into()), ("kwargs", args)];
        let answer = self.call(Call::new("operation", args, Vec::new())).await?;
        Ok(answer.parts)
    }

    /// The reply to the operation `versions`: the interpreter's, and those of the packages that Dask compares.
    ///
    /// # Errors
    /// If there is no Python.
    pub async fn versions(&self, packages: Value) -> Result<Message, AsideError> {
        Ok(self
            .call(Call::new("versions", [("packages", packages)], Vec::new()))
            .await?
            .parts)
    }

    /// Lets plugins and preloads do what they do at the end. Does not start a process for it.
    pub async fn close(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Close(done)).is_ok() {
            // Dropped unanswered means that there was nothing to close, or no time left.
            let _ = wait.await;
        }
    }

    /// Whether any plugin has this hook, so that telling it is not in vain.
    pub fn wants(&self, hook: Hook) -> bool {
        self.hooks.has(hook)
    }

    /// Tells plugins what has happened, in the order of the calls.
    pub fn tell(&self, hook: Hook, args: Vec<Value>, kwargs: Vec<(&'static str, Value)>) {
        if self.wants(hook) {
            let _ = self.commands.send(Command::Event { hook, args, kwargs });
        }
    }
}

/// Messages of a feed that may wait for a slow client before the feed is ended.
const FEED_BACKLOG: usize = 64;
