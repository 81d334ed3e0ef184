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
    /// Copies under way: who was asked, and when.
    asked: IdMap<TaskId, (WorkerId, Time)>,
}

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
        let (retired, kept, asked) = (Vec::new(), Vec::new(), IdMap::default());
        self.retirements.push(Retirement {
            request,
            stimulus_id,
            leaving,
            retired,
            kept,
            asked,
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
            self.timers.stop(Timer::Retire);
        } else {
            self.timers.start(Timer::Retire, self.now, PATIENCE);
        }
    }

    fn continue_retirement(&mut self, retirement: &mut Retirement) {
        let leaving = std::mem::take(&mut retirement.leaving);
        let mut wanted: Vec<(Key, WorkerId)> = Vec::new();
        for worker in leaving {
            let Some(state) = self.workers.get(&worker) else {
                continue;
            };
            if state.status == WorkerStatus::Running {
                // Taken back by somebody else.
                retirement.kept.push(worker);
                continue;
            }
            let unique: Vec<TaskId> = state
                .has_what
                .iter()
                .copied()
                .filter(|id| self.is_only_on_leavers(*id))
                .collect();
            if unique.is_empty() && state.actors.is_empty() {
                retirement.retired.push(worker);
                continue;
            }
            let can_move = state.actors.is_empty() && !self.running.is_empty();
            if !can_move {
                let before = state.status_before_retirement;
                self.change_status(worker, before);
                retirement.kept.push(worker);
                continue;
            }
            for id in unique {
                self.ask_for_copy(retirement, id, &mut wanted);
            }
            retirement.leaving.push(worker);
        }
        let stimulus_id = Arc::clone(&retirement.stimulus_id);
        let before = std::mem::replace(&mut self.stimulus, stimulus_id);
        self.replicate_to(&wanted);
        self.stimulus = before;
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

    /// Asks the running worker with most room for a copy, unless one is on its way.
    fn ask_for_copy(
        &mut self,
        retirement: &mut Retirement,
        id: TaskId,
        wanted: &mut Vec<(Key, WorkerId)>,
    ) {
        if let Some((taker, at)) = retirement.asked.get(&id)
            && self.running.contains(taker)
            && self.now - *at < PATIENCE
        {
            return;
        }
        let under_way = |worker: WorkerId| -> u64 {
            let asked = retirement
                .asked
                .iter()
                .filter(|(_, (taker, _))| *taker == worker);
            asked
                .map(|(id, _)| {
                    self.tasks
                        .get(*id)
                        .map_or(0, |task| task.nbytes.max(0) as u64)
                })
                .sum()
        };
        let taker = self.running.iter().copied().min_by_key(|worker| {
            let state = &self.workers[worker];
            state.nbytes.max(state.memory) + under_way(*worker)
        });
        if let Some(taker) = taker {
            retirement.asked.insert(id, (taker, self.now));
            wanted.push((self.tasks[id].key.clone(), taker));
        }
    }
}
