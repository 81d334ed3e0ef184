//! Superfluous copies of results are dropped.
//!
//! Results are copied where tasks need them. When fewer workers need a result than hold it, the copies on the fullest
//! workers go. Source: distributed `active_memory_manager`: `ReduceReplicas`, and how its manager chooses.

use oxidask_protocol::Key;

use crate::action::TaskStateName::Memory;
use crate::event::AmmCommand;
use crate::ids::{TaskId, WorkerId};
use crate::state::set::Set;
use crate::timer::Timer;
use crate::{Core, IdMap, IdSet};

/// From this number of waiting tasks on it is not looked which of them share a worker.
const MANY_WAITERS: usize = 20;

impl Core {
    /// Switches the regular looks on or off, or looks once.
    pub(crate) fn command_memory_manager(&mut self, command: AmmCommand) {
        match command {
            AmmCommand::Start => {
                self.memory_manager_runs = true;
                self.watch_replicas();
            }
            AmmCommand::Stop => {
                self.memory_manager_runs = false;
                self.timers.stop(Timer::Replicas);
            }
            AmmCommand::RunOnce => self.reduce_replicas(),
        }
    }

    /// Whether it is looked for superfluous copies from time to time.
    pub fn memory_manager_runs(&self) -> bool {
        self.memory_manager_runs
    }

    /// Looks at the copies from time to time while there are any.
    pub(crate) fn watch_replicas(&mut self) {
        if self.memory_manager_runs && !self.replicated.is_empty() {
            let interval = self.config.active_memory_manager_interval;
            self.timers.start(Timer::Replicas, self.now, interval);
        }
    }

    /// Drops the copies that nobody needs.
    pub(crate) fn reduce_replicas(&mut self) {
        if !self.config.reduce_replicas {
            return;
        }
        // What each worker will hold once it has dropped what it is told to.
        let mut memory: IdMap<WorkerId, u64> = self
            .workers
            .iter()
            .map(|(id, worker)| (*id, worker.memory.max(worker.nbytes)))
            .collect();
        let mut dropped: Vec<(Key, WorkerId)> = Vec::new();
        for id in self.replicated.iter().copied() {
            let task = &self.tasks[id];
            let mut left = task.who_has.clone();
            let superfluous = left.len().saturating_sub(self.wanted_copies(id));
            for _ in 0..superfluous {
                let Some(worker) = self.dropper(id, &left, &memory) else {
                    break;
                };
                left.remove(worker);
                let nbytes = u64::try_from(task.nbytes).unwrap_or(0);
                memory[&worker] = memory[&worker].saturating_sub(nbytes);
                dropped.push((task.key.clone(), worker));
            }
        }
        self.drop_replicas(&dropped);
    }

    /// One copy, or one on each worker that runs a task which needs it; a task without a worker counts as another.
    fn wanted_copies(&self, id: TaskId) -> usize {
        let waiters = &self.tasks[id].waiters;
        if waiters.len() >= MANY_WAITERS {
            return waiters.len();
        }
        let mut workers: IdSet<WorkerId> = IdSet::default();
        let mut unplaced = 0;
        for waiter in waiters.iter() {
            match self.tasks[waiter].processing_on {
                Some(worker) => {
                    workers.insert(worker);
                }
                None => unplaced += 1,
            }
        }
        (workers.len() + unplaced).max(1)
    }

    /// The holder that drops its copy: none that runs a task which needs it; one that leaves before others, then the
    /// fullest.
    ///
    /// The only copy on a worker that stays is not dropped for those on workers that leave and still need theirs: it
    /// would be copied again at once.
    /// Source: distributed `ActiveMemoryManagerExtension._find_dropper`.
    fn dropper(
        &self,
        id: TaskId,
        left: &Set<WorkerId>,
        memory: &IdMap<WorkerId, u64>,
    ) -> Option<WorkerId> {
        let task = &self.tasks[id];
        if task.state != Memory || task.is_actor || left.len() < 2 {
            return None;
        }
        let needing: Vec<WorkerId> = task
            .waiters
            .iter()
            .filter_map(|waiter| self.tasks[waiter].processing_on)
            .filter(|worker| left.contains(*worker))
            .collect();
        let free: Vec<WorkerId> = left.iter().filter(|w| !needing.contains(w)).collect();
        let runs = |worker: &WorkerId| self.workers[worker].is_running();
        let choice = free
            .iter()
            .copied()
            .max_by_key(|worker| (!runs(worker), memory[worker], *worker))?;
        let is_last_safe =
            free.len() == 1 && runs(&choice) && !needing.is_empty() && !needing.iter().any(runs);
        (!is_last_safe).then_some(choice)
    }
}
