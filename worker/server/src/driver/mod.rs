//! The owner of the state machine and of the store: takes one input after the other and does what they ask for.

mod actions;
mod control;
mod death;
mod executor;
mod executors;
mod gets;
mod leases;
mod memory;
mod native;
mod placement;
mod queries;
mod relay;
mod reports;
mod requests;
mod scheduler;
mod start;

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
use tokio::sync::{mpsc::Receiver, oneshot};

use crate::{
    clock::{Clock, unix},
    executor::{Environment, Maker, native::NativeThreads},
    input::{Input, Inputs},
    metrics::Meter,
    neighbours::Neighbours,
    outbox::Outbox,
    settings::Settings,
    store::Store,
    transfer::Peers,
};
use executors::{AwaitingInputs, Executor, PrimaryPrefixes};
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
    /// As an error.
    Failed(String),
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

/// A task that the core wants run.
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
    pub(crate) maker: Maker,
    pub(crate) neighbours: Neighbours,
    pub(crate) environment: Environment,
    pub(crate) scheduler: Outbox,
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
    maker: Maker,
    neighbours: Neighbours,
    environment: Environment,
    scheduler: Outbox,
    services: Value,
    status: Status,
    /// Set when the worker is to stop.
    stop: Option<End>,
    /// Told to stop gracefully: when to stop waiting for running tasks, and why.
    draining: Option<(std::time::Instant, String)>,
    /// The scheduler has been asked to retire this worker.
    retiring: bool,
    executors: Vec<Executor>,
    /// No executor was started yet, because nothing has needed one.
    executors_put_off: bool,
    last_generation: u64,
    /// Executors come from interpreters that were started after this, since something was installed then.
    templates_after: Option<std::time::Instant>,
    /// Pickled plugins by name, for every executor.
    plugins: IndexMap<String, Bytes>,
    /// Pickled nanny plugins that no executor has set up.
    nanny_plugins: Vec<(String, Bytes)>,
    /// Tasks to be handed to an executor once it is ready.
    waiting: VecDeque<Start>,
    awaiting_inputs: AwaitingInputs,
    primary_prefixes: PrimaryPrefixes,
    /// Native tasks that wait for arguments or run, by number of the run.
    native: IndexMap<u64, native::RunningNative>,
    native_threads: NativeThreads,
    outgoing: Vec<Outgoing>,
    gets: Gets,
    /// Transfers to peers that run.
    serving: Arc<AtomicUsize>,
    /// Values that are being brought from one executor to another, or to a native task.
    bringing: Arc<AtomicUsize>,
    relays: HashMap<u64, relay::Relay>,
    last_relay: u64,
    /// Requests that came before the executor said what it answers.
    early_relays: Vec<(String, Vec<Bytes>, RelayReply)>,
    handlers: HashSet<String>,
    stream_handlers: HashSet<String>,
    extensions: Value,
    /// What Python measured since the last heartbeat.
    digests: Vec<(Value, Value)>,
    /// What of it belongs to spans, by context, span and more, for the heartbeat under way.
    of_spans: Vec<(Value, Value)>,
    /// Seconds by span, prefix and label since the last heartbeat.
    activity: BTreeMap<(Arc<str>, String, &'static str), f64>,
    meter: Meter,
    /// Bytes of spilled values: in memory before, on disk now.
    spilled: (u64, u64),
    memory_state: memory::MemoryState,
    /// Bytes of free segments at the last look.
    free_segments: u64,
    /// The request that asks for other executors: they are replaced once its answer is known.
    replacement_for: Option<u64>,
    /// Answers that are given when the next executors are there.
    answers_with_next: Vec<(RelayReply, Vec<Bytes>)>,
    /// How the last executor that died did.
    death: Option<death::Death>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let executors = Self::new_executors(parts.settings.nthreads, parts.settings.executors);
        let native_threads = NativeThreads::new(parts.settings.nthreads, parts.inputs.clone());
        Self {
            core: parts.core,
            clock: Clock::new(),
            store: Store::default(),
            settings: parts.settings,
            address: parts.address,
            inputs: parts.inputs,
            peers: parts.peers,
            maker: parts.maker,
            neighbours: parts.neighbours,
            environment: parts.environment,
            scheduler: parts.scheduler,
            services: parts.services,
            status: Status::Running,
            stop: None,
            draining: None,
            retiring: false,
            executors,
            executors_put_off: false,
            last_generation: 0,
            templates_after: None,
            plugins: parts.plugins.into_iter().collect(),
            nanny_plugins: parts.nanny_plugins,
            waiting: VecDeque::new(),
            awaiting_inputs: AwaitingInputs::new(),
            primary_prefixes: PrimaryPrefixes::new(),
            native: IndexMap::new(),
            native_threads,
            outgoing: Vec::new(),
            gets: Gets::default(),
            serving: Arc::default(),
            bringing: Arc::default(),
            relays: HashMap::new(),
            last_relay: 0,
            early_relays: Vec::new(),
            handlers: HashSet::new(),
            stream_handlers: HashSet::new(),
            extensions: Value::Map(Vec::new()),
            digests: Vec::new(),
            of_spans: Vec::new(),
            activity: BTreeMap::new(),
            meter: Meter::new(),
            spilled: (0, 0),
            memory_state: memory::MemoryState::default(),
            free_segments: 0,
            replacement_for: None,
            answers_with_next: Vec::new(),
            death: None,
        }
    }

    /// Work until told to stop. Gives the environment that executors have had last, too.
    pub(crate) async fn run(mut self, mut inputs: Receiver<Input>) -> (End, Environment) {
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
            Input::ExecutorStarted { executor, started } => {
                self.executor_started(executor, started);
            }
            Input::InputsSealed { id } => self.inputs_sealed(id),
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

    /// Send what has gathered: one message to each executor per socket, one batch to the scheduler.
    fn flush(&mut self) {
        self.flush_executors();
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
        self.scheduler.send(w.into_frames());
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
            let stop = Input::Stop {
                graceful: false,
                reason,
            };
            inputs.send(stop).await;
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
