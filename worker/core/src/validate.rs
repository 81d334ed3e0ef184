//! Every invariant written at a field, as a check.

use std::fmt::Write as _;

use crate::{
    Core,
    ids::TaskId,
    state::{Busy, Slot, State, Task},
};

/// A broken invariant: a fault in this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker state is inconsistent: {0}")]
pub struct Violation(String);

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            let mut text = String::new();
            let _ = write!(text, $($message)*);
            return Err(Violation(text));
        }
    };
}

impl Core {
    /// Check every invariant. Cost: linear in all that the core knows.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn validate(&self) -> Result<(), Violation> {
        ensure!(
            self.recommendations.is_empty(),
            "recommendations are left over"
        );
        for (id, task) in self.tasks.iter() {
            self.validate_links(id, task)?;
            self.validate_state(id, task)?;
        }
        self.validate_counts()?;
        self.validate_peers()?;
        self.validate_liveness()
    }

    fn validate_links(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        let key = &task.key;
        ensure!(
            self.tasks.find(key) == Some(id),
            "{key} is not found by its key"
        );
        for dependency in &task.dependencies {
            let other = self.tasks.get(*dependency);
            ensure!(
                other.is_some_and(|d| d.dependents.contains(&id)),
                "a dependency of {key} does not know it"
            );
        }
        for dependent in &task.dependents {
            let other = self.tasks.get(*dependent);
            ensure!(
                other.is_some_and(|d| d.dependencies.contains(&id)),
                "a dependent of {key} does not know it"
            );
        }
        let users = task
            .dependents
            .iter()
            .filter(|d| self.tasks[**d].state.holds_dependencies())
            .count();
        ensure!(
            users == task.users as usize,
            "{key} counts {} users of {users}",
            task.users
        );
        for peer in &task.who_has {
            ensure!(
                self.peers[*peer].has_what.contains(&id),
                "a holder of {key} does not know it"
            );
        }
        Ok(())
    }

    fn validate_state(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        let (key, state) = (&task.key, task.state);
        let entry = (task.priority, id);
        ensure!(
            self.ready.contains(&entry) == (state == State::Ready),
            "{key} in {state:?}: index ready"
        );
        ensure!(
            self.constrained.contains(&entry) == (state == State::Constrained),
            "{key} in {state:?}: index constrained"
        );
        ensure!(
            self.missing.contains(&id) == (state == State::Missing),
            "{key} in {state:?}: index missing"
        );
        for peer in &task.who_has {
            let needed = self.peers[*peer].needed.contains(&entry);
            ensure!(
                needed == (state == State::Fetch),
                "{key} in {state:?}: index needed"
            );
        }
        match state {
            State::Fetch => ensure!(
                !task.who_has.is_empty(),
                "{key} is to be fetched from nobody"
            ),
            State::Missing => ensure!(task.who_has.is_empty(), "{key} is missing and has a holder"),
            State::Ready | State::Constrained => {
                let all = task
                    .dependencies
                    .iter()
                    .all(|d| self.tasks[*d].state == State::Memory);
                ensure!(all, "{key} is ready without its dependencies");
                ensure!(task.run_spec.is_some(), "{key} is ready without a run_spec");
            }
            State::Waiting => ensure!(task.waiting_for > 0, "{key} waits for nothing"),
            State::Released => ensure!(
                !task.dependents.is_empty(),
                "{key} is released and not forgotten"
            ),
            _ => {}
        }
        let missing = task
            .dependencies
            .iter()
            .filter(|d| self.tasks[**d].state != State::Memory)
            .count();
        let expected = if state == State::Waiting { missing } else { 0 };
        ensure!(
            task.waiting_for as usize == expected,
            "{key} waits for {} of {expected}",
            task.waiting_for
        );
        ensure!(
            !task.freed || (state == State::Memory && task.users > 0),
            "{key} is freed and kept for nobody"
        );
        let busy_in_state = match state {
            State::Flight => Some(Busy::Flight),
            State::Executing => Some(Busy::Executing),
            State::LongRunning => Some(Busy::LongRunning),
            State::Cancelled(busy) | State::Resumed(busy) => Some(busy),
            State::Memory => task.busy(),
            _ => None,
        };
        ensure!(
            busy_in_state == task.busy(),
            "{key} in {state:?} has {:?}, {:?}",
            task.slot,
            task.flight
        );
        if let Some(peer) = task.flight {
            let listed = self.peers[peer]
                .in_flight
                .as_ref()
                .is_some_and(|flight| flight.tasks.contains(&id));
            ensure!(listed, "{key} flies in no transfer");
        }
        Ok(())
    }

    fn validate_counts(&self) -> Result<(), Violation> {
        let count =
            |test: &dyn Fn(&Task) -> bool| self.tasks.iter().filter(|(_, task)| test(task)).count();
        let executing = count(&|task| task.slot == Some(Slot::Executing));
        ensure!(
            self.executing == executing,
            "executing counts {} of {executing}",
            self.executing
        );
        let short = count(&|task| task.slot == Some(Slot::Executing) && task.short);
        ensure!(
            self.executing_short == short,
            "short counts {} of {short}",
            self.executing_short
        );
        let long = count(&|task| task.slot == Some(Slot::LongRunning));
        ensure!(
            self.long_running == long,
            "long-running counts {} of {long}",
            self.long_running
        );
        let suspects = count(&|task| task.slot.is_some() && task.suspect);
        ensure!(
            suspects == usize::from(self.suspect_running),
            "{suspects} suspects run"
        );
        ensure!(
            suspects == 0 || executing + long == 1,
            "a suspect does not run alone"
        );
        let fetching = count(&|task| task.state == State::Fetch);
        ensure!(
            self.fetching == fetching,
            "fetching counts {} of {fetching}",
            self.fetching
        );
        let nbytes: u64 = self
            .tasks
            .iter()
            .filter(|(_, t)| t.state == State::Memory)
            .map(|(_, t)| t.size())
            .sum();
        ensure!(
            self.nbytes == nbytes,
            "nbytes is {} of {nbytes}",
            self.nbytes
        );
        ensure!(
            self.refresh_at.is_some() != self.missing.is_empty(),
            "no refresh of missing keys is due"
        );
        for (name, total) in &self.config.resources {
            let used: f64 = self
                .tasks
                .iter()
                .filter(|(_, task)| task.slot.is_some())
                .flat_map(|(_, task)| &task.resources)
                .filter(|(n, _)| n == name)
                .map(|(_, amount)| amount)
                .sum();
            let available = self
                .available
                .iter()
                .find(|(n, _)| n == name)
                .map_or(0.0, |(_, amount)| *amount);
            let balanced = (total - used - available).abs() < 1e-6;
            ensure!(balanced, "resource {name}: {available} of {total} left");
        }
        Ok(())
    }

    fn validate_peers(&self) -> Result<(), Violation> {
        let (mut flights, mut bytes) = (0, 0);
        for (id, peer) in self.peers.iter() {
            let address = &peer.address;
            for task in &peer.has_what {
                let known = self
                    .tasks
                    .get(*task)
                    .is_some_and(|task| task.who_has.contains(&id));
                ensure!(known, "{address} holds a task that does not know it");
            }
            for (priority, task) in &peer.needed {
                let fetch = self.tasks.get(*task).is_some_and(|t| {
                    t.state == State::Fetch && t.priority == *priority && t.who_has.contains(&id)
                });
                ensure!(
                    fetch,
                    "{address} is needed for a task that is not to be fetched"
                );
            }
            if let Some(flight) = &peer.in_flight {
                flights += 1;
                bytes += flight.nbytes;
                for task in &flight.tasks {
                    let flies = self
                        .tasks
                        .get(*task)
                        .is_some_and(|task| task.flight == Some(id));
                    ensure!(
                        flies,
                        "a transfer from {address} has a task that does not fly"
                    );
                }
            }
        }
        ensure!(
            flights == self.incoming_count,
            "transfers count {} of {flights}",
            self.incoming_count
        );
        ensure!(
            bytes == self.incoming_bytes,
            "incoming bytes are {} of {bytes}",
            self.incoming_bytes
        );
        Ok(())
    }

    /// Nothing that could go on stands still.
    fn validate_liveness(&self) -> Result<(), Violation> {
        if self.paused {
            return Ok(());
        }
        if self.running() == 0 {
            ensure!(self.ready.is_empty(), "ready tasks and free slots");
        }
        if self.incoming_count == 0 && self.fetching > 0 {
            let all_busy = self
                .peers
                .iter()
                .all(|(_, peer)| peer.needed.is_empty() || peer.busy_until.is_some());
            ensure!(all_busy, "values to fetch and no transfer");
        }
        for (_, task) in self
            .tasks
            .iter()
            .filter(|(_, task)| task.state == State::Waiting)
        {
            let key = &task.key;
            let lost = task
                .dependencies
                .iter()
                .map(|d| &self.tasks[*d])
                .find(|dependency| {
                    matches!(
                        dependency.state,
                        State::Released | State::Error | State::Cancelled(_)
                    )
                });
            ensure!(
                lost.is_none(),
                "{key} waits for {} in {:?}, which nobody brings",
                lost.map(|task| task.key.to_string()).unwrap_or_default(),
                lost.map(|task| task.state)
            );
        }
        Ok(())
    }
}
