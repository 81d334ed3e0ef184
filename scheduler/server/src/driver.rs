//! The only owner of the core: events go in, actions become messages.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use indexmap::IndexMap;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::action::{GraphUpdated, StealNote, Transition};
use oxidask_scheduler_core::event::WorkerStatus;
use oxidask_scheduler_core::{Action, ClientId, Config, Core, Event, RequestId, Time, WorkerId};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{debug, error};

use crate::aside::{Aside, Hook};
use crate::clock::{Clock, unix_time};
use crate::conn::outbox::Outbox;
use crate::graph_log::Coming;
use crate::observe::Observers;
use crate::peers::{ClientPeer, Clients, Held, Told, WorkerPeer, Workers};
use crate::translate::{to_client, to_worker};

/// What an action asks for that cannot be done in one go.
#[derive(Clone, Debug)]
pub enum Chore {
    /// A worker has been silent for too long: restart it through its nanny, or remove it.
    WorkerTimedOut(WorkerId),
    /// No worker could run these tasks in time, which is to be logged.
    NoWorkers(Vec<Key>),
}

/// The outcome of a retirement.
#[derive(Clone, Debug, Default)]
pub struct Retired {
    /// Workers that hold nothing unique any more.
    pub retired: Vec<WorkerId>,
    /// Workers whose data nobody could take.
    pub kept: Vec<WorkerId>,
}

/// Who hears of the outcome of a retirement.
#[derive(Debug)]
enum RetirementWaiter {
    /// Of all workers together.
    All(oneshot::Sender<Retired>),
    /// Of each worker as it comes, and whether it may go.
    Each(mpsc::UnboundedSender<(WorkerId, bool)>),
}

/// Holds the core and the tables of peers; all that happens goes through [`handle`](Self::handle).
#[derive(Debug)]
pub struct Driver {
    core: Core,
    clock: Clock,
    /// Registered workers.
    pub workers: Workers,
    /// Clients, and what wants keys like one.
    pub clients: Clients,
    /// What looks on: task stream, worker status subscribers.
    pub observers: Observers,
    chores: mpsc::UnboundedSender<Chore>,
    retirements: FxHashMap<RequestId, RetirementWaiter>,
    next_request: u64,
    /// The deadline that the timer task sleeps for.
    armed: Option<Time>,
    timer: Arc<Notify>,
    /// Hears of transitions while a plugin there wants to.
    aside: Aside,
    /// Graphs that are being taken in, by client and stimulus.
    coming: FxHashMap<(ClientId, Arc<str>), Coming>,
    /// Graphs that were taken in, and what became of them.
    graphs: Vec<(Coming, GraphUpdated)>,
    /// What is to be logged about tasks that move.
    steal_notes: Vec<StealNote>,
    /// Watched keys that were forgotten.
    forgotten: Vec<Key>,
    /// Counts changes of the set of workers and of their states.
    worker_changes: watch::Sender<u64>,
}

impl Driver {
    /// A driver of a fresh core. `timer` is told when [`next_deadline`](Self::next_deadline) comes nearer.
    pub fn new(
        config: Config,
        clock: Clock,
        chores: mpsc::UnboundedSender<Chore>,
        timer: Arc<Notify>,
        aside: Aside,
    ) -> Self {
        Self {
            core: Core::new(config),
            clock,
            workers: Workers::default(),
            clients: Clients::default(),
            observers: Observers::default(),
            chores,
            retirements: FxHashMap::default(),
            next_request: 0,
            armed: None,
            timer,
            aside,
            coming: FxHashMap::default(),
            graphs: Vec::new(),
            steal_notes: Vec::new(),
            forgotten: Vec::new(),
            worker_changes: watch::Sender::new(0),
        }
    }

    /// The core, to look at.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Takes one event in and does what the core asks for.
    pub fn handle(&mut self, event: Event) {
        self.handle_all([event]);
    }

    /// Takes events in, in order, and does what the core asks for.
    pub fn handle_all(&mut self, events: impl IntoIterator<Item = Event>) {
        let now = self.clock.now();
        // A panic is our bug and leaves the core half changed: better no scheduler than one that computes nonsense.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            for event in events {
                self.core.handle(now, event);
            }
            self.perform(now);
        }));
        if result.is_err() {
            error!("the scheduler's state is damaged by a panic (see above); giving up");
            std::process::exit(70);
        }
        let deadline = self.core.next_deadline();
        if deadline.is_some_and(|deadline| self.armed.is_none_or(|armed| deadline < armed)) {
            self.armed = deadline;
            self.timer.notify_one();
        }
    }

    /// When [`Event::Tick`] is due; the timer task asks, and is told by its `Notify` when the answer gets earlier.
    pub fn next_deadline(&mut self) -> Option<Time> {
        self.armed = self.core.next_deadline();
        self.armed
    }

    fn perform(&mut self, now: Time) {
        let mut stamp = Stamp::new(self.clock.unix(now));
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::ComputeTask(task) => {
                    if let Some(peer) = self.workers.get(task.worker) {
                        let stimulus_id = stamp.get("compute-task");
                        peer.outbox.send(|w| {
                            to_worker::compute_task(w, &task, &self.workers, peer, stimulus_id)
                        });
                    }
                }
                Action::FreeKeys {
                    worker,
                    keys,
                    stimulus_id,
                } => self.to_worker(worker, |w, _| {
                    to_worker::keys(w, "free-keys", &keys, &stimulus_id);
                }),
                Action::RemoveReplicas {
                    worker,
                    keys,
                    stimulus_id,
                } => self.to_worker(worker, |w, _| {
                    to_worker::keys(w, "remove-replicas", &keys, &stimulus_id);
                }),
                Action::AcquireReplicas {
                    worker,
                    keys,
                    stimulus_id,
                } => self.to_worker(worker, |w, workers| {
                    to_worker::acquire_replicas(w, &keys, workers, &stimulus_id);
                }),
                Action::StealRequest {
                    worker,
                    key,
                    stimulus_id,
                } => self.to_worker(worker, |w, _| {
                    to_worker::steal_request(w, &key, &stimulus_id);
                }),
                Action::RefreshWhoHas {
                    worker,
                    who_has,
                    stimulus_id,
                } => self.to_worker(worker, |w, workers| {
                    to_worker::refresh_who_has(w, &who_has, workers, &stimulus_id);
                }),
                Action::ChangeWorkerStatus {
                    worker,
                    status,
                    stimulus_id,
                } => self.to_worker(worker, |w, _| {
                    to_worker::status_change(w, status.as_str(), &stimulus_id);
                }),
                Action::AnnounceWorkerRemoved {
                    address,
                    stimulus_id,
                } => {
                    for peer in self.workers.iter() {
                        peer.outbox
                            .send(|w| to_worker::remove_worker(w, &address, &stimulus_id));
                    }
                }
                Action::ShuffleFail {
                    workers,
                    id,
                    run_id,
                    message,
                } => {
                    for worker in workers {
                        self.to_worker(worker, |w, _| {
                            to_worker::shuffle_fail(w, &id, run_id, &message)
                        });
                    }
                }
                Action::WorkerTimedOut { worker } => self.chore(Chore::WorkerTimedOut(worker)),
                Action::NoWorkersTimedOut { keys } => self.chore(Chore::NoWorkers(keys)),
                Action::Report { client, report } => self.tell(client, Told::Report(report)),
                Action::CancelledKeys {
                    client,
                    keys,
                    reason,
                    message,
                } => {
                    let connected = self.clients.connected().map(|(peer, _)| peer.id);
                    let clients = connected.filter(|id| client.is_none_or(|client| client == *id));
                    let told = Told::Cancelled {
                        keys,
                        reason,
                        message,
                    };
                    for id in clients.collect::<Vec<_>>() {
                        self.tell(id, told.clone());
                    }
                }
                Action::ReportRestart => {
                    // What was under way is forgotten with all else.
                    self.coming.clear();
                    self.clients.iter_mut().for_each(|peer| peer.held.clear());
                    for (_, outbox) in self.clients.connected() {
                        outbox.send(to_client::restart);
                    }
                }
                Action::WorkerRetired {
                    request,
                    worker,
                    may_go,
                } => {
                    if let Some(RetirementWaiter::Each(outcomes)) = self.retirements.get(&request) {
                        // The one who asked may be gone; the workers are retired all the same.
                        let _ = outcomes.send((worker, may_go));
                    }
                }
                Action::WorkersRetired {
                    request,
                    retired,
                    kept,
                } => {
                    if let Some(RetirementWaiter::All(waiter)) = self.retirements.remove(&request) {
                        let _ = waiter.send(Retired { retired, kept });
                    }
                }
                Action::Forgotten { key } => self.forgotten.push(key),
                Action::GraphUpdated(graph) => {
                    self.tell_graph(&graph);
                    let client = graph.client.unwrap_or(ClientId(0));
                    let coming = self
                        .coming
                        .remove(&(client, Arc::clone(&graph.stimulus_id)));
                    self.graphs.extend(coming.map(|coming| (coming, *graph)));
                }
                Action::StealNoted(note) => self.steal_notes.push(*note),
                Action::Transitioned(transition) => self.tell_transition(&transition),
            }
        }
    }

    fn tell_transition(&self, transition: &Transition) {
        let mut kwargs = vec![("stimulus_id", Value::from(&*transition.stimulus_id))];
        if let Some(peer) = transition.worker.and_then(|id| self.workers.get(id)) {
            kwargs.push(("worker", (&*peer.address).into()));
        }
        let args = vec![
            Value::from(&transition.key),
            transition.start.as_str().into(),
            transition.finish.as_str().into(),
        ];
        self.aside.tell(Hook::Transition, args, kwargs);
    }

    /// Tells plugins of a graph, before they hear of what becomes of its tasks.
    fn tell_graph(&self, graph: &GraphUpdated) {
        if graph.refused || !self.aside.wants(Hook::UpdateGraph) {
            return;
        }
        let client = graph.client.and_then(|id| self.clients.get(id));
        let keys = |keys: &[Key]| Value::array(keys.iter().map(Value::from));
        let views = || graph.touched.iter().filter_map(|key| self.core.task(key));
        let mut annotations: IndexMap<String, Vec<(Value, Value)>> = IndexMap::new();
        for view in views() {
            let given = view.annotations.as_ref().and_then(|a| a.raw.as_map());
            for (name, value) in given.unwrap_or_default() {
                if let Some(name) = name.as_str() {
                    let entry = annotations.entry(name.to_owned()).or_default();
                    entry.push((Value::from(&view.key), value.clone()));
                }
            }
        }
        let priority = |(user, generation, order): (f64, f64, i64)| {
            Value::Array(vec![user.into(), generation.into(), order.into()])
        };
        let priorities = views()
            .map(|view| (Value::from(&view.key), view.priority.map(priority).into()))
            .collect();
        let annotations = annotations
            .into_iter()
            .map(|(name, values)| (Value::from(name), Value::Map(values)))
            .collect();
        let kwargs = vec![
            ("client", client.map(|client| &*client.name).into()),
            ("tasks", keys(&graph.touched)),
            ("keys", keys(&graph.wanted)),
            ("annotations", Value::Map(annotations)),
            ("priority", Value::Map(priorities)),
            ("stimulus_id", (&*graph.stimulus_id).into()),
        ];
        self.aside.tell(Hook::UpdateGraph, Vec::new(), kwargs);
    }

    /// Has transitions and graphs reported to plugins, or no longer.
    pub fn observe(&mut self, transitions: bool, graphs: bool) {
        self.core.observe_transitions(transitions);
        self.core.observe_graphs(graphs);
    }

    /// A graph of this client and stimulus is about to be handed in.
    pub fn graph_comes(&mut self, client: ClientId, stimulus_id: Arc<str>, coming: Coming) {
        self.coming.insert((client, stimulus_id), coming);
    }

    /// The graphs that were taken in since the last call, and what became of them.
    pub fn take_graphs(&mut self) -> Vec<(Coming, GraphUpdated)> {
        std::mem::take(&mut self.graphs)
    }

    /// What is to be logged about tasks that moved since the last call.
    pub fn take_steal_notes(&mut self) -> Vec<StealNote> {
        std::mem::take(&mut self.steal_notes)
    }

    /// Has [`take_forgotten`](Self::take_forgotten) say so once the task of this key is forgotten.
    pub fn watch_key(&mut self, key: Key) {
        self.core.watch_key(key);
    }

    /// Watched keys that were forgotten since the last call.
    pub fn take_forgotten(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.forgotten)
    }

    fn to_worker(
        &self,
        worker: WorkerId,
        write: impl FnOnce(&mut oxidask_protocol::msgpack::Writer, &Workers),
    ) {
        match self.workers.get(worker) {
            Some(peer) => peer.outbox.send(|w| write(w, &self.workers)),
            None => debug!(?worker, "message to a worker that is gone"),
        }
    }

    /// Tells a client, unless what it sent before is to be taken in first.
    fn tell(&mut self, client: ClientId, told: Told) {
        let Some(peer) = self.clients.get_mut(client) else {
            return;
        };
        let Some(told) = peer.held.keep(told) else {
            return;
        };
        if let Some(outbox) = &peer.outbox {
            outbox.send(|w| to_client::told(w, &told));
        }
    }

    /// A client has sent a graph, which is being opened.
    pub fn graph_opens(&mut self, client: ClientId) {
        if let Some(peer) = self.clients.get_mut(client) {
            peer.held.graph_came();
        }
    }

    /// A graph of a client was taken in, or failed. The client is told what had to wait for it.
    pub fn graph_opened(&mut self, client: ClientId) {
        let Some(peer) = self.clients.get_mut(client) else {
            return;
        };
        let reports = peer.held.graph_opened();
        if let Some(outbox) = &peer.outbox {
            for report in &reports {
                outbox.send(|w| to_client::told(w, report));
            }
        }
    }

    /// Has something done that takes time.
    pub fn chore(&self, chore: Chore) {
        // The receiver lives as long as the server.
        let _ = self.chores.send(chore);
    }

    /// Takes a worker in. Its address and name must be free.
    pub fn add_worker(&mut self, peer: WorkerPeer, status: WorkerStatus) {
        let event = Event::WorkerAdded(oxidask_scheduler_core::event::NewWorker {
            worker: peer.id,
            address: Arc::clone(&peer.address),
            name: crate::peers::PeerName::from_value(&peer.name)
                .map_or_else(|| Arc::clone(&peer.address), |name| name.text().into()),
            host: Arc::clone(&peer.host),
            nthreads: u32::try_from(peer.nthreads).unwrap_or(u32::MAX),
            memory_limit: peer.memory_limit,
            resources: peer.resources.clone(),
            status,
        });
        self.workers.insert(peer);
        self.handle(event);
        self.workers_changed();
    }

    /// Takes a worker out. `close`: tells it to shut down. False if it was gone already.
    pub fn remove_worker(
        &mut self,
        worker: WorkerId,
        expected: bool,
        close: bool,
        stimulus_id: &str,
    ) -> bool {
        let Some(peer) = self.workers.remove(worker) else {
            return false;
        };
        if close {
            peer.outbox
                .send(|w| to_worker::close(w, "scheduler-remove-worker"));
        }
        self.handle(Event::WorkerRemoved {
            worker,
            expected,
            stimulus_id: stimulus_id.into(),
        });
        self.observers.worker_removed(&peer.address);
        self.workers_changed();
        true
    }

    /// Notes that a worker is in another state.
    pub fn worker_status(&mut self, worker: WorkerId, status: WorkerStatus) {
        self.handle(Event::WorkerStatusChanged { worker, status });
        self.workers_changed();
    }

    fn workers_changed(&self) {
        self.worker_changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes whenever a worker comes, goes or changes its state.
    pub fn watch_workers(&self) -> watch::Receiver<u64> {
        self.worker_changes.subscribe()
    }

    /// Takes a client in, or gives the stream of a known name a new owner.
    pub fn add_client(
        &mut self,
        name: &str,
        outbox: Option<Arc<Outbox>>,
        versions: Value,
    ) -> ClientId {
        let id = self.clients.next_id();
        let name: Arc<str> = name.into();
        self.clients.insert(ClientPeer {
            id,
            name: Arc::clone(&name),
            outbox,
            versions,
            last_seen: unix_time(),
            held: Held::default(),
        });
        self.aside
            .tell(Hook::AddClient, vec![(&*name).into()], Vec::new());
        self.handle(Event::ClientAdded { client: id, name });
        id
    }

    /// The client of this name; it comes into being where it does not exist.
    pub fn client(&mut self, name: &str) -> ClientId {
        match self.clients.by_name(name) {
            Some(peer) => peer.id,
            None => self.add_client(name, None, Value::Nil),
        }
    }

    /// Takes a client out; what it wanted is released.
    pub fn remove_client(&mut self, client: ClientId) {
        if let Some(peer) = self.clients.remove(client) {
            self.coming.retain(|(of, _), _| *of != client);
            self.handle(Event::ClientRemoved { client });
            self.aside
                .tell(Hook::RemoveClient, vec![(&*peer.name).into()], Vec::new());
        }
    }

    /// Asks the core to retire workers; the answer comes when their data have moved.
    pub fn retire(
        &mut self,
        workers: Vec<WorkerId>,
        stimulus_id: &str,
    ) -> oneshot::Receiver<Retired> {
        let (sender, receiver) = oneshot::channel();
        self.begin_retirement(workers, stimulus_id, RetirementWaiter::All(sender));
        receiver
    }

    /// Asks the core to retire workers. Each that has its outcome comes with whether it may go; those that leave by
    /// themselves meanwhile do not come. The receiver ends after the last.
    pub fn retire_each(
        &mut self,
        workers: Vec<WorkerId>,
        stimulus_id: &str,
    ) -> mpsc::UnboundedReceiver<(WorkerId, bool)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.begin_retirement(workers, stimulus_id, RetirementWaiter::Each(sender));
        receiver
    }

    fn begin_retirement(
        &mut self,
        workers: Vec<WorkerId>,
        stimulus_id: &str,
        waiter: RetirementWaiter,
    ) {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.retirements.insert(request, waiter);
        self.handle(Event::RetireWorkers {
            request,
            workers,
            stimulus_id: stimulus_id.into(),
        });
        self.workers_changed();
    }

    /// Whether a worker takes tasks.
    pub fn is_running(&self, worker: WorkerId) -> bool {
        self.core
            .worker(worker)
            .is_some_and(|view| view.status == WorkerStatus::Running)
    }

    /// Addresses of the holders of a key.
    pub fn holders(&self, key: &Key) -> Vec<Arc<str>> {
        self.core
            .who_has(key)
            .into_iter()
            .filter_map(|worker| self.workers.get(worker))
            .map(|peer| Arc::clone(&peer.address))
            .collect()
    }

    /// Turns the core's time into Unix seconds.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// Stimulus ids of one round, each text made at most once.
struct Stamp {
    unix: f64,
    text: Option<(&'static str, String)>,
}

impl Stamp {
    fn new(unix: f64) -> Self {
        Self { unix, text: None }
    }

    fn get(&mut self, what: &'static str) -> &str {
        if self.text.as_ref().is_none_or(|(known, _)| *known != what) {
            self.text = Some((what, format!("{what}-{}", self.unix)));
        }
        self.text.as_ref().map_or("", |(_, text)| text)
    }
}
