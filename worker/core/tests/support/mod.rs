//! A driver for tests: events in, actions out, every invariant checked after each event.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test file uses its part"
)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use oxidask_worker_core::{
    Action, Address, ComputeTask, Config, Core, Event, EventKind, Key, Message, Payload, Priority,
    RunSpec, TaskError, Time,
};

pub struct TestCore {
    pub core: Core,
    pub now: Time,
    pub actions: Vec<Action>,
    run_id: i64,
}

pub fn key(name: &str) -> Key {
    Key::from(name)
}

pub fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| key(name)).collect()
}

pub fn address(name: &str) -> Address {
    Arc::from(format!("tcp://{name}:1"))
}

pub fn run_spec() -> Arc<RunSpec> {
    Arc::new(RunSpec {
        payload: Payload::pickled(b"N.", Vec::new()).expect("a small pickle"),
        annotations: Bytes::from_static(b"\x80"),
        span_id: None,
        actor: false,
    })
}

pub fn error(text: &str) -> Arc<TaskError> {
    Arc::new(TaskError {
        exception: Payload::of_bytes(Bytes::from_static(b"N.")),
        traceback: None,
        exception_text: text.to_owned(),
        traceback_text: String::new(),
    })
}

impl TestCore {
    pub fn new(config: Config) -> Self {
        let mut core = Core::new(config);
        core.set_address(address("me"));
        Self {
            core,
            now: Time::ZERO,
            actions: Vec::new(),
            run_id: 0,
        }
    }

    pub fn with_threads(nthreads: usize) -> Self {
        Self::new(Config {
            nthreads,
            ..Config::default()
        })
    }

    pub fn send(&mut self, kind: EventKind) -> &mut Self {
        let described = format!("{kind:?}");
        self.core.handle(self.now, Event::new(kind, "test"));
        while let Some(action) = self.core.poll_action() {
            self.actions.push(action);
        }
        if let Err(violation) = self.core.validate() {
            panic!("{violation}\nafter {described}");
        }
        self
    }

    /// compute-task with dependencies `(name, holder)`.
    pub fn compute(&mut self, name: &str, dependencies: &[(&str, &str)]) -> i64 {
        self.compute_with(name, dependencies, &[], 0.0)
    }

    pub fn compute_with(
        &mut self,
        name: &str,
        dependencies: &[(&str, &str)],
        resources: &[(&str, f64)],
        priority: f64,
    ) -> i64 {
        self.run_id += 1;
        let run_id = self.run_id;
        self.send(EventKind::ComputeTask(Box::new(ComputeTask {
            key: key(name),
            run_id,
            priority: Priority::new(&[priority, 0.0, 0.0]),
            who_has: dependencies
                .iter()
                .map(|(dep, holder)| (key(dep), vec![address(holder)]))
                .collect(),
            nbytes: dependencies
                .iter()
                .map(|(dep, _)| (key(dep), 100))
                .collect(),
            run_spec: run_spec(),
            resources: resources
                .iter()
                .map(|(name, amount)| (Arc::from(*name), *amount))
                .collect(),
        })));
        run_id
    }

    pub fn executed(&mut self, name: &str) -> &mut Self {
        self.send(EventKind::Executed {
            key: key(name),
            nbytes: 28,
            duration: Duration::from_millis(50),
        })
    }

    pub fn gathered(&mut self, worker: &str, names: &[&str]) -> &mut Self {
        let data = names.iter().map(|name| (key(name), 100)).collect();
        self.send(EventKind::Gathered {
            worker: address(worker),
            data,
        })
    }

    pub fn free(&mut self, names: &[&str]) -> &mut Self {
        self.send(EventKind::FreeKeys(keys(names)))
    }

    pub fn state(&self, name: &str) -> Option<&'static str> {
        self.core.state_of(&key(name))
    }

    /// All actions since the last call, in words.
    pub fn take(&mut self) -> Vec<String> {
        self.actions
            .drain(..)
            .map(|action| describe(&action))
            .collect()
    }

    #[track_caller]
    pub fn expect(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(self.take(), expected);
        self
    }

    pub fn advance(&mut self, duration: Duration) -> &mut Self {
        self.now = self.now + duration;
        self.send(EventKind::Tick)
    }
}

pub fn describe(action: &Action) -> String {
    let names = |keys: &[Key]| {
        keys.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    match action {
        Action::Execute { key, .. } => format!("execute {key}"),
        Action::GatherDep { worker, keys, .. } => format!("gather {} from {worker}", names(keys)),
        Action::FreeData(key) => format!("drop {key}"),
        Action::Send(message, _) => match message {
            Message::TaskFinished { key, run_id, .. } => {
                format!("task-finished {key} run {run_id}")
            }
            Message::TaskErred { key, run_id, error } => {
                format!("task-erred {key} run {run_id}: {}", error.exception_text)
            }
            Message::Reschedule(key) => format!("reschedule {key}"),
            Message::LongRunning {
                key,
                compute_duration,
                ..
            } => {
                format!(
                    "long-running {key}{}",
                    if compute_duration.is_some() {
                        ""
                    } else {
                        " in arrears"
                    }
                )
            }
            Message::AddKeys(keys) => format!("add-keys {}", names(keys)),
            Message::ReleaseWorkerData(key) => format!("release-worker-data {key}"),
            Message::RequestRefreshWhoHas(keys) => {
                format!("request-refresh-who-has {}", names(keys))
            }
            Message::StealResponse { key, state } => {
                format!("steal-response {key} {}", state.unwrap_or("null"))
            }
        },
    }
}
