//! Dask worker state machine without I/O.
//!
//! [`Core`] decides what this worker runs, fetches, keeps and reports. It owns
//! no clock, socket, thread or random source: call [`Core::handle`] with each
//! event in order, then drain [`Core::poll_action`], then sleep until
//! [`Core::next_deadline`] and report that with [`EventKind::Tick`]. Equal event
//! sequences give equal action sequences.
//!
//! States and transitions have distributed's names; see `docs/worker-state.md`.

mod action;
mod event;
mod gather;
mod ids;
mod priority;
mod ready;
mod state;
mod stimulus;
mod story;
mod time;
mod transition;
mod validate;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashMap;

pub use action::{Action, Message};
pub use event::{Address, ComputeTask, Event, EventKind, RunSpec, TaskError};
pub use oxidask_protocol::{Key, Payload};
pub use priority::Priority;
pub use story::StoryEntry;
pub use time::Time;
pub use validate::Violation;

use ids::TaskId;
use state::{Peers, State, Tasks};
use transition::Recommendation;

/// What a worker is allowed to do at once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Slots for running tasks.
    pub nthreads: usize,
    /// Amount of each named resource.
    pub resources: Vec<(Arc<str>, f64)>,
    /// Peers asked at once, unless little is in flight. distributed: `worker.connections.incoming`.
    pub incoming_connections: usize,
    /// Bytes in flight below which `incoming_connections` does not count.
    pub incoming_throttle_bytes: u64,
    /// Bytes in flight at most; one value at least always flies. distributed: 10 % of the memory limit.
    pub incoming_bytes: u64,
    /// Bytes per transfer at most; one value at least. distributed: `worker.transfer.message-bytes-limit`.
    pub message_bytes: u64,
    /// Executor deaths that a task survives, run alone. distributed: `scheduler.allowed-failures`.
    pub allowed_failures: u32,
    /// Each slot is in an executor of its own, so that a task which dies with its executor was alone there.
    pub isolated: bool,
    /// Hand short tasks to the executor before a slot is free.
    pub hand_ahead: bool,
    /// Entries of the story at most.
    pub story_length: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nthreads: 1,
            resources: Vec::new(),
            incoming_connections: 10,
            incoming_throttle_bytes: 10_000_000,
            incoming_bytes: u64::MAX,
            message_bytes: 50_000_000,
            allowed_failures: 3,
            isolated: false,
            hand_ahead: true,
            story_length: 1000,
        }
    }
}

/// Counters for heartbeats and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tasks per state that distributed reports: executing, long-running, ready, constrained, waiting,
    /// fetch, flight, missing, memory, cancelled, resumed, released, error.
    pub tasks: Vec<(&'static str, usize)>,
    /// Runs that ended.
    pub executed: u64,
    /// Sum of the sizes of values in memory.
    pub nbytes: u64,
    /// Transfers that run.
    pub incoming_count: usize,
    /// Transfers ever started.
    pub incoming_total: u64,
    /// Bytes announced of the transfers that run.
    pub incoming_bytes: u64,
}

/// The worker state machine.
#[derive(Debug)]
pub struct Core {
    config: Config,
    tasks: Tasks,
    peers: Peers,
    /// All and only tasks in state ready.
    ready: BTreeSet<(Priority, TaskId)>,
    /// All and only tasks in state constrained.
    constrained: BTreeSet<(Priority, TaskId)>,
    /// All and only tasks in state missing.
    missing: BTreeSet<TaskId>,
    /// When to ask the scheduler for holders of missing keys: set while `missing` is not empty.
    refresh_at: Option<Time>,
    /// Number of tasks in state fetch.
    fetching: usize,
    /// Number of tasks whose slot counts towards `nthreads`.
    executing: usize,
    /// Number of those that are expected to be short.
    executing_short: usize,
    /// Number of tasks whose slot is seceded.
    long_running: usize,
    /// A suspect task has a slot: nothing else starts.
    suspect_running: bool,
    /// What is left of `config.resources`.
    available: Vec<(Arc<str>, f64)>,
    /// Number of peers with a transfer.
    incoming_count: usize,
    /// Transfers ever started.
    incoming_total: u64,
    /// Sum of the sizes announced of running transfers.
    incoming_bytes: u64,
    /// Sum of the sizes of tasks in memory.
    nbytes: u64,
    executed: u64,
    paused: bool,
    /// Decreases with each computed task, so that the last of equals runs first.
    generation: i64,
    prefixes: HashMap<String, u32>,
    /// Mean duration in seconds of each prefix, exponentially weighted; none before the first run.
    durations: Vec<Option<f64>>,
    recommendations: Vec<(TaskId, Recommendation)>,
    actions: VecDeque<Action>,
    story: story::Story,
    /// State changes for whoever watches them; none if nobody does.
    watched: Option<Vec<(Key, &'static str, &'static str)>>,
    now: Time,
    stimulus_id: Arc<str>,
}

impl Core {
    /// A worker that knows no task.
    pub fn new(config: Config) -> Self {
        Self {
            available: config.resources.clone(),
            story: story::Story::new(config.story_length),
            config,
            tasks: Tasks::default(),
            peers: Peers::default(),
            ready: BTreeSet::new(),
            constrained: BTreeSet::new(),
            missing: BTreeSet::new(),
            refresh_at: None,
            fetching: 0,
            executing: 0,
            executing_short: 0,
            long_running: 0,
            suspect_running: false,
            incoming_count: 0,
            incoming_total: 0,
            incoming_bytes: 0,
            nbytes: 0,
            executed: 0,
            paused: false,
            generation: 0,
            prefixes: HashMap::new(),
            durations: Vec::new(),
            recommendations: Vec::new(),
            actions: VecDeque::new(),
            watched: None,
            now: Time::ZERO,
            stimulus_id: Arc::from(""),
        }
    }

    /// The address under which the scheduler knows this worker. To be set before the first event.
    pub fn set_address(&mut self, address: Address) {
        self.peers.set_own_address(address);
    }

    /// Change the number of bytes in flight at most.
    pub fn set_incoming_bytes(&mut self, limit: u64) {
        self.config.incoming_bytes = limit;
    }

    /// Take in what happened. `now` must not go backwards.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.now = now;
        self.stimulus_id = event.stimulus_id;
        self.stimulus(event.kind);
        self.follow_recommendations();
        self.start_ready();
        self.start_transfers();
    }

    /// The next thing for the driver to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to report a `Tick` at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let busy = self
            .peers
            .iter()
            .filter_map(|(_, peer)| peer.busy_until)
            .min();
        match (busy, self.refresh_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Nothing runs, waits to run or flies.
    pub fn is_idle(&self) -> bool {
        self.executing == 0
            && self.long_running == 0
            && self.ready.is_empty()
            && self.constrained.is_empty()
            && self.incoming_count == 0
    }

    /// Tasks that have a slot, seceded or not.
    pub fn running(&self) -> usize {
        self.executing + self.long_running
    }

    /// Distributed's name of the task's state; none if it is unknown.
    pub fn state_of(&self, key: &Key) -> Option<&'static str> {
        self.tasks.find(key).map(|id| self.tasks[id].state.name())
    }

    /// The value is in the store and not merely kept for a task here.
    pub fn in_memory(&self, key: &Key) -> bool {
        self.tasks
            .find(key)
            .is_some_and(|id| self.tasks[id].state == State::Memory)
    }

    /// Keys whose values are in the store, with their sizes.
    pub fn memory_keys(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.tasks
            .iter()
            .filter(|(_, task)| task.state == State::Memory)
            .map(|(_, task)| (&task.key, task.size()))
    }

    /// Each task's key, state name and size, for diagnostics.
    pub fn snapshot(&self) -> impl Iterator<Item = (&Key, &'static str, u64)> {
        self.tasks
            .iter()
            .map(|(_, task)| (&task.key, task.state.name(), task.size()))
    }

    /// What became of a key, oldest first; all keys if none is named.
    pub fn story<'a>(&'a self, key: Option<&'a Key>) -> impl Iterator<Item = &'a StoryEntry> {
        self.story.of(key)
    }

    /// Keep each state change until [`take_transitions`](Self::take_transitions).
    pub fn watch_transitions(&mut self) {
        self.watched.get_or_insert_default();
    }

    /// Key, state before and state after of each change since the last call; nothing if nobody watches.
    pub fn take_transitions(&mut self) -> Vec<(Key, &'static str, &'static str)> {
        self.watched
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Counters for heartbeats and metrics.
    pub fn stats(&self) -> Stats {
        const NAMES: [&str; 13] = [
            "executing",
            "long-running",
            "ready",
            "constrained",
            "waiting",
            "fetch",
            "flight",
            "missing",
            "memory",
            "cancelled",
            "resumed",
            "released",
            "error",
        ];
        let mut tasks: Vec<_> = NAMES.iter().map(|name| (*name, 0)).collect();
        for (_, task) in self.tasks.iter() {
            let name = task.state.name();
            if let Some(count) = tasks.iter_mut().find(|(n, _)| *n == name) {
                count.1 += 1;
            }
        }
        Stats {
            tasks,
            executed: self.executed,
            nbytes: self.nbytes,
            incoming_count: self.incoming_count,
            incoming_total: self.incoming_total,
            incoming_bytes: self.incoming_bytes,
        }
    }

    fn send(&mut self, message: Message) {
        self.actions
            .push_back(Action::Send(message, self.stimulus_id.clone()));
    }

    /// Id of the prefix of a key.
    fn prefix_of(&mut self, key: &Key) -> u32 {
        let prefix = key.prefix();
        if let Some(id) = self.prefixes.get(prefix.as_ref()) {
            return *id;
        }
        let id =
            u32::try_from(self.durations.len()).expect("fewer than 2^32 prefixes fit in memory");
        self.prefixes.insert(prefix.into_owned(), id);
        self.durations.push(None);
        id
    }

    fn note_duration(&mut self, id: TaskId, duration: Duration) {
        let mean = &mut self.durations[self.tasks[id].prefix as usize];
        let seconds = duration.as_secs_f64();
        *mean = Some(mean.map_or(seconds, |mean| (mean + seconds) / 2.0));
    }
}
