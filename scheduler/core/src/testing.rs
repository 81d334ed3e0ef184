//! A core that checks itself after every event, and short words for events and actions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use oxidask_protocol::{Key, Payload, Value};

use crate::action::{Action, ComputeTask, Report, TaskStateName};
use crate::event::{
    Actors, Annotations, Event, NewTask, NewWorker, TaskErred, TaskError, TaskFinished, TaskRole,
    UpdateGraph, WorkerStatus,
};
use crate::{ClientId, Config, Core, Time, WorkerId};

/// A core driven by a test. Panics when an event breaks an invariant.
#[derive(Debug)]
pub struct TestCore {
    /// The core.
    pub core: Core,
    now: Time,
    /// Tasks that were sent to workers and not answered, by key.
    pub sent: BTreeMap<Key, ComputeTask>,
    /// Tasks that workers were asked to give back: worker, key, stimulus.
    pub steals: Vec<(WorkerId, Key, Arc<str>)>,
    actions: Vec<Action>,
}

impl Default for TestCore {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

/// A task of a test graph: its key and those that it needs.
pub fn task(key: &str, dependencies: &[&str]) -> NewTask {
    NewTask {
        key: Key::from(key),
        run_spec: Payload::pickled(b"N.", Vec::new()).expect("a small pickle"),
        dependencies: dependencies.iter().map(|key| Key::from(*key)).collect(),
        order: 0,
        data_producer: false,
        annotations: None,
        role: TaskRole::Plain,
    }
}

/// A task with annotations.
pub fn annotated(mut task: NewTask, annotations: Annotations) -> NewTask {
    task.annotations = Some(Arc::new(annotations));
    task
}

impl TestCore {
    /// Without workers and clients.
    pub fn new(config: Config) -> Self {
        let core = Core::new(config);
        Self {
            core,
            now: Time::default(),
            sent: BTreeMap::new(),
            steals: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Sends an event, checks the state, and keeps the actions; then ticks, until all that clients have sent is taken in.
    pub fn send(&mut self, event: Event) {
        self.send_only(event);
        while self.core.has_slices() {
            self.send_only(Event::Tick);
        }
    }

    /// Sends an event, checks the state, and keeps the actions.
    pub fn send_only(&mut self, event: Event) {
        self.now = self.now + Duration::from_micros(100);
        let shown: String = format!("{event:?}").chars().take(2000).collect();
        self.core.handle(self.now, event);
        while let Some(action) = self.core.poll_action() {
            match &action {
                Action::ComputeTask(compute) => {
                    for (key, holders, _) in &compute.dependencies {
                        assert!(
                            !holders.is_empty(),
                            "{} is sent, but nobody holds {key}",
                            compute.key
                        );
                    }
                    self.sent.insert(compute.key.clone(), (**compute).clone());
                }
                Action::StealRequest {
                    worker,
                    key,
                    stimulus_id,
                } => {
                    self.steals
                        .push((*worker, key.clone(), Arc::clone(stimulus_id)));
                }
                Action::FreeKeys { worker, keys, .. } => {
                    for key in keys {
                        if self
                            .sent
                            .get(key)
                            .is_some_and(|sent| sent.worker == *worker)
                        {
                            self.sent.remove(key);
                        }
                    }
                }
                _ => {}
            }
            self.actions.push(action);
        }
        if let Err(violation) = self.core.validate() {
            panic!("{violation}\nafter {shown}");
        }
    }

    /// Lets time pass, unnoticed until the next event.
    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// Lets time pass and reports what is due.
    pub fn wait(&mut self, duration: Duration) {
        self.pass(duration);
        self.send(Event::Tick);
    }

    /// Adds a worker that runs.
    pub fn worker(mut self, id: u32, nthreads: u32) -> Self {
        self.add_worker(id, nthreads);
        self
    }

    /// Adds a worker that runs.
    pub fn add_worker(&mut self, id: u32, nthreads: u32) {
        self.send(Event::WorkerAdded(new_worker(id, nthreads)));
    }

    /// Adds a client.
    pub fn client(mut self, id: u32) -> Self {
        self.send(Event::ClientAdded {
            client: ClientId(id),
            name: format!("Client-{id}").into(),
        });
        self
    }

    /// A client submits tasks and wants some of them.
    pub fn submit(&mut self, client: u32, tasks: Vec<NewTask>, wanted: &[&str]) {
        let mut tasks = tasks;
        for (i, task) in tasks.iter_mut().enumerate() {
            task.order = i as i64;
        }
        self.send(Event::UpdateGraph(UpdateGraph {
            client: ClientId(client),
            tasks,
            wanted: wanted.iter().map(|key| Key::from(*key)).collect(),
            submitting_task: None,
            fifo_timeout: Duration::ZERO,
            actors: Actors::None,
            user_priority: 0.0,
            span_metadata: None,
            code: None,
            stimulus_id: "update-graph".into(),
        }));
    }

    /// The worker of a task that was sent finishes it.
    pub fn finish(&mut self, key: &str) {
        let sent = self
            .sent
            .remove(&Key::from(key))
            .unwrap_or_else(|| panic!("{key} was not sent"));
        self.send(finished(&sent));
    }

    /// The worker of a task that was sent reports an exception.
    pub fn fail(&mut self, key: &str) {
        let sent = self
            .sent
            .remove(&Key::from(key))
            .unwrap_or_else(|| panic!("{key} was not sent"));
        self.send(erred(&sent));
    }

    /// Finishes tasks until none is left that was sent.
    pub fn finish_all(&mut self) {
        while let Some(key) = self.sent.keys().next().cloned() {
            let sent = self.sent.remove(&key).expect("taken from the map");
            self.send(finished(&sent));
        }
    }

    /// A worker answers the oldest steal request: it gives the task up, or has begun it.
    pub fn answer_steal(&mut self, give: bool) {
        if self.steals.is_empty() {
            return;
        }
        let (worker, key, stimulus_id) = self.steals.remove(0);
        let has_it = self
            .sent
            .get(&key)
            .is_some_and(|sent| sent.worker == worker);
        let state = match (has_it, give) {
            (true, true) => Some("ready".to_owned()),
            (true, false) => Some("executing".to_owned()),
            (false, _) => None,
        };
        if has_it && give {
            self.sent.remove(&key);
        }
        self.send(Event::StealResponded {
            worker,
            key,
            state,
            stimulus_id,
        });
    }

    /// A client no longer wants keys.
    pub fn release(&mut self, client: u32, keys: &[&str]) {
        let keys = keys.iter().map(|key| Key::from(*key)).collect();
        self.send(Event::ClientReleasesKeys {
            client: ClientId(client),
            keys,
        });
    }

    /// A worker dies.
    pub fn lose_worker(&mut self, id: u32) {
        self.sent.retain(|_, sent| sent.worker != WorkerId(id));
        let event = Event::WorkerRemoved {
            worker: WorkerId(id),
            expected: false,
            stimulus_id: "lost".into(),
        };
        self.send(event);
    }

    /// The state of a task, `Forgotten` if it is not known.
    pub fn state(&self, key: &str) -> TaskStateName {
        self.core
            .task_state(&Key::from(key))
            .unwrap_or(TaskStateName::Forgotten)
    }

    /// The worker that a task was sent to.
    pub fn worker_of(&self, key: &str) -> Option<u32> {
        self.sent.get(&Key::from(key)).map(|sent| sent.worker.0)
    }

    /// The actions since the last call.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// What the client was told since the last look at the actions, in short words.
    pub fn reports(&mut self) -> Vec<String> {
        let short = |action: &Action| match action {
            Action::Report { client, report } => Some(match report {
                Report::InMemory { key, .. } => format!("{}: {key} in memory", client.0),
                Report::Erred { key, error } => {
                    format!("{}: {key} erred: {}", client.0, error.exception_text)
                }
                Report::LostData { key } => format!("{}: {key} lost", client.0),
                Report::Retried { key } => format!("{}: {key} retried", client.0),
            }),
            Action::CancelledKeys { keys, reason, .. } => {
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                Some(format!(
                    "cancelled {}: {}",
                    keys.join(" "),
                    reason.as_deref().unwrap_or("-")
                ))
            }
            _ => None,
        };
        self.take_actions().iter().filter_map(short).collect()
    }
}

/// A worker at `tcp://w<id>:1` that runs.
pub fn new_worker(id: u32, nthreads: u32) -> NewWorker {
    NewWorker {
        worker: WorkerId(id),
        address: format!("tcp://w{id}:1").into(),
        name: format!("w{id}").into(),
        host: format!("w{id}").into(),
        nthreads,
        memory_limit: 0,
        resources: Vec::new(),
        status: WorkerStatus::Running,
    }
}

/// The answer to a task that was sent: a result of 100 bytes after a second.
pub fn finished(sent: &ComputeTask) -> Event {
    Event::TaskFinished(TaskFinished {
        worker: sent.worker,
        key: sent.key.clone(),
        run_id: sent.run_id,
        nbytes: Some(100),
        type_: None,
        typename: "int".into(),
        compute: Some(1.0),
        other: Vec::new(),
        stimulus_id: "task-finished".into(),
    })
}

/// The answer to a task that was sent: an exception.
pub fn erred(sent: &ComputeTask) -> Event {
    let error = TaskError {
        exception: Value::Nil,
        traceback: Value::Nil,
        exception_text: format!("{} failed", sent.key),
        traceback_text: String::new(),
    };
    Event::TaskErred(TaskErred {
        worker: sent.worker,
        key: sent.key.clone(),
        run_id: sent.run_id,
        error: Arc::new(error),
        stimulus_id: "task-erred".into(),
    })
}
