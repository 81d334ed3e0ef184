//! Which ready task starts next, and when.

use std::sync::Arc;

use crate::{
    Core,
    action::Action,
    ids::TaskId,
    state::{Slot, State},
};

/// Mean seconds of a prefix up to which its tasks may be handed to the executor
/// before a slot is free. A round trip to the executor costs a tenth of it.
const SHORT_SECONDS: f64 = 0.001;

/// Seconds of work per slot that may wait in the executor, where it can be neither stolen nor reordered.
const AHEAD_SECONDS: f64 = 0.004;

/// Tasks per slot that may wait in the executor.
const AHEAD_TASKS: usize = 32;

impl Core {
    /// Start tasks while there are slots.
    pub(crate) fn start_ready(&mut self) {
        while !self.paused && !self.suspect_running {
            let Some(id) = self.next_ready() else { return };
            let short = self.is_short(id);
            let free = self.executing < self.config.nthreads;
            if !free && !self.may_hand_ahead(id, short) {
                return;
            }
            if self.tasks[id].suspect && self.running() > 0 {
                // It runs alone, so that if the executor dies again it is known who did it.
                return;
            }
            self.start(id, short);
        }
    }

    fn start(&mut self, id: TaskId, short: bool) {
        let task = &mut self.tasks[id];
        task.slot = Some(Slot::Executing);
        task.short = short;
        self.suspect_running = task.suspect;
        for (name, amount) in &task.resources {
            if let Some(available) = find(&mut self.available, name) {
                *available -= amount;
            }
        }
        self.executing += 1;
        self.executing_short += usize::from(short);
        self.set_state(id, State::Executing);
        let task = &self.tasks[id];
        let run_spec = task
            .run_spec
            .clone()
            .expect("only compute-task leads to ready, and it brings the run_spec");
        let dependencies = task
            .dependencies
            .iter()
            .map(|dep| self.tasks[*dep].key.clone())
            .collect();
        self.actions.push_back(Action::Execute {
            key: task.key.clone(),
            run_spec,
            dependencies,
            stimulus_id: self.stimulus_id.clone(),
        });
    }

    /// Take the slot and the resources back; false if it had none.
    pub(crate) fn free_slot(&mut self, id: TaskId) -> bool {
        let task = &mut self.tasks[id];
        match task.slot.take() {
            None => return false,
            Some(Slot::Executing) => {
                self.executing -= 1;
                self.executing_short -= usize::from(task.short);
            }
            Some(Slot::LongRunning) => self.long_running -= 1,
        }
        task.short = false;
        if task.suspect {
            self.suspect_running = false;
        }
        for (name, amount) in &task.resources {
            if let Some(available) = find(&mut self.available, name) {
                *available += amount;
            }
        }
        true
    }

    /// The slot of a running task no longer counts.
    pub(crate) fn secede_slot(&mut self, id: TaskId) {
        let task = &mut self.tasks[id];
        if task.slot == Some(Slot::Executing) {
            task.slot = Some(Slot::LongRunning);
            self.executing -= 1;
            self.executing_short -= usize::from(task.short);
            task.short = false;
            self.long_running += 1;
        }
    }

    /// The task of smallest priority that could start now, resources considered.
    fn next_ready(&self) -> Option<TaskId> {
        let ready = self.ready.first();
        let constrained = self
            .constrained
            .iter()
            .find(|(_, id)| self.resources_free(*id));
        match (ready, constrained) {
            (Some(a), Some(b)) => Some(a.min(b).1),
            (a, b) => a.or(b).map(|(_, id)| *id),
        }
    }

    fn resources_free(&self, id: TaskId) -> bool {
        self.tasks[id].resources.iter().all(|(name, amount)| {
            self.available
                .iter()
                .any(|(n, available)| n == name && available >= amount)
        })
    }

    /// Its prefix has so far taken next to no time.
    fn is_short(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        task.resources.is_empty()
            && !task.suspect
            && task.run_spec.as_ref().is_some_and(|spec| !spec.actor)
            && self.durations[task.prefix as usize].is_some_and(|mean| mean <= SHORT_SECONDS)
    }

    /// Only behind short tasks: one that runs long would keep those behind it from being stolen.
    fn may_hand_ahead(&self, id: TaskId, short: bool) -> bool {
        if !self.config.hand_ahead || !short || self.executing != self.executing_short {
            return false;
        }
        let waiting = self.executing - self.config.nthreads.min(self.executing);
        let seconds = self.durations[self.tasks[id].prefix as usize].unwrap_or(SHORT_SECONDS);
        let nthreads = self.config.nthreads.max(1);
        waiting < AHEAD_TASKS * nthreads
            && (waiting as f64) * seconds < AHEAD_SECONDS * nthreads as f64
    }
}

fn find<'a>(resources: &'a mut [(Arc<str>, f64)], name: &str) -> Option<&'a mut f64> {
    resources
        .iter_mut()
        .find(|(n, _)| &**n == name)
        .map(|(_, amount)| amount)
}
