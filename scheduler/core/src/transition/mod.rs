//! How tasks change their state.
//!
//! A stimulus leaves *recommendations*: tasks and the state that each should get. [`Core::run_recommendations`] takes
//! the latest first; each transition may add more, until none is left. The pairs of states that have a transition of
//! their own stand in [`Core::transition_directly`]; every other pair goes through released.
//!
//! Source: distributed `SchedulerState._transition`, `_transitions` and `_TRANSITIONS_TABLE`.

mod common;
mod erred;
mod memory;
mod parked;
mod processing;
mod released;
mod waiting;

use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::Core;
use crate::action::{Action, TaskStateName, Transition};
use crate::ids::TaskId;

use TaskStateName::{Erred, Forgotten, Memory, NoWorker, Processing, Queued, Released, Waiting};

/// Wanted states in the order in which they were first recommended; the last is carried out first.
pub(crate) type Recommendations = IndexMap<TaskId, TaskStateName, FxBuildHasher>;

/// Room for recommendations that is kept between events. Those of a large graph would take it for ever.
const KEPT_RECOMMENDATIONS: usize = 16_384;

impl Core {
    pub(crate) fn recommend(&mut self, id: TaskId, state: TaskStateName) {
        self.recommendations.insert(id, state);
    }

    /// Carries out recommendations until none is left.
    pub(crate) fn run_recommendations(&mut self) {
        while let Some((id, state)) = self.recommendations.pop() {
            self.transition(id, state);
        }
        if self.recommendations.capacity() > KEPT_RECOMMENDATIONS {
            self.recommendations = Recommendations::default();
        }
    }

    /// Brings one task into `finish` and leaves recommendations for others.
    pub(crate) fn transition(&mut self, id: TaskId, finish: TaskStateName) {
        let Some(task) = self.tasks.get(id) else {
            return;
        };
        let start = task.state;
        if start == finish
            || is_overtaken(start, finish)
            || self.transition_directly(id, start, finish)
        {
            return;
        }
        assert!(
            start != Released && finish != Released,
            "no transition from {start:?} to {finish:?} for {:?}",
            self.tasks[id].key
        );
        self.transition_directly(id, start, Released);
        // What the release asked for this very task goes before what was asked at first.
        let finish = self.recommendations.shift_remove(&id).unwrap_or(finish);
        if self
            .tasks
            .get(id)
            .is_some_and(|task| task.state == Released)
            && finish != Released
        {
            let known = self.transition_directly(id, Released, finish);
            assert!(known, "no transition from released to {finish:?}");
        }
    }

    /// Runs the transition of this pair of states; false if the pair has none.
    fn transition_directly(
        &mut self,
        id: TaskId,
        start: TaskStateName,
        finish: TaskStateName,
    ) -> bool {
        match (start, finish) {
            (Released, Waiting) => self.released_to_waiting(id),
            (Released, Erred) => self.released_to_erred(id),
            (Released, Forgotten) => self.released_to_forgotten(id),
            (Waiting, Released) => self.waiting_to_released(id),
            (Waiting, Processing) => self.waiting_to_processing(id),
            (Waiting, Queued) => self.waiting_to_queued(id),
            (Waiting, NoWorker) => self.waiting_to_no_worker(id),
            // The result of a run that was cancelled; its worker has been told to drop it.
            (Waiting, Memory) => {}
            (Queued, Released) => self.queued_to_released(id),
            (Queued, Processing) => self.queued_to_processing(id),
            (Queued, Erred) => self.queued_to_erred(id),
            (NoWorker, Released) => self.no_worker_to_released(id),
            (NoWorker, Processing) => self.no_worker_to_processing(id),
            (NoWorker, Erred) => self.no_worker_to_erred(id),
            (Processing, Released) => self.processing_to_released(id),
            (Processing, Erred) => self.processing_to_erred(id),
            (Memory, Released) => self.memory_to_released(id),
            (Memory, Erred) => self.memory_to_erred(id),
            (Memory, Forgotten) => self.memory_to_forgotten(id),
            (Erred, Released) => self.erred_to_released(id),
            (
                Released | Waiting | Queued | NoWorker | Processing | Memory | Erred | Forgotten,
                Released | Waiting | Queued | NoWorker | Processing | Memory | Erred | Forgotten,
            ) => return false,
        }
        true
    }

    /// Changes the state of a task, with the counts and the log that follow it.
    pub(crate) fn set_state(&mut self, id: TaskId, finish: TaskStateName) {
        let task = &mut self.tasks[id];
        let start = std::mem::replace(&mut task.state, finish);
        let nbytes = u64::try_from(task.nbytes).unwrap_or(0);
        let group = task.group;
        let gone = self.groups.change_state(group, start, finish, nbytes);
        if let Some(gone) = gone
            && let Some(span) = gone.span.as_ref().and_then(|span| self.spans.get_mut(span))
        {
            let prefix = Arc::clone(&self.groups.prefix_by_id(gone.prefix).name);
            span.bury(group, gone, prefix);
        }
        let task = &self.tasks[id];
        self.story
            .record(self.now, &task.key, start, finish, &self.stimulus);
        if finish == Forgotten && !self.watched.is_empty() && self.watched.swap_remove(&task.key) {
            let key = task.key.clone();
            self.actions.push_back(Action::Forgotten { key });
        }
        if self.observed {
            let worker = task.processing_on.or_else(|| task.who_has.first());
            self.actions
                .push_back(Action::Transitioned(Box::new(Transition {
                    key: task.key.clone(),
                    start,
                    finish,
                    stimulus_id: Arc::clone(&self.stimulus),
                    worker,
                })));
        }
        if task.is_barrier && matches!(finish, Released | Erred | Forgotten) {
            self.end_shuffle_of(id);
        }
    }
}

/// Whether a recommendation was overtaken by another one of the same round: only a task that waits or is parked can
/// go to a worker, only one that waits can be parked.
fn is_overtaken(start: TaskStateName, finish: TaskStateName) -> bool {
    match finish {
        Processing => !matches!(start, Waiting | Queued | NoWorker),
        Queued | NoWorker => start != Waiting,
        Released | Waiting | Memory | Erred | Forgotten => false,
    }
}
