//! Tasks on their way to an executor.

use oxidask_protocol::{
    Key, Payload, PayloadKind, message::worker::StartStop, msgpack::Reader, native::NativeTask,
};
use oxidask_worker_core::EventKind;
use tokio::sync::oneshot;

use super::{Driver, Start, actions::task_error, executors::Running, placement};
use crate::{
    clock::unix,
    executor::wire::{self, Run},
    input::Input,
};

/// Why a task cannot be handed over.
enum Unready {
    /// A dependency is gone.
    Lost(Key),
    /// For the user.
    Malformed(String),
}

/// The first executor: see `executors`.
pub(super) const PRIMARY: usize = 0;

impl Driver {
    /// Hand a task to an executor, now or when there is one.
    pub(super) fn start(&mut self, start: Start) {
        match NativeTask::of_run_spec(&start.run_spec.payload) {
            Ok(None) => {}
            Ok(Some(task)) => {
                self.start_native(start, task);
                return;
            }
            Err(error) => {
                self.malformed(start.key, &error.to_string());
                return;
            }
        }
        let executor = match self.choose(&start) {
            Ok(Some(executor)) => executor,
            Ok(None) => {
                self.waiting.push_back(start);
                self.need_executor();
                return;
            }
            Err(unready) => {
                self.cannot_start(start.key, unready);
                return;
            }
        };
        let elsewhere = self.held_elsewhere(&start, executor);
        if elsewhere.is_empty() {
            self.hand_over(start, executor);
        } else {
            self.bring(start, elsewhere);
        }
    }

    fn cannot_start(&mut self, key: Key, why: Unready) {
        match why {
            Unready::Lost(dependency) => self.dependency_lost(key, dependency),
            Unready::Malformed(text) => self.malformed(key, &text),
        }
    }

    /// Which executor gets a task; none while the right one is not ready.
    fn choose(&self, start: &Start) -> Result<Option<usize>, Unready> {
        if let [only] = self.executors.as_slice() {
            return Ok(only.is_ready().then_some(PRIMARY));
        }
        let needs_primary = start.run_spec.actor
            || (!self.primary_prefixes.is_empty()
                && self.primary_prefixes.contains(start.key.prefix().as_ref()));
        let mut only = needs_primary.then_some((PRIMARY, None));
        let mut candidates: Vec<placement::Candidate> = self
            .executors
            .iter()
            .map(|executor| placement::Candidate {
                ready: executor.is_ready(),
                threads: executor.threads,
                busy: executor.busy(),
                held: 0,
            })
            .collect();
        for key in &start.dependencies {
            let lost = || Unready::Lost(key.clone());
            let entry = self.store.get(key).ok_or_else(lost)?;
            if !entry.only_in_executors() {
                continue;
            }
            let holder = entry.holders.first().ok_or_else(lost)?;
            candidates[holder].held += entry.nbytes;
            if entry.pinned || entry.actor {
                match only {
                    Some((executor, other)) if executor != holder => {
                        return Err(Unready::Malformed(bound_to_two(
                            key, holder, executor, other,
                        )));
                    }
                    _ => only = Some((holder, Some(key))),
                }
            }
        }
        Ok(placement::place(
            &candidates,
            only.map(|(executor, _)| executor),
        ))
    }

    /// Dependencies that neither `executor` nor this process has, but another executor.
    fn held_elsewhere(&self, start: &Start, executor: usize) -> Vec<Key> {
        if self.executors.len() == 1 {
            return Vec::new();
        }
        let elsewhere = |key: &&Key| {
            self.store
                .get(key)
                .is_some_and(|entry| entry.only_in_executors() && !entry.holders.contains(executor))
        };
        start
            .dependencies
            .iter()
            .filter(elsewhere)
            .cloned()
            .collect()
    }

    /// Have values serialised that other executors have, and look again at the task when that is done.
    fn bring(&mut self, start: Start, keys: Vec<Key>) {
        let id = self.store.next_id();
        self.awaiting_inputs.insert(id, start);
        let (reply, answer) = oneshot::channel();
        self.gather_values(keys, self.bringing.clone(), reply);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            // What did not come is known to the store, where it is looked for.
            let _ = answer.await;
            inputs.send(Input::InputsSealed { id }).await;
        });
    }

    pub(super) fn inputs_sealed(&mut self, id: u64) {
        if let Some(start) = self.awaiting_inputs.remove(&id) {
            self.start(start);
        }
    }

    fn hand_over(&mut self, start: Start, executor: usize) {
        let id = self.store.next_id();
        let (run, transfers) = match self.prepare(id, &start, executor) {
            Ok(prepared) => prepared,
            Err(unready) => {
                self.cannot_start(start.key, unready);
                return;
            }
        };
        let place = &mut self.executors[executor];
        for (_, _, input) in &run.dependencies {
            if let wire::Input::Segments { segments, .. } = input {
                place.leases.grant(segments);
            }
        }
        place.running.insert(
            id,
            Running {
                key: start.key,
                since: unix(),
                seceded: false,
                actor: start.run_spec.actor,
                span: start.run_spec.span_id.clone(),
                transfers,
            },
        );
        place.runs.push(run);
    }

    /// What the executor is told, and how the task's dependencies came here.
    fn prepare(
        &mut self,
        id: u64,
        start: &Start,
        executor: usize,
    ) -> Result<(Run, Vec<StartStop>), Unready> {
        let mut transfers = Vec::new();
        let mut dependencies = Vec::with_capacity(start.dependencies.len());
        for key in &start.dependencies {
            let lost = || Unready::Lost(key.clone());
            let entry = self.store.get_mut(key).ok_or_else(lost)?;
            let input = entry.input(executor).ok_or_else(lost)?;
            entry.holders.insert(executor);
            entry.last_used = id;
            transfers.extend(entry.came.take().map(|came| *came));
            dependencies.push((key.clone(), entry.id, input));
        }
        let pickle = pickled_object(&start.run_spec.payload).map_err(Unready::Malformed)?;
        let place = &self.executors[executor];
        let run = Run {
            id,
            key: start.key.clone(),
            pickle,
            buffers: start.run_spec.payload.frames.as_slice().to_vec(),
            dependencies,
            annotations: start.run_spec.annotations.clone(),
            span: start.run_spec.span_id.clone(),
            actor: start.run_spec.actor,
            short: place.running.len() >= place.threads,
        };
        Ok((run, transfers))
    }

    /// The core believes that a dependency is here: tell it otherwise and let the task wait again.
    pub(super) fn dependency_lost(&mut self, key: Key, dependency: Key) {
        tracing::warn!(%key, %dependency, "a dependency is gone from the store");
        self.event(
            EventKind::ExecutorLost {
                running: Vec::new(),
                queued: vec![key],
                resident: vec![dependency],
                error: task_error("a dependency was lost"),
            },
            "dependency-lost",
        );
    }

    fn malformed(&mut self, key: Key, text: &str) {
        let error = task_error(&format!("the task could not be read: {text}"));
        self.event(EventKind::ExecuteFailed { key, error }, "malformed-task");
    }
}

fn bound_to_two(key: &Key, holder: usize, executor: usize, other: Option<&Key>) -> String {
    let other = other.map_or_else(
        || "the task itself needs the first executor".to_owned(),
        |other| format!("{other} is in executor {executor}"),
    );
    format!(
        "it needs values that cannot leave their executors: {key} is in executor {holder}, {other}; \
         use --executors 1"
    )
}

/// The pickle inside a `__Pickled__` payload's header.
fn pickled_object(payload: &Payload) -> Result<bytes::Bytes, String> {
    if payload.kind != PayloadKind::Pickled {
        return Err("run_spec is no pickle".to_owned());
    }
    let read = || {
        let mut r = Reader::new(&payload.header, &[]);
        for _ in 0..r.map()? {
            if r.str_or_skip()? == Some("pickled-obj") {
                return r.shared_bin().map(Some);
            }
            r.skip()?;
        }
        Ok(None)
    };
    read()
        .map_err(|error: oxidask_protocol::DecodeError| error.to_string())?
        .ok_or_else(|| "pickled-obj is missing".into())
}
