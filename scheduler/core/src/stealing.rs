//! Tasks move from busy workers to idle ones.
//!
//! A task that has not begun is asked back from its worker; only when that worker has given it up does another get
//! it. What is cheap to move for its computing time moves first.
//!
//! Source: distributed `stealing.py`; docs/scheduling.md.

use std::sync::Arc;

use oxidask_protocol::Key;

use crate::action::TaskStateName::{Processing, Released, Waiting};
use crate::action::{Action, StealNote, StealOutcome, StealRequested};
use crate::ids::{TaskId, WorkerId};
use crate::timer::Timer;
use crate::{Core, IdMap, IdSet};

/// Time that a move takes besides the transfer of data. Unit: seconds.
const LATENCY: f64 = 0.1;

/// Costs of moving a task, as powers of two of transfer over computing; tasks of a higher level do not move.
const LEVELS: usize = 15;

/// Workers with less work than this are not robbed, unless they are saturated. Unit: seconds.
pub(crate) const WORTH_ROBBING: f64 = 0.2;

/// Without saturated workers, as many of the busiest are looked at.
const VICTIMS: usize = 10;

/// Moves that have been asked for and not been answered.
#[derive(Debug, Default)]
pub(crate) struct Thefts {
    asked: IdMap<TaskId, Theft>,
    /// What the moves under way will change: seconds of work and tasks, by worker.
    balance: IdMap<WorkerId, (f64, i64)>,
    requests: u64,
}

#[derive(Clone, Debug)]
struct Theft {
    victim: WorkerId,
    thief: WorkerId,
    /// The thief's address, which is still to be named when it is gone.
    thief_address: Arc<str>,
    victim_seconds: f64,
    thief_seconds: f64,
    stimulus_id: Arc<str>,
}

impl Core {
    /// Looks at the balance from time to time while there are tasks that could move.
    pub(crate) fn watch_balance(&mut self) {
        if self.config.work_stealing && self.workers.len() > 1 && !self.prefix_counts.is_empty() {
            self.timers.start(
                Timer::Stealing,
                self.now,
                self.config.work_stealing_interval,
            );
        }
    }

    /// Source: distributed `WorkStealing.balance`.
    pub(crate) fn balance(&mut self) {
        let mut thieves: Vec<WorkerId> = self.idle.iter().copied().collect();
        if self.draining || thieves.is_empty() || thieves.len() == self.workers.len() {
            return;
        }
        self.leave_out_planned(&mut thieves);
        let mut requested = Vec::new();
        if thieves.is_empty() {
            return;
        }
        for (level, victim, tasks) in self.stealable_by_level(&thieves) {
            for id in tasks {
                if thieves.is_empty() {
                    break;
                }
                let Some(thief) = self.best_thief(id, &thieves) else {
                    continue;
                };
                if !self.is_worth_stealing(id, victim, thief) {
                    continue;
                }
                requested.push(self.request_of(level, id, victim, thief));
                self.ask_back(id, victim, thief);
                if !self.is_unoccupied(thief) {
                    thieves.retain(|other| *other != thief);
                }
            }
        }
        if !requested.is_empty() {
            self.note_theft(StealNote::Requested(requested));
        }
    }

    /// A worker whose part of a plan is still to come would give back what it takes now, with what that needs. Where
    /// all have a part, as while a plan is carried out, a short look shows it.
    fn leave_out_planned(&self, thieves: &mut Vec<WorkerId>) {
        let mut left: IdSet<WorkerId> = thieves.iter().copied().collect();
        for (id, worker) in &self.planned {
            if left.is_empty() {
                break;
            }
            if left.contains(worker) && self.tasks[*id].state == Waiting {
                left.swap_remove(worker);
            }
        }
        thieves.retain(|thief| left.contains(thief));
    }

    fn request_of(
        &self,
        level: usize,
        id: TaskId,
        victim: WorkerId,
        thief: WorkerId,
    ) -> StealRequested {
        let task = &self.tasks[id];
        StealRequested {
            level,
            key: task.key.clone(),
            cost: self.expected_duration(task.group) + self.transfer_seconds(id, victim),
            victim: Arc::clone(&self.workers[&victim].address),
            victim_occupancy: self.expected_occupancy(victim),
            thief: Arc::clone(&self.workers[&thief].address),
            thief_occupancy: self.expected_occupancy(thief),
        }
    }

    fn note_theft(&mut self, note: StealNote) {
        self.actions.push_back(Action::StealNoted(Box::new(note)));
    }

    /// Tasks that may move, the cheapest to move first: for each level, each victim and its tasks.
    fn stealable_by_level(&self, thieves: &[WorkerId]) -> Vec<(usize, WorkerId, Vec<TaskId>)> {
        let mut victims: Vec<WorkerId> = self.saturated.iter().copied().collect();
        if victims.is_empty() {
            victims = self.workers.keys().copied().collect();
            victims.sort_by(|a, b| {
                self.expected_occupancy(*b)
                    .total_cmp(&self.expected_occupancy(*a))
            });
            victims.truncate(VICTIMS);
            victims.retain(|victim| {
                let worker = &self.workers[victim];
                self.expected_occupancy(*victim) > WORTH_ROBBING
                    && self.expected_tasks(*victim) > i64::from(worker.nthreads)
                    && !thieves.contains(victim)
            });
        }
        victims.sort_by(|a, b| {
            self.expected_occupancy(*b)
                .total_cmp(&self.expected_occupancy(*a))
        });
        let mut levels: Vec<Vec<(usize, WorkerId, Vec<TaskId>)>> = vec![Vec::new(); LEVELS];
        for victim in victims {
            let mut of_victim: Vec<Vec<TaskId>> = vec![Vec::new(); LEVELS];
            for id in &self.workers[&victim].processing {
                if let Some(level) = self.cost_of_moving(*id, victim) {
                    of_victim[level].push(*id);
                }
            }
            for (level, tasks) in of_victim
                .into_iter()
                .enumerate()
                .filter(|(_, tasks)| !tasks.is_empty())
            {
                levels[level].push((level, victim, tasks));
            }
        }
        levels.into_iter().flatten().collect()
    }

    /// The level of a task: 0 where nothing has to be transferred; `None` if it must stay.
    ///
    /// Source: distributed `steal_time_ratio`.
    fn cost_of_moving(&self, id: TaskId, victim: WorkerId) -> Option<usize> {
        let worker = &self.workers[&victim];
        let begun = worker.long_running.contains(&id) || worker.executing.contains_key(&id);
        if self.tasks[id].is_actor || begun || self.thefts.asked.contains_key(&id) {
            return None;
        }
        self.level_of_moving(id)
    }

    /// What moving a task costs for its computing: 0 where nothing has to be transferred; `None` if it is too short to
    /// be worth a transfer.
    pub(crate) fn level_of_moving(&self, id: TaskId) -> Option<usize> {
        let task = &self.tasks[id];
        if self.groups.prefix_of(task.group).fast {
            return None;
        }
        if task.dependencies.is_empty() {
            return Some(0);
        }
        let seconds = self.expected_duration(task.group);
        let bytes: u64 = task
            .dependencies
            .iter()
            .map(|d| self.nbytes_or_default(d))
            .sum();
        let ratio = (bytes as f64 / self.bandwidth + LATENCY) / seconds;
        let level = (ratio.log2() + 6.0).round().max(1.0) as usize;
        (level < LEVELS).then_some(level)
    }

    /// The thief on which a task would start soonest, among equals the one that holds least; among those that it is
    /// restricted to. One that may run elsewhere too goes to any when none of these is a thief.
    ///
    /// Source: distributed `WorkStealing._get_thief`, `stealing_objective`.
    fn best_thief(&self, id: TaskId, thieves: &[WorkerId]) -> Option<WorkerId> {
        let task = &self.tasks[id];
        let mut allowed = thieves.to_vec();
        if let Some(valid) = self.valid_workers(task) {
            allowed.retain(|thief| valid.contains(thief));
            if allowed.is_empty() && self.allows_other_workers(task) {
                allowed = thieves.to_vec();
            }
        }
        let start = |worker: &WorkerId| {
            let threads = f64::from(self.workers[worker].nthreads);
            self.expected_occupancy(*worker) / threads + self.transfer_seconds(id, *worker)
        };
        allowed.into_iter().min_by(|a, b| {
            let held = |worker: &WorkerId| self.workers[worker].nbytes;
            start(a)
                .total_cmp(&start(b))
                .then_with(|| held(a).cmp(&held(b)))
        })
    }

    fn is_worth_stealing(&self, id: TaskId, victim: WorkerId, thief: WorkerId) -> bool {
        let compute = self.expected_duration(self.tasks[id].group);
        let at_thief = self.expected_occupancy(thief) + self.transfer_seconds(id, thief) + compute;
        let at_victim =
            self.expected_occupancy(victim) - (self.transfer_seconds(id, victim) + compute) / 2.0;
        at_thief <= at_victim
    }

    /// Occupancy once the moves under way have happened.
    fn expected_occupancy(&self, worker: WorkerId) -> f64 {
        self.occupancy(worker)
            + self
                .thefts
                .balance
                .get(&worker)
                .map_or(0.0, |(seconds, _)| *seconds)
    }

    fn expected_tasks(&self, worker: WorkerId) -> i64 {
        self.workers[&worker].processing.len() as i64
            + self
                .thefts
                .balance
                .get(&worker)
                .map_or(0, |(_, tasks)| *tasks)
    }

    /// Whether a worker still has less to do than its threads, or than half the mean.
    fn is_unoccupied(&self, worker: WorkerId) -> bool {
        let threads = f64::from(self.workers[&worker].nthreads);
        let mean = self.total_occupancy() / self.total_nthreads.max(1) as f64;
        (self.expected_tasks(worker) as f64) < threads
            || self.expected_occupancy(worker) < threads * mean / 2.0
    }

    fn ask_back(&mut self, id: TaskId, victim: WorkerId, thief: WorkerId) {
        self.thefts.requests += 1;
        let stimulus_id: Arc<str> = format!("steal-{}", self.thefts.requests).into();
        let compute = self.expected_duration(self.tasks[id].group);
        let theft = Theft {
            victim,
            thief,
            thief_address: Arc::clone(&self.workers[&thief].address),
            victim_seconds: compute + self.transfer_seconds(id, victim),
            thief_seconds: compute + self.transfer_seconds(id, thief),
            stimulus_id: Arc::clone(&stimulus_id),
        };
        self.thefts.begin(id, theft);
        let key = self.tasks[id].key.clone();
        self.actions.push_back(Action::StealRequest {
            worker: victim,
            key,
            stimulus_id,
        });
    }

    /// A task leaves its worker: a move that was asked for is off.
    pub(crate) fn end_theft(&mut self, id: TaskId) {
        if let Some(theft) = self.thefts.asked.swap_remove(&id) {
            self.thefts.count(&theft, -1);
        }
    }

    /// A worker's answer. Source: distributed `move_task_confirm`.
    pub(crate) fn steal_responded(
        &mut self,
        worker: WorkerId,
        key: &Key,
        state: Option<&str>,
        stimulus_id: &str,
    ) {
        let Some(id) = self.tasks.find(key) else {
            return;
        };
        let outcome = match self.thefts.asked.get(&id).cloned() {
            None => StealOutcome::Aborted,
            Some(theft) if *theft.stimulus_id != *stimulus_id || theft.victim != worker => {
                StealOutcome::Stale
            }
            Some(theft) => {
                self.end_theft(id);
                self.settle(id, theft, state)
            }
        };
        if let Some(victim) = self.workers.get(&worker) {
            let note = StealNote::Answered {
                outcome,
                key: key.clone(),
                state: state.map(ToOwned::to_owned),
                victim: Arc::clone(&victim.address),
                stimulus_id: stimulus_id.into(),
            };
            self.note_theft(note);
        }
    }

    /// Does what the answer to a request asks for.
    fn settle(&mut self, id: TaskId, theft: Theft, state: Option<&str>) -> StealOutcome {
        let Theft {
            victim,
            thief,
            thief_address,
            ..
        } = theft;
        if self.tasks[id].state != Processing || self.tasks[id].processing_on != Some(victim) {
            return StealOutcome::Aborted;
        }
        match state {
            // Given up: the thief gets it.
            Some("waiting" | "ready" | "constrained")
                if self.running.contains(&thief) && !self.draining =>
            {
                self.hand_over(id, victim, thief);
                StealOutcome::Confirmed(thief_address)
            }
            // Given up, but the thief is gone; or the worker does not know it any more.
            Some("waiting" | "ready" | "constrained" | "released") | None => {
                self.recommend(id, Released);
                StealOutcome::Rescheduled {
                    thief: thief_address,
                    thief_is_gone: !self.workers.contains_key(&thief),
                }
            }
            // It has begun, and need not be asked for again.
            Some(_) => {
                self.workers[&victim].executing.entry(id).or_insert(0.0);
                StealOutcome::AlreadyComputing(thief_address)
            }
        }
    }

    fn hand_over(&mut self, id: TaskId, victim: WorkerId, thief: WorkerId) {
        self.unoccupy(id, victim);
        self.occupy(id, thief);
        self.tasks[id].processing_on = Some(thief);
        self.send_task(id, thief);
    }
}

impl Thefts {
    fn begin(&mut self, id: TaskId, theft: Theft) {
        // Asked for first: while nothing is, nothing is counted.
        self.asked.insert(id, theft.clone());
        self.count(&theft, 1);
    }

    /// Counts a move that will happen (1), or one that is off or has happened (−1).
    fn count(&mut self, theft: &Theft, sign: i64) {
        let moves = [
            (theft.victim, -theft.victim_seconds, -1),
            (theft.thief, theft.thief_seconds, 1),
        ];
        for (worker, seconds, tasks) in moves {
            let entry = self.balance.entry(worker).or_default();
            entry.0 += seconds * sign as f64;
            entry.1 += tasks * sign;
        }
        if self.asked.is_empty() {
            // Nothing is under way; rounding errors go with it.
            self.balance.clear();
        }
    }
}
