//! Any order of events keeps the invariants, ends, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oxidask_worker_core::{Action, ComputeTask, Config, EventKind, Key, Message, Priority};
use proptest::prelude::*;
use support::{TestCore, address, error, key, run_spec};

const TASKS: u8 = 8;
const PEERS: u8 = 3;

/// A step of the scheduler, of a peer or of the executor. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Compute {
        task: u8,
        dependencies: Vec<(u8, u8)>,
        resource: bool,
        priority: i8,
    },
    Free(Vec<u8>),
    RemoveReplicas(u8),
    Acquire {
        task: u8,
        peer: u8,
    },
    Steal(u8),
    Refresh {
        task: u8,
        peers: Vec<u8>,
    },
    RemoveWorker(u8),
    Scatter(u8),
    FinishRun {
        which: u8,
        how: u8,
    },
    Secede(u8),
    FinishTransfer {
        which: u8,
        how: u8,
        brought: u8,
    },
    KillExecutor(u8),
    LoseData(u8),
    Pause(bool),
    Wait(u16),
    LateAnswer(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let dependencies = proptest::collection::vec((0..TASKS, 0..PEERS), 0..3);
    prop_oneof![
        6 => (0..TASKS, dependencies, any::<bool>(), -2..2_i8).prop_map(|(task, dependencies, resource, priority)| {
            Step::Compute { task, dependencies, resource, priority }
        }),
        3 => proptest::collection::vec(0..TASKS, 1..4).prop_map(Step::Free),
        1 => (0..TASKS).prop_map(Step::RemoveReplicas),
        2 => (0..TASKS, 0..PEERS).prop_map(|(task, peer)| Step::Acquire { task, peer }),
        1 => (0..TASKS).prop_map(Step::Steal),
        2 => (0..TASKS, proptest::collection::vec(0..PEERS, 0..3)).prop_map(|(task, peers)| Step::Refresh { task, peers }),
        1 => (0..PEERS).prop_map(Step::RemoveWorker),
        1 => (0..TASKS).prop_map(Step::Scatter),
        6 => (any::<u8>(), 0..4_u8).prop_map(|(which, how)| Step::FinishRun { which, how }),
        1 => any::<u8>().prop_map(Step::Secede),
        5 => (any::<u8>(), 0..5_u8, any::<u8>())
            .prop_map(|(which, how, brought)| Step::FinishTransfer { which, how, brought }),
        1 => any::<u8>().prop_map(Step::KillExecutor),
        1 => (0..TASKS).prop_map(Step::LoseData),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => (0..2000_u16).prop_map(Step::Wait),
        1 => (0..TASKS).prop_map(Step::LateAnswer),
    ]
}

/// The world around the core: what was asked of it and not yet answered.
struct World {
    t: TestCore,
    runs: Vec<Key>,
    transfers: BTreeMap<String, Vec<Key>>,
    run_id: i64,
    /// Values in the driver's store, to check that the core and the store agree.
    stored: std::collections::BTreeSet<Key>,
    last_run_id: BTreeMap<Key, i64>,
}

fn name(task: u8) -> String {
    format!("task{task}-0")
}

fn peer(peer: u8) -> Arc<str> {
    address(&format!("peer{peer}"))
}

impl World {
    fn new() -> Self {
        let resources = vec![("R".into(), 1.0)];
        let config = Config {
            nthreads: 2,
            resources,
            message_bytes: 250,
            allowed_failures: 2,
            ..Config::default()
        };
        Self {
            t: TestCore::new(config),
            runs: Vec::new(),
            transfers: BTreeMap::new(),
            run_id: 0,
            stored: std::collections::BTreeSet::new(),
            last_run_id: BTreeMap::new(),
        }
    }

    fn send(&mut self, kind: EventKind) {
        self.t.send(kind);
        for action in std::mem::take(&mut self.t.actions) {
            match action {
                Action::Execute {
                    key, dependencies, ..
                } => {
                    assert!(!self.runs.contains(&key), "{key} is started twice");
                    for dependency in &dependencies {
                        assert!(
                            self.stored.contains(dependency),
                            "{key} starts without {dependency}"
                        );
                    }
                    self.runs.push(key);
                }
                Action::GatherDep { worker, keys, .. } => {
                    let old = self.transfers.insert(worker.to_string(), keys);
                    assert!(old.is_none(), "two transfers from {worker}");
                }
                Action::FreeData(key) => {
                    assert!(
                        self.stored.remove(&key),
                        "{key} is dropped and was not stored"
                    );
                }
                Action::Send(Message::TaskFinished { key, run_id, .. }, _) => {
                    assert!(
                        self.stored.contains(&key),
                        "{key} is reported and not stored"
                    );
                    assert_eq!(
                        self.last_run_id.get(&key),
                        Some(&run_id),
                        "{key} is reported under a stale run"
                    );
                }
                Action::Send(Message::AddKeys(keys), _) => {
                    for key in keys {
                        assert!(
                            self.stored.contains(&key),
                            "{key} is announced and not stored"
                        );
                    }
                }
                Action::Send(..) => {}
            }
        }
        for key in &self.stored {
            let state = self.t.core.state_of(key);
            assert_eq!(state, Some("memory"), "{key} is stored");
        }
    }

    fn compute(&mut self, task: u8, dependencies: &[(u8, u8)], resource: bool, priority: i8) {
        // Only smaller numbers are dependencies, so that there is no cycle.
        let dependencies: BTreeMap<u8, u8> = dependencies
            .iter()
            .copied()
            .filter(|(d, _)| *d < task)
            .collect();
        self.run_id += 1;
        self.last_run_id.insert(key(&name(task)), self.run_id);
        self.send(EventKind::ComputeTask(Box::new(ComputeTask {
            key: key(&name(task)),
            run_id: self.run_id,
            priority: Priority::new(&[f64::from(priority), 0.0, 0.0]),
            who_has: dependencies
                .iter()
                .map(|(d, p)| (key(&name(*d)), vec![peer(*p)]))
                .collect(),
            nbytes: dependencies.keys().map(|d| (key(&name(*d)), 100)).collect(),
            run_spec: run_spec(),
            resources: if resource {
                vec![("R".into(), 1.0)]
            } else {
                Vec::new()
            },
        })));
    }

    fn finish_run(&mut self, key: Key, how: u8) {
        self.runs.retain(|run| *run != key);
        match how {
            0 | 1 => {
                self.stored.insert(key.clone());
                let duration = if how == 0 {
                    Duration::from_micros(50)
                } else {
                    Duration::from_secs(1)
                };
                self.send(EventKind::Executed {
                    key,
                    nbytes: 28,
                    duration,
                });
            }
            2 => self.send(EventKind::ExecuteFailed {
                key,
                error: error("boom"),
            }),
            _ => self.send(EventKind::Rescheduled(key)),
        }
    }

    fn finish_transfer(&mut self, worker: &str, how: u8, brought: u8) {
        let Some(keys) = self.transfers.remove(worker) else {
            return;
        };
        let worker: Arc<str> = Arc::from(worker);
        match how {
            0 | 1 => {
                let came = keys
                    .into_iter()
                    .enumerate()
                    .filter(|(i, _)| how == 0 || brought >> (i % 8) & 1 == 1);
                let data: Vec<(Key, u64)> = came.map(|(_, key)| (key, 100)).collect();
                self.stored.extend(data.iter().map(|(key, _)| key.clone()));
                self.send(EventKind::Gathered { worker, data });
            }
            2 => self.send(EventKind::GatherBusy { worker }),
            3 => self.send(EventKind::GatherFailed { worker }),
            _ => self.send(EventKind::GatherErred {
                worker,
                error: error("bad bytes"),
            }),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Compute {
                task,
                dependencies,
                resource,
                priority,
            } => {
                self.compute(task, &dependencies, resource, priority);
            }
            Step::Free(tasks) => self.send(EventKind::FreeKeys(
                tasks.iter().map(|t| key(&name(*t))).collect(),
            )),
            Step::RemoveReplicas(task) => {
                self.send(EventKind::RemoveReplicas(vec![key(&name(task))]))
            }
            Step::Acquire { task, peer: p } => self.send(EventKind::AcquireReplicas {
                who_has: vec![(key(&name(task)), vec![peer(p)])],
                nbytes: vec![(key(&name(task)), 100)],
            }),
            Step::Steal(task) => self.send(EventKind::StealRequest(key(&name(task)))),
            Step::Refresh { task, peers } => {
                let holders = peers.into_iter().map(peer).collect();
                self.send(EventKind::RefreshWhoHas(vec![(key(&name(task)), holders)]));
            }
            Step::RemoveWorker(p) => self.send(EventKind::RemoveWorker(peer(p))),
            Step::Scatter(task) => {
                self.stored.insert(key(&name(task)));
                self.send(EventKind::Scattered(vec![(key(&name(task)), 77)]));
            }
            Step::FinishRun { which, how } => {
                if !self.runs.is_empty() {
                    let run = self.runs[usize::from(which) % self.runs.len()].clone();
                    self.finish_run(run, how);
                }
            }
            Step::Secede(which) => {
                if !self.runs.is_empty() {
                    let run = self.runs[usize::from(which) % self.runs.len()].clone();
                    self.send(EventKind::Seceded {
                        key: run,
                        compute_duration: Duration::from_secs(1),
                    });
                }
            }
            Step::FinishTransfer {
                which,
                how,
                brought,
            } => {
                if !self.transfers.is_empty() {
                    let worker = self
                        .transfers
                        .keys()
                        .nth(usize::from(which) % self.transfers.len())
                        .unwrap()
                        .clone();
                    self.finish_transfer(&worker, how, brought);
                }
            }
            Step::KillExecutor(started) => {
                let mut running = std::mem::take(&mut self.runs);
                let queued = running.split_off(usize::from(started) % (running.len() + 1));
                let resident: Vec<Key> = self.stored.iter().take(2).cloned().collect();
                self.send(EventKind::ExecutorLost {
                    running,
                    queued,
                    resident,
                    error: error("killed"),
                });
            }
            Step::LoseData(task) => self.send(EventKind::DataLost(vec![key(&name(task))])),
            Step::Pause(true) => self.send(EventKind::Pause),
            Step::Pause(false) => self.send(EventKind::Unpause),
            Step::Wait(milliseconds) => {
                self.t.now = self.t.now + Duration::from_millis(milliseconds.into());
                self.send(EventKind::Tick);
            }
            Step::LateAnswer(task) => {
                let late = key(&name(task));
                if !self.runs.contains(&late) {
                    self.send(EventKind::ExecuteFailed {
                        key: late.clone(),
                        error: error("late"),
                    });
                    self.send(EventKind::Seceded {
                        key: late,
                        compute_duration: Duration::ZERO,
                    });
                }
                self.send(EventKind::GatherBusy {
                    worker: address("nobody"),
                });
            }
        }
    }

    /// Answer all that is asked, then free everything: nothing may be left.
    fn wind_down(&mut self) {
        self.send(EventKind::Unpause);
        for _ in 0..1000 {
            if let Some(run) = self.runs.first().cloned() {
                self.finish_run(run, 1);
            } else if let Some(worker) = self.transfers.keys().next().cloned() {
                self.finish_transfer(&worker, 0, 0);
            } else {
                break;
            }
        }
        assert!(
            self.runs.is_empty() && self.transfers.is_empty(),
            "work goes on for ever"
        );
        for _ in 0..2 {
            self.send(EventKind::FreeKeys(
                (0..TASKS).map(|task| key(&name(task))).collect(),
            ));
        }
        for _ in 0..100 {
            self.t.now = self.t.now + Duration::from_secs(2);
            self.send(EventKind::Tick);
            let Some(worker) = self.transfers.keys().next().cloned() else {
                break;
            };
            self.finish_transfer(&worker, 0, 0);
        }
        let left: Vec<_> = self
            .t
            .core
            .snapshot()
            .map(|(key, state, _)| format!("{key}: {state}"))
            .collect();
        assert!(left.is_empty(), "left over: {left:?}");
        assert!(
            self.stored.is_empty(),
            "left in the store: {:?}",
            self.stored
        );
        assert_eq!(self.t.core.stats().nbytes, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_event_order_keeps_the_invariants_and_leaves_nothing_behind(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.wind_down();
    }

    #[test]
    fn equal_event_sequences_give_equal_actions(steps in proptest::collection::vec(step(), 1..40)) {
        let stories = [0, 1].map(|_| {
            let mut world = World::new();
            for step in steps.clone() {
                world.step(step);
            }
            world.t.core.story(None).map(|entry| format!("{entry:?}")).collect::<Vec<_>>()
        });
        prop_assert_eq!(&stories[0], &stories[1]);
    }
}
