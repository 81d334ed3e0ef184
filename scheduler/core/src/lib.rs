//! Dask's scheduler as a state machine.
//!
//! [`Core::handle`] takes what happened, [`Core::poll_action`] gives what to do about it. The core owns no clock,
//! socket, thread or random source; equal sequences of events give equal sequences of actions.
//!
//! Read on in this order: [`event`] (what can happen), `stimulus` (what each event means for tasks),
//! `transition` (how a task changes its state, and what follows), `placement` (which worker), [`action`] (what to do).

pub mod action;
pub mod config;
mod demand;
pub mod event;
mod ids;
mod placement;
mod replicas;
mod scaling;
mod slices;
mod spans;
mod state;
mod steal_note;
mod stealing;
mod stimulus;
mod story;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
mod timer;
mod transition;
mod validate;
mod victims;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use oxidask_protocol::Key;
use rustc_hash::FxBuildHasher;

pub use action::Action;
pub use config::Config;
pub use demand::WorkerGroup;
pub use event::Event;
pub use ids::{ClientId, RequestId, WorkerId};
pub use scaling::ToClose;
pub use time::Time;
pub use validate::Violation;
pub use victims::Unique;

use ids::TaskId;
use slices::Slices;
use state::Client;
use state::group::{Groups, PrefixId};
use state::queue::Queue;
use state::span::Spans;
use state::task::{Task, TaskTable};
use state::worker::Worker;
use stealing::Thefts;
pub use stimulus::timers::heartbeat_interval;

use stimulus::retire::{Copies, Retirement};
use stimulus::shuffle::Shuffle;
use story::Story;
use timer::Timers;
use transition::Recommendations;

/// A map in the order of insertion.
pub type IdMap<K, V> = IndexMap<K, V, FxBuildHasher>;
type IdSet<K> = IndexSet<K, FxBuildHasher>;

/// Decides what runs where.
///
/// Call [`handle`](Self::handle) with each event in order, then drain [`poll_action`](Self::poll_action), then sleep
/// until [`next_deadline`](Self::next_deadline) and report it with [`Event::Tick`]. `now` must not go backwards.
#[derive(Debug)]
pub struct Core {
    config: Config,
    now: Time,
    /// Names the event that is being handled, for stories and messages.
    stimulus: Arc<str>,
    tasks: TaskTable,
    groups: Groups,
    spans: Spans,
    /// In the order in which they came; removal keeps the order.
    workers: IdMap<WorkerId, Worker>,
    clients: IdMap<ClientId, Client>,
    /// The pseudo client whose keys nobody waits for.
    fire_and_forget: Option<ClientId>,
    /// Ready root tasks that no worker has a free slot for. All and only tasks in state queued.
    queued: Queue,
    /// Ready tasks that no worker may run, and since when. All and only tasks in state no-worker.
    unrunnable: BTreeMap<TaskId, Time>,
    /// Workers in state running.
    running: BTreeSet<WorkerId>,
    /// Running workers that have less to do than their threads or than half the mean.
    idle: BTreeSet<WorkerId>,
    /// Running workers with open slots for root tasks, the emptiest first.
    open: BTreeSet<(u64, WorkerId)>,
    /// Workers that have more to do than others.
    saturated: BTreeSet<WorkerId>,
    /// Threads of all workers.
    total_nthreads: u64,
    /// Threads of all workers since each moment at which they changed, for people.
    nthreads_history: VecDeque<(Time, u64)>,
    /// Tasks processing on all workers without the long-running ones, by prefix.
    prefix_counts: IdMap<PrefixId, u64>,
    /// Bytes that all workers still have to fetch.
    network_bytes: u64,
    /// Measured speed of transfers. Unit: bytes per second.
    bandwidth: f64,
    /// Tasks ever assigned; picks workers in turn.
    assigned: u64,
    next_run_id: i64,
    generation: f64,
    /// When the last generation began.
    generation_began: Option<Time>,
    thefts: Thefts,
    /// Where tasks of batches are to go that are not placed yet. Empty after a worker has come or gone.
    planned: IdMap<TaskId, WorkerId>,
    /// Results with more than one copy.
    replicated: IdSet<TaskId>,
    /// Whether it is looked for superfluous copies from time to time.
    memory_manager_runs: bool,
    retirements: Vec<Retirement>,
    copies: Copies,
    shuffles: IndexMap<Arc<str>, Shuffle, FxBuildHasher>,
    recommendations: Recommendations,
    /// What clients have sent that is not taken in yet.
    slices: Slices,
    actions: VecDeque<Action>,
    /// Keys to free by worker, sent together when the event has been handled.
    freed: IdMap<WorkerId, Vec<Key>>,
    timers: Timers,
    story: Story,
    /// Keys of which it is to be told when they are forgotten.
    watched: IndexSet<Key, FxBuildHasher>,
    observed: bool,
    /// No task is handed out: what becomes ready is queued or has no worker, whatever workers there are.
    draining: bool,
    graphs_observed: bool,
    /// Since when nothing has been to do.
    idle_since: Option<Time>,
    /// Since when tasks have been ready while no worker runs.
    no_workers_since: Option<Time>,
    /// Failed tasks are being tried again. False between events.
    retrying: bool,
}

impl Core {
    /// A scheduler without workers, clients and tasks.
    pub fn new(config: Config) -> Self {
        Self {
            now: Time::default(),
            stimulus: "start".into(),
            tasks: TaskTable::new(config.seed),
            groups: Self::groups_with_defaults(&config),
            spans: Spans::default(),
            workers: IdMap::default(),
            clients: IdMap::default(),
            fire_and_forget: None,
            queued: Queue::default(),
            unrunnable: BTreeMap::new(),
            running: BTreeSet::new(),
            idle: BTreeSet::new(),
            open: BTreeSet::new(),
            saturated: BTreeSet::new(),
            total_nthreads: 0,
            nthreads_history: VecDeque::new(),
            prefix_counts: IdMap::default(),
            network_bytes: 0,
            bandwidth: config.bandwidth,
            assigned: 0,
            next_run_id: 0,
            generation: 0.0,
            generation_began: None,
            thefts: Thefts::default(),
            planned: IdMap::default(),
            replicated: IdSet::default(),
            memory_manager_runs: config.active_memory_manager,
            retirements: Vec::new(),
            copies: Copies::default(),
            shuffles: IndexMap::default(),
            recommendations: Recommendations::default(),
            slices: Slices::default(),
            actions: VecDeque::new(),
            freed: IdMap::default(),
            timers: Timers::default(),
            story: Story::new(config.transition_log_length),
            watched: IndexSet::default(),
            observed: false,
            draining: false,
            graphs_observed: false,
            idle_since: Some(Time::default()),
            no_workers_since: None,
            retrying: false,
            config,
        }
    }

    fn groups_with_defaults(config: &Config) -> Groups {
        let mut groups = Groups::default();
        for (name, seconds) in &config.default_task_durations {
            groups.set_default_duration(name, *seconds);
        }
        groups
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.now = self.now.max(now);
        self.begin_slice();
        self.apply(event);
        self.run_recommendations();
        self.fill_open_slots();
        self.flush_freed_keys();
        self.note_idleness();
        self.note_absence();
        if self.config.validate
            && let Err(violation) = self.validate()
        {
            panic!("{violation}");
        }
    }

    /// The next thing to do, in the order in which it must be done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.slices.is_empty() {
            self.timers.next()
        } else {
            Some(self.now)
        }
    }

    /// Whether [`Action::Transitioned`] is wanted (progress bars and scheduler plugins ask for it).
    pub fn observe_transitions(&mut self, on: bool) {
        self.observed = on;
    }

    /// Whether [`Action::GraphUpdated`] shall say which tasks a graph has (scheduler plugins ask for it).
    pub fn observe_graphs(&mut self, on: bool) {
        self.graphs_observed = on;
    }

    /// Has [`Action::Forgotten`] given, once, when the task of this key is forgotten.
    pub fn watch_key(&mut self, key: Key) {
        self.watched.insert(key);
    }

    /// The task of a key, made in state released if it is new.
    fn task_or_placeholder(&mut self, key: &Key) -> TaskId {
        match self.tasks.find(key) {
            Some(id) => id,
            None => self.new_task(key.clone()),
        }
    }

    fn new_task(&mut self, key: Key) -> TaskId {
        let group = self.groups.group(&key.group(), || key.prefix());
        self.groups.add_task(group);
        self.tasks.insert(Task::new(key, group))
    }

    /// Puts a message about freed keys together with those of the same event for the same worker.
    fn free_key(&mut self, worker: WorkerId, key: Key) {
        if self.workers.contains_key(&worker) {
            self.freed.entry(worker).or_default().push(key);
        }
    }

    fn flush_freed_keys(&mut self) {
        for (worker, keys) in std::mem::take(&mut self.freed) {
            let stimulus_id = Arc::clone(&self.stimulus);
            self.actions.push_back(Action::FreeKeys {
                worker,
                keys,
                stimulus_id,
            });
        }
    }

    /// Sends what is to be freed on a worker before it gets the same key again.
    fn flush_freed_keys_of(&mut self, worker: WorkerId) {
        if let Some(keys) = self.freed.swap_remove(&worker) {
            let stimulus_id = Arc::clone(&self.stimulus);
            self.actions.push_back(Action::FreeKeys {
                worker,
                keys,
                stimulus_id,
            });
        }
    }

    fn note_idleness(&mut self) {
        if !self.has_nothing_to_do() {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(self.now);
        }
    }

    /// No task is queued, without a worker, or running.
    fn has_nothing_to_do(&self) -> bool {
        self.queued.is_empty()
            && self.slices.is_empty()
            && self.unrunnable.is_empty()
            && self.workers.values().all(|w| w.processing.is_empty())
    }
}
