//! The owner of the state machine and of the store: takes one input after the other and does what they ask for.

mod actions;
mod control;
mod death;
mod executor;
mod gets;
mod leases;
mod memory;
mod native;
mod queries;
mod reports;
mod requests;
mod scheduler;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use indexmap::IndexMap;
use oxidask_protocol::{Key, Value, message::worker::FromWorker, msgpack::Writer, wire::Encode};
use oxidask_worker_core::{Core, Event, EventKind, RunSpec};
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender},
    oneshot,
};

use crate::{
    clock::{Clock, unix},
    executor::{Environment, Handle, Maker, native::NativeThreads, wire::Run},
    input::{Input, Inputs},
    metrics::Meter,
    neighbours::Neighbours,
    settings::Settings,
    store::Store,
    transfer::Peers,
};
use gets::Gets;

/// Inputs dealt with before what they cause is sent.
const BATCH: usize = 256;

/// How often memory is looked at. Source: distributed `worker.memory.monitor-interval`.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

/// How a worker ends.
#[derive(Debug)]
pub(crate) enum End {
    /// For this reason.
    Stop(String),
    /// To come back with nothing in memory, as a nanny would bring it back.
    Restart,
}

/// How long running tasks may take to finish once the worker is told to stop. Kubernetes kills after 30 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the answer of Python goes.
type RelayReply = oneshot::Sender<Result<Vec<Bytes>, String>>;

/// Distributed's worker states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Running,
    Paused,
    ClosingGracefully,
    Closing,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ClosingGracefully => "closing_gracefully",
            Self::Closing => "closing",
        }
    }
}

/// A run handed to the executor.
#[derive(Debug)]
struct Running {
    key: Key,
    /// When it was handed over. Unix seconds.
    since: f64,
    /// It gave up its slot, so it has surely started.
    seceded: bool,
    actor: bool,
    span: Option<Arc<str>>,
}

/// A task that the core wants run while there is no executor to run it.
#[derive(Debug)]
struct Start {
    key: Key,
    run_spec: Arc<RunSpec>,
    dependencies: Vec<Key>,
}

/// Something for the scheduler's stream.
enum Outgoing {
    Message(Box<FromWorker>),
    /// A message as Python packed it.
    Packed(Bytes),
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) core: Core,
    pub(crate) settings: Arc<Settings>,
    pub(crate) address: Arc<str>,
    pub(crate) inputs: Inputs,
    pub(crate) peers: Peers,
    pub(crate) executors: Maker,
    pub(crate) neighbours: Neighbours,
    pub(crate) environment: Environment,
    pub(crate) scheduler: UnboundedSender<Vec<Bytes>>,
    pub(crate) plugins: Vec<(String, Bytes)>,
    /// Pickled nanny plugins by name, for the first executor.
    pub(crate) nanny_plugins: Vec<(String, Bytes)>,
    pub(crate) services: Value,
}

/// The owner of all state of the worker.
pub(crate) struct Driver {
    core: Core,
    clock: Clock,
    store: Store,
    settings: Arc<Settings>,
    address: Arc<str>,
    inputs: Inputs,
    peers: Peers,
    executors: Maker,
    neighbours: Neighbours,
    environment: Environment,
    scheduler: UnboundedSender<Vec<Bytes>>,
    services: Value,
    status: Status,
    /// Set when the worker is to stop.
    stop: Option<End>,
    /// Told to stop gracefully: when to stop waiting for running tasks, and why.
    draining: Option<(std::time::Instant, String)>,
    /// The scheduler has been asked to retire this worker.
    retiring: bool,
    executor: Option<Handle>,
    /// No executor was started yet, because nothing has needed one.
    executor_put_off: bool,
    generation: u64,
    /// Pickled plugins by name, for every executor.
    plugins: IndexMap<String, Bytes>,
    /// Pickled nanny plugins that no executor has set up.
    nanny_plugins: Vec<(String, Bytes)>,
    /// Plugins that this executor has not set up yet: no task runs before.
    plugins_pending: HashSet<String>,
    /// Tasks to be handed to the executor once it is ready.
    waiting: VecDeque<Start>,
    /// Tasks for the next message to the executor.
    runs: Vec<Run>,
    /// Values that the executor is to forget, with the next message.
    drops: Vec<u64>,
    /// By number of the run, in the order in which they were handed over.
    running: IndexMap<u64, Running>,
    /// Native tasks that wait for arguments or run, by number of the run.
    native: IndexMap<u64, native::RunningNative>,
    native_threads: NativeThreads,
    outgoing: Vec<Outgoing>,
    gets: Gets,
    leases: leases::Leases,
    serving: Arc<AtomicUsize>,
    relays: HashMap<u64, RelayReply>,
    last_relay: u64,
    /// Requests that came before the executor said what it answers.
    early_relays: Vec<(String, Vec<Bytes>, RelayReply)>,
    handlers: HashSet<String>,
    stream_handlers: HashSet<String>,
    extensions: Value,
    /// What Python measured since the last heartbeat.
    digests: Vec<(Value, Value)>,
    /// Seconds by span, prefix and label since the last heartbeat.
    activity: BTreeMap<(Arc<str>, String, &'static str), f64>,
    has_extensions: bool,
    meter: Meter,
    /// Bytes of spilled values: in memory before, on disk now.
    spilled: (u64, u64),
    memory_state: memory::MemoryState,
    /// Bytes of free segments at the last look.
    free_segments: u64,
    /// The executor is being killed to be replaced.
    replacing: bool,
    /// The request that asks for another executor: it is replaced once its answer is known.
    replacement_for: Option<u64>,
    /// Answers that are given when the next executor is there.
    answers_with_next: Vec<(RelayReply, Vec<Bytes>)>,
    /// How the last executor died.
    death: Option<death::Death>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let native_threads = NativeThreads::new(parts.settings.nthreads, parts.inputs.clone());
        Self {
            core: parts.core,
            clock: Clock::new(),
            store: Store::default(),
            settings: parts.settings,
            address: parts.address,
            inputs: parts.inputs,
            peers: parts.peers,
            executors: parts.executors,
            neighbours: parts.neighbours,
            environment: parts.environment,
            scheduler: parts.scheduler,
            services: parts.services,
            status: Status::Running,
            stop: None,
            draining: None,
            retiring: false,
            executor: None,
            executor_put_off: false,
            generation: 0,
            plugins: parts.plugins.into_iter().collect(),
            nanny_plugins: parts.nanny_plugins,
            plugins_pending: HashSet::new(),
            waiting: VecDeque::new(),
            runs: Vec::new(),
            drops: Vec::new(),
            running: IndexMap::new(),
            native: IndexMap::new(),
            native_threads,
            outgoing: Vec::new(),
            gets: Gets::default(),
            leases: leases::Leases::default(),
            serving: Arc::default(),
            relays: HashMap::new(),
            last_relay: 0,
            early_relays: Vec::new(),
            handlers: HashSet::new(),
            stream_handlers: HashSet::new(),
            extensions: Value::Map(Vec::new()),
            digests: Vec::new(),
            activity: BTreeMap::new(),
            has_extensions: false,
            meter: Meter::new(),
            spilled: (0, 0),
            memory_state: memory::MemoryState::default(),
            free_segments: 0,
            replacing: false,
            replacement_for: None,
            answers_with_next: Vec::new(),
            death: None,
        }
    }

    /// Work until told to stop. Gives the environment that executors have had last, too.
    pub(crate) async fn run(mut self, mut inputs: UnboundedReceiver<Input>) -> (End, Environment) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut memory = tokio::time::interval(MEMORY_INTERVAL);
        memory.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = self
                .core
                .next_deadline()
                .map(|at| self.clock.instant(at).into());
            tokio::select! {
                biased;
                count = inputs.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return (End::Stop("nobody is left to ask".to_owned()), self.environment);
                    }
                    for input in batch.drain(..) {
                        self.take(input);
                    }
                }
                () = sleep_until(deadline) => self.event(EventKind::Tick, "tick"),
                _ = memory.tick() => self.look_at_memory(),
            }
            self.flush();
            self.continue_drain();
            if let Some(end) = self.stop.take() {
                return (end, self.environment);
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Scheduler(batch) => batch
                .into_iter()
                .for_each(|message| self.scheduler_says(message)),
            Input::SchedulerLost(why) => {
                self.stop = Some(End::Stop(format!(
                    "connection to the scheduler lost: {why}"
                )))
            }
            Input::Runs {
                generation,
                message,
            } => self.reports(generation, message),
            Input::Control {
                generation,
                message,
            } => self.executor_says(generation, message),
            Input::ExecutorEnded {
                generation,
                status,
                output,
            } => self.executor_ended(generation, &status, &output),
            Input::NativeReady { id, task, values } => self.native_ready(id, &task, values),
            Input::Native { id, outcome } => self.native_done(id, outcome),
            Input::ExecutorStarted(started) => self.executor_started(started),
            Input::Transfer { worker, outcome } => self.transferred(&worker, outcome),
            Input::Spilled { id, written } => self.spill_written(id, written),
            Input::Unspilled { id, read } => self.unspilled(id, read),
            Input::Request(request) => self.request(request),
            Input::Stop { graceful, reason } => self.close(graceful, reason),
            Input::Restart => {
                self.say_closing();
                self.stop = Some(End::Restart);
            }
        }
    }

    /// Tell the core, and do what it asks for.
    fn event(&mut self, kind: EventKind, stimulus_id: impl Into<Arc<str>>) {
        self.core
            .handle(self.clock.now(), Event::new(kind, stimulus_id));
        while let Some(action) = self.core.poll_action() {
            self.perform(action);
        }
    }

    /// Send what has gathered: one message to the executor per socket, one batch to the scheduler.
    fn flush(&mut self) {
        self.flush_executor();
        if self.outgoing.is_empty() {
            return;
        }
        let mut w = Writer::new();
        w.array(self.outgoing.len());
        for message in self.outgoing.drain(..) {
            match message {
                Outgoing::Message(message) => message.encode(&mut w),
                Outgoing::Packed(bytes) => w.raw(&bytes),
            }
        }
        // Lost if the connection is: then SchedulerLost comes.
        let _ = self.scheduler.send(w.into_frames());
    }

    fn tell_scheduler(&mut self, message: FromWorker) {
        self.outgoing.push(Outgoing::Message(Box::new(message)));
    }

    fn set_status(&mut self, status: Status, stimulus_id: String) {
        self.status = status;
        self.tell_scheduler(FromWorker::StatusChange(
            oxidask_protocol::message::worker::StatusChange {
                status: status.name().to_owned(),
                stimulus_id,
            },
        ));
    }

    /// Stop at once; or start nothing more, wait for what runs and let the scheduler move what only this worker has.
    fn close(&mut self, graceful: bool, reason: String) {
        if graceful && self.draining.is_none() {
            self.set_status(
                Status::ClosingGracefully,
                format!("worker-close-gracefully-{}", unix()),
            );
            self.event(EventKind::Pause, "worker-close-gracefully");
            self.draining = Some((std::time::Instant::now() + DRAIN_TIMEOUT, reason));
            return;
        }
        self.say_closing();
        self.stop = Some(End::Stop(reason));
    }

    fn continue_drain(&mut self) {
        let Some((deadline, reason)) = &self.draining else {
            return;
        };
        if self.core.running() > 0 && std::time::Instant::now() < *deadline {
            return;
        }
        let reason = reason.clone();
        // Once is enough: the next Stop is not graceful.
        self.draining = Some((*deadline + Duration::from_secs(3600), reason.clone()));
        if std::mem::replace(&mut self.retiring, true) {
            return;
        }
        let (peers, inputs) = (self.peers.clone(), self.inputs.clone());
        let (scheduler, address) = (self.settings.scheduler.clone(), self.address.to_string());
        tokio::spawn(async move {
            crate::scheduler::retire(&peers, &scheduler, &address).await;
            inputs.send(Input::Stop {
                graceful: false,
                reason,
            });
        });
    }

    fn say_closing(&mut self) {
        self.set_status(Status::Closing, format!("worker-close-{}", unix()));
        self.tell_scheduler(FromWorker::CloseStream(
            oxidask_protocol::message::client::Empty {},
        ));
        self.flush();
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
