//! Random lives of a cluster: workers and clients that join, leave, fail and answer late.
//!
//! After every event all invariants hold. When the storm is over and a worker is there, every key that a client
//! wants ends in memory or erred. Equal events give equal actions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oxidask_protocol::Key;
use oxidask_scheduler_core::action::{ComputeTask, TaskStateName};
use oxidask_scheduler_core::event::{Annotations, Event, NewTask, WorkerStatus};
use oxidask_scheduler_core::testing::{TestCore, annotated, erred, finished, task};
use oxidask_scheduler_core::{Action, ClientId, Config, RequestId, WorkerId};
use proptest::prelude::*;

/// One thing that happens; numbers are taken modulo what exists.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        client: u8,
        first: u8,
        shape: Vec<(u8, u8)>,
        wanted: u8,
        retries: u8,
    },
    Release {
        client: u8,
        key: u8,
    },
    Desire {
        client: u8,
        key: u8,
    },
    Cancel {
        client: u8,
        key: u8,
        force: bool,
    },
    Retry {
        key: u8,
    },
    Scatter {
        client: u8,
        key: u8,
        worker: u8,
    },
    AddWorker {
        threads: u8,
    },
    LoseWorker {
        worker: u8,
        expected: bool,
    },
    Pause {
        worker: u8,
    },
    Resume {
        worker: u8,
    },
    Finish {
        run: u8,
    },
    Fail {
        run: u8,
    },
    Reschedule {
        run: u8,
    },
    Secede {
        run: u8,
    },
    /// A run that was answered or taken back before is answered again.
    Late {
        run: u8,
        erred: bool,
    },
    Fetched {
        key: u8,
        worker: u8,
    },
    DataReleased {
        key: u8,
        worker: u8,
    },
    Missing {
        key: u8,
        worker: u8,
    },
    Retire {
        worker: u8,
    },
    AnswerSteal {
        give: bool,
    },
    Drain {
        on: bool,
    },
    RemoveClient {
        client: u8,
    },
    Restart,
    /// A slice of what is put by.
    Slice,
    Wait {
        seconds: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let n = any::<u8>;
    prop_oneof![
        6 => (0_u8..3, n(), prop::collection::vec((n(), n()), 1..12), n(), 0_u8..3)
            .prop_map(|(client, first, shape, wanted, retries)| Step::Submit { client, first, shape, wanted, retries }),
        3 => (0_u8..3, n()).prop_map(|(client, key)| Step::Release { client, key }),
        1 => (0_u8..3, n()).prop_map(|(client, key)| Step::Desire { client, key }),
        1 => (0_u8..3, n(), any::<bool>()).prop_map(|(client, key, force)| Step::Cancel { client, key, force }),
        1 => n().prop_map(|key| Step::Retry { key }),
        1 => (0_u8..3, n(), n()).prop_map(|(client, key, worker)| Step::Scatter { client, key, worker }),
        2 => (1_u8..4).prop_map(|threads| Step::AddWorker { threads }),
        2 => (n(), any::<bool>()).prop_map(|(worker, expected)| Step::LoseWorker { worker, expected }),
        1 => n().prop_map(|worker| Step::Pause { worker }),
        1 => n().prop_map(|worker| Step::Resume { worker }),
        12 => n().prop_map(|run| Step::Finish { run }),
        2 => n().prop_map(|run| Step::Fail { run }),
        1 => n().prop_map(|run| Step::Reschedule { run }),
        1 => n().prop_map(|run| Step::Secede { run }),
        2 => (n(), any::<bool>()).prop_map(|(run, erred)| Step::Late { run, erred }),
        2 => (n(), n()).prop_map(|(key, worker)| Step::Fetched { key, worker }),
        1 => (n(), n()).prop_map(|(key, worker)| Step::DataReleased { key, worker }),
        1 => (n(), n()).prop_map(|(key, worker)| Step::Missing { key, worker }),
        1 => n().prop_map(|worker| Step::Retire { worker }),
        3 => any::<bool>().prop_map(|give| Step::AnswerSteal { give }),
        1 => (0_u8..3).prop_map(|client| Step::RemoveClient { client }),
        1 => any::<bool>().prop_map(|on| Step::Drain { on }),
        1 => Just(Step::Restart),
        4 => Just(Step::Slice),
        1 => (0_u8..200).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

const KEYS: u8 = 24;

struct Model {
    t: TestCore,
    workers: Vec<u32>,
    clients: BTreeSet<u8>,
    /// Every run that was ever sent.
    runs: Vec<ComputeTask>,
    next_worker: u32,
    retirements: u64,
    log: Vec<Action>,
}

fn name(key: u8) -> String {
    // Several keys share a group, so that some groups count as roots.
    format!("('g{}-1', {})", key % 3, key % KEYS)
}

impl Model {
    fn new(saturation: f64) -> Self {
        Self::in_slices(saturation, Config::default().slice)
    }

    /// As [`new`](Self::new), with graphs and releases of more than `slice` taken in one tick after the other.
    fn in_slices(saturation: f64, slice: usize) -> Self {
        let config = Config {
            slice,
            worker_saturation: saturation,
            worker_ttl: None,
            ..Config::default()
        };
        let mut model = Self {
            t: TestCore::new(config),
            workers: Vec::new(),
            clients: BTreeSet::new(),
            runs: Vec::new(),
            next_worker: 0,
            retirements: 0,
            log: Vec::new(),
        };
        for client in 0..3 {
            model.join(client);
        }
        model
    }

    fn join(&mut self, client: u8) {
        if self.clients.insert(client) {
            let name = format!("Client-{client}").into();
            self.send(Event::ClientAdded {
                client: ClientId(client.into()),
                name,
            });
        }
    }

    fn send(&mut self, event: Event) {
        // Where graphs are taken in by slices, other things happen in between.
        self.t.send_only(event);
        self.keep_actions();
    }

    fn keep_actions(&mut self) {
        for action in self.t.take_actions() {
            if let Action::ComputeTask(compute) = &action {
                self.runs.push((**compute).clone());
            }
            self.log.push(action);
        }
    }

    fn pick_worker(&self, n: u8) -> Option<u32> {
        (!self.workers.is_empty()).then(|| self.workers[usize::from(n) % self.workers.len()])
    }

    fn pick_run(&mut self, n: u8) -> Option<ComputeTask> {
        let keys: Vec<Key> = self.t.sent.keys().cloned().collect();
        let key = keys.get(usize::from(n) % keys.len().max(1))?;
        self.t.sent.get(key).cloned()
    }

    fn add_worker(&mut self, threads: u8) {
        let id = self.next_worker;
        self.next_worker += 1;
        self.workers.push(id);
        self.send(Event::WorkerAdded(
            oxidask_scheduler_core::testing::new_worker(id, threads.into()),
        ));
    }

    fn lose_worker(&mut self, id: u32, expected: bool) {
        self.workers.retain(|worker| *worker != id);
        self.t.sent.retain(|_, sent| sent.worker != WorkerId(id));
        self.send(Event::WorkerRemoved {
            worker: WorkerId(id),
            expected,
            stimulus_id: "remove".into(),
        });
    }

    fn submit(&mut self, client: u8, first: u8, shape: &[(u8, u8)], wanted: u8, retries: u8) {
        let mut tasks: BTreeMap<u8, NewTask> = BTreeMap::new();
        for (i, (a, b)) in shape.iter().enumerate() {
            let number = first.wrapping_add(i as u8) % KEYS;
            // Edges point to smaller numbers, so there are no cycles, also across graphs.
            let mut needs: Vec<String> = [*a, *b]
                .iter()
                .filter(|n| **n % KEYS < number)
                .map(|n| name(*n % KEYS))
                .collect();
            needs.sort();
            needs.dedup();
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            let annotations = Annotations {
                retries: retries.into(),
                ..Annotations::default()
            };
            tasks.insert(number, annotated(task(&name(number), &needs), annotations));
        }
        let wanted: Vec<Key> = tasks
            .keys()
            .filter(|number| (**number ^ wanted).is_multiple_of(3))
            .map(|number| Key::from(name(*number)))
            .collect();
        self.join(client);
        self.t.core.observe_transitions(true);
        self.send(Event::UpdateGraph(
            oxidask_scheduler_core::event::UpdateGraph {
                client: ClientId(client.into()),
                tasks: tasks
                    .into_values()
                    .enumerate()
                    .map(|(i, task)| NewTask {
                        order: i as i64,
                        ..task
                    })
                    .collect(),
                wanted,
                submitting_task: None,
                fifo_timeout: Duration::ZERO,
                actors: Default::default(),
                user_priority: 0.0,
                span_metadata: None,
                code: None,
                stimulus_id: "update-graph".into(),
            },
        ));
    }

    fn run(&mut self, step: &Step) {
        let key = |n: u8| Key::from(name(n % KEYS));
        match step.clone() {
            Step::Submit {
                client,
                first,
                shape,
                wanted,
                retries,
            } => self.submit(client, first, &shape, wanted, retries),
            Step::Release { client, key: k } => {
                self.send(Event::ClientReleasesKeys {
                    client: ClientId(client.into()),
                    keys: vec![key(k)],
                });
            }
            Step::Desire { client, key: k } => {
                self.send(Event::ClientDesiresKeys {
                    client: ClientId(client.into()),
                    keys: vec![key(k)],
                });
            }
            Step::Cancel {
                client,
                key: k,
                force,
            } => self.send(Event::CancelKeys {
                client: ClientId(client.into()),
                keys: vec![key(k)],
                force,
                reason: None,
                message: None,
            }),
            Step::Retry { key: k } => self.send(Event::RetryKeys { keys: vec![key(k)] }),
            Step::Scatter {
                client,
                key: k,
                worker,
            } => {
                let Some(worker) = self.pick_worker(worker) else {
                    return;
                };
                let client = self
                    .clients
                    .contains(&client)
                    .then(|| ClientId(client.into()));
                self.send(Event::DataAdded {
                    client,
                    data: vec![(key(k), 10, vec![WorkerId(worker)])],
                });
            }
            Step::AddWorker { threads } => self.add_worker(threads),
            Step::LoseWorker { worker, expected } => {
                if let Some(worker) = self.pick_worker(worker) {
                    self.lose_worker(worker, expected);
                }
            }
            Step::Pause { worker } => self.set_status(worker, WorkerStatus::Paused),
            Step::Resume { worker } => self.set_status(worker, WorkerStatus::Running),
            Step::Finish { run } => {
                if let Some(run) = self.pick_run(run) {
                    self.t.sent.remove(&run.key);
                    self.send(finished(&run));
                }
            }
            Step::Fail { run } => {
                if let Some(run) = self.pick_run(run) {
                    self.t.sent.remove(&run.key);
                    self.send(erred(&run));
                }
            }
            Step::Reschedule { run } => {
                if let Some(run) = self.pick_run(run) {
                    self.t.sent.remove(&run.key);
                    self.send(Event::Rescheduled {
                        worker: run.worker,
                        key: run.key,
                    });
                }
            }
            Step::Secede { run } => {
                if let Some(run) = self.pick_run(run) {
                    let ComputeTask {
                        worker,
                        key,
                        run_id,
                        ..
                    } = run;
                    self.send(Event::LongRunning {
                        worker,
                        key,
                        run_id: Some(run_id),
                        compute_duration: Some(0.1),
                    });
                }
            }
            Step::Late { run, erred: failed } => {
                let Some(run) = self
                    .runs
                    .get(usize::from(run) % self.runs.len().max(1))
                    .cloned()
                else {
                    return;
                };
                // A worker answers each run once; the present run is left to Finish.
                let present = self
                    .t
                    .sent
                    .get(&run.key)
                    .is_some_and(|sent| sent.run_id == run.run_id);
                if !present {
                    self.send(if failed { erred(&run) } else { finished(&run) });
                }
            }
            Step::Fetched { key: k, worker } => {
                if let Some(worker) = self.pick_worker(worker) {
                    let keys = vec![key(k)];
                    self.send(Event::KeysAdded {
                        worker: WorkerId(worker),
                        keys,
                        stimulus_id: "add-keys".into(),
                    });
                }
            }
            Step::DataReleased { key: k, worker } => {
                if let Some(worker) = self.pick_worker(worker) {
                    self.send(Event::WorkerDataReleased {
                        worker: WorkerId(worker),
                        key: key(k),
                    });
                }
            }
            Step::Missing { key: k, worker } => {
                if let Some(worker) = self.pick_worker(worker) {
                    self.send(Event::ReplicasMissing {
                        missing: vec![(key(k), WorkerId(worker))],
                    });
                }
            }
            Step::Retire { worker } => {
                if let Some(worker) = self.pick_worker(worker) {
                    self.retirements += 1;
                    let request = RequestId(self.retirements);
                    let workers = vec![WorkerId(worker)];
                    self.send(Event::RetireWorkers {
                        request,
                        workers,
                        stimulus_id: "retire".into(),
                    });
                }
            }
            Step::RemoveClient { client } => {
                if self.clients.remove(&client) {
                    self.send(Event::ClientRemoved {
                        client: ClientId(client.into()),
                    });
                }
            }
            Step::AnswerSteal { give } => {
                self.t.answer_steal(give);
                self.keep_actions();
            }
            Step::Drain { on } => self.send(Event::DrainingSet { draining: on }),
            Step::Restart => self.send(Event::Restart),
            Step::Wait { seconds } => {
                self.t.pass(Duration::from_secs(seconds.into()));
                self.send(Event::Tick);
            }
            Step::Slice => self.send(Event::Tick),
        }
    }

    fn set_status(&mut self, worker: u8, status: WorkerStatus) {
        if let Some(worker) = self.pick_worker(worker) {
            self.send(Event::WorkerStatusChanged {
                worker: WorkerId(worker),
                status,
            });
        }
    }

    fn tick(&mut self) {
        while self.t.core.has_slices() {
            self.send(Event::Tick);
        }
    }

    /// The storm is over: a fresh worker comes, and every run is answered.
    fn settle(&mut self) {
        self.tick();
        self.send(Event::DrainingSet { draining: false });
        self.add_worker(2);
        for _ in 0..10_000 {
            let Some(run) = self.pick_run(0) else { break };
            self.t.sent.remove(&run.key);
            self.send(finished(&run));
        }
        assert!(self.t.sent.is_empty(), "tasks are sent again and again");
    }
}

proptest! {
    #[test]
    fn whatever_happens_invariants_hold_and_wanted_keys_end(
        steps in prop::collection::vec(step(), 1..120),
        infinite in any::<bool>(),
        slice in prop_oneof![Just(1_000_usize), 1_usize..4],
    ) {
        let saturation = if infinite { f64::INFINITY } else { 1.1 };
        let mut model = Model::in_slices(saturation, slice);
        for step in &steps {
            model.run(step);
        }
        model.settle();
        for client in model.clients.clone() {
            for key in model.t.core.wanted_keys(ClientId(client.into())) {
                let task = model.t.core.task(&key).expect("a wanted key is known");
                let ended = matches!(task.state, TaskStateName::Memory | TaskStateName::Erred);
                let undefined = task.run_spec.is_none() && task.state == TaskStateName::Released;
                prop_assert!(ended || undefined, "{key} ends as {:?}", task.state);
            }
        }
    }

    #[test]
    fn equal_events_give_equal_actions(steps in prop::collection::vec(step(), 1..60)) {
        let log = |steps: &[Step]| {
            let mut model = Model::new(1.1);
            for step in steps {
                model.run(step);
            }
            model.settle();
            model.log
        };
        prop_assert_eq!(log(&steps), log(&steps));
    }
}
