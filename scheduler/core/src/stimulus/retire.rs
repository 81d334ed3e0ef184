//! Workers leave without loss: what only they hold moves first.

use std::sync::Arc;
use std::time::Duration;

use oxidask_protocol::Key;

use crate::action::Action;
use crate::event::WorkerStatus;
use crate::ids::{RequestId, TaskId, WorkerId};
use crate::timer::Timer;
use crate::{Core, IdMap, Time};

/// A copy that did not come within this time is asked for again, elsewhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request to take workers out of service.
#[derive(Debug)]
pub(crate) struct Retirement {
    request: RequestId,
    stimulus_id: Arc<str>,
    /// Workers whose data are still moving.
    leaving: Vec<WorkerId>,
    retired: Vec<WorkerId>,
    kept: Vec<WorkerId>,
}

/// Copies under way from workers that leave: who was asked, and when.
pub(crate) type Copies = IdMap<TaskId, (WorkerId, Time)>;

impl Core {
    /// Source: distributed `retire_workers` and the policy `RetireWorker`.
    pub(super) fn retire_workers(&mut self, request: RequestId, workers: Vec<WorkerId>) {
        let leaving: Vec<WorkerId> = workers
            .into_iter()
            .filter(|w| self.workers.contains_key(w))
            .collect();
        let stimulus_id = Arc::clone(&self.stimulus);
        for worker in &leaving {
            let state = &mut self.workers[worker];
            if state.status != WorkerStatus::ClosingGracefully {
                state.status_before_retirement = state.status;
            }
            self.change_status(*worker, WorkerStatus::ClosingGracefully);
        }
        let (retired, kept) = (Vec::new(), Vec::new());
        self.retirements.push(Retirement {
            request,
            stimulus_id,
            leaving,
            retired,
            kept,
        });
        self.continue_retirements();
    }

    /// Sets a worker's state here and there.
    fn change_status(&mut self, worker: WorkerId, status: WorkerStatus) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        if state.status == status {
            return;
        }
        state.status = status;
        if status == WorkerStatus::Running {
            self.running.insert(worker);
        } else {
            self.running.remove(&worker);
        }
        self.note_busyness(worker);
        let stimulus_id = Arc::clone(&self.stimulus);
        self.actions.push_back(Action::ChangeWorkerStatus {
            worker,
            status,
            stimulus_id,
        });
    }

    /// Goes on with what is to be moved, after anything that may have changed it.
    pub(crate) fn continue_retirements(&mut self) {
        if self.retirements.is_empty() {
            return;
        }
        for mut retirement in std::mem::take(&mut self.retirements) {
            self.continue_retirement(&mut retirement);
            if retirement.leaving.is_empty() {
                let Retirement {
                    request,
                    retired,
                    kept,
                    ..
                } = retirement;
                self.actions.push_back(Action::WorkersRetired {
                    request,
                    retired,
                    kept,
                });
            } else {
                self.retirements.push(retirement);
            }
        }
        if self.retirements.is_empty() {
            self.copies = Copies::default();
            self.timers.stop(Timer::Retire);
        } else {
            self.timers.start(Timer::Retire, self.now, PATIENCE);
        }
    }

    fn continue_retirement(&mut self, retirement: &mut Retirement) {
        let leaving = std::mem::take(&mut retirement.leaving);
        let mut wanted: Vec<(Key, WorkerId)> = Vec::new();
        let mut under_way = self.bytes_under_way();
        for worker in leaving {
            let Some(state) = self.workers.get(&worker) else {
                continue;
            };
            if state.status == WorkerStatus::Running {
                // Taken back by somebody else.
                self.end_retirement(retirement, worker, false);
                continue;
            }
            let unique: Vec<TaskId> = state
                .has_what
                .iter()
                .copied()
                .filter(|id| self.is_only_on_leavers(*id))
                .collect();
            if unique.is_empty() && state.actors.is_empty() {
                self.give_copies_away(worker);
                self.end_retirement(retirement, worker, true);
                continue;
            }
            let can_move = state.actors.is_empty() && !self.running.is_empty();
            if !can_move {
                let before = state.status_before_retirement;
                self.change_status(worker, before);
                self.end_retirement(retirement, worker, false);
                continue;
            }
            for id in unique {
                self.ask_for_copy(id, &mut under_way, &mut wanted);
            }
            retirement.leaving.push(worker);
        }
        let stimulus_id = Arc::clone(&retirement.stimulus_id);
        let before = std::mem::replace(&mut self.stimulus, stimulus_id);
        self.replicate_to(&wanted);
        self.stimulus = before;
    }

    /// A worker that may go drops what its own tasks do not need, in case it stays after all. Each has another copy.
    fn give_copies_away(&mut self, worker: WorkerId) {
        let is_needed = |id: &TaskId| {
            let waiters = &self.tasks[*id].waiters;
            waiters
                .iter()
                .any(|waiter| self.tasks[waiter].processing_on == Some(worker))
        };
        let has_what = &self.workers[&worker].has_what;
        let superfluous: Vec<(Key, WorkerId)> = has_what
            .iter()
            .filter(|id| !self.tasks[**id].is_actor && !is_needed(id))
            .map(|id| (self.tasks[*id].key.clone(), worker))
            .collect();
        self.drop_replicas(&superfluous);
    }

    fn end_retirement(&mut self, retirement: &mut Retirement, worker: WorkerId, may_go: bool) {
        if may_go {
            retirement.retired.push(worker);
        } else {
            retirement.kept.push(worker);
        }
        self.actions.push_back(Action::WorkerRetired {
            request: retirement.request,
            worker,
            may_go,
        });
    }

    /// Every copy is on a worker that does not stay.
    fn is_only_on_leavers(&self, id: TaskId) -> bool {
        let leaves = |worker: &WorkerId| {
            !matches!(
                self.workers[worker].status,
                WorkerStatus::Running | WorkerStatus::Paused
            )
        };
        self.tasks[id].who_has.iter().all(|worker| leaves(&worker))
    }

    /// Bytes that each taker is about to get.
    fn bytes_under_way(&self) -> IdMap<WorkerId, u64> {
        let mut bytes = IdMap::default();
        for (id, (taker, _)) in &self.copies {
            if let Some(task) = self.tasks.get(*id)
                && !task.who_has.contains(*taker)
            {
                *bytes.entry(*taker).or_default() += u64::try_from(task.nbytes).unwrap_or(0);
            }
        }
        bytes
    }

    /// Asks the running worker with most room for a copy, unless one is on its way.
    fn ask_for_copy(
        &mut self,
        id: TaskId,
        under_way: &mut IdMap<WorkerId, u64>,
        wanted: &mut Vec<(Key, WorkerId)>,
    ) {
        if let Some((taker, at)) = self.copies.get(&id)
            && self.running.contains(taker)
            && self.now - *at < PATIENCE
        {
            return;
        }
        let taker = self.running.iter().copied().min_by_key(|worker| {
            let state = &self.workers[worker];
            state.nbytes.max(state.memory) + under_way.get(worker).copied().unwrap_or(0)
        });
        if let Some(taker) = taker {
            let task = &self.tasks[id];
            *under_way.entry(taker).or_default() += u64::try_from(task.nbytes).unwrap_or(0);
            wanted.push((task.key.clone(), taker));
            self.copies.insert(id, (taker, self.now));
        }
    }
}
