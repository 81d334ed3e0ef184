//! Every invariant that the field docs state, as a check. Tests call it after each event.

use crate::Core;
use crate::action::TaskStateName::{
    Erred, Forgotten, Memory, NoWorker, Processing, Queued, Released, Waiting,
};
use crate::event::WorkerStatus;
use crate::ids::{TaskId, WorkerId};
use crate::slices::TAKING_IN;
use crate::state::task::Task;
use crate::state::worker::Worker;

/// A broken invariant: always a mistake in the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition { return Err(Violation(format!($($message)*))); }
    };
}

impl Core {
    /// Checks the whole state. Cost: proportional to all tasks and edges.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn validate(&self) -> Result<(), Violation> {
        ensure!(
            self.recommendations.is_empty(),
            "recommendations are left after an event"
        );
        ensure!(
            self.freed.is_empty(),
            "keys to free are left after an event"
        );
        for (id, task) in self.tasks.iter() {
            self.validate_edges(id, task)?;
            self.validate_state(id, task)?;
        }
        for (id, worker) in &self.workers {
            self.validate_worker(*id, worker)?;
        }
        self.validate_totals()
    }

    fn validate_edges(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        let key = &task.key;
        ensure!(
            self.tasks.find(key) == Some(id),
            "{key}: not found by its key"
        );
        for dependency in task.dependencies.iter() {
            let other = self.tasks.get(dependency);
            ensure!(
                other.is_some_and(|t| t.dependents.contains(id)),
                "{key}: dependency without the edge back"
            );
        }
        for dependent in task.dependents.iter() {
            let other = self.tasks.get(dependent);
            ensure!(
                other.is_some_and(|t| t.dependencies.contains(id)),
                "{key}: dependent without the edge back"
            );
        }
        for waiter in task.waiters.iter() {
            ensure!(
                task.dependents.contains(waiter),
                "{key}: waiter that is no dependent"
            );
            let state = self.tasks[waiter].state;
            ensure!(
                matches!(state, Waiting | NoWorker | Queued | Processing),
                "{key}: waiter in {state:?}"
            );
        }
        for client in task.who_wants.iter() {
            let wants = self
                .clients
                .get(&client)
                .is_some_and(|c| c.wants.contains(&id));
            ensure!(wants, "{key}: wanted by a client that does not know it");
        }
        for worker in task.who_has.iter() {
            let has = self
                .workers
                .get(&worker)
                .is_some_and(|w| w.has_what.contains(&id));
            ensure!(has, "{key}: held by a worker that does not have it");
        }
        Ok(())
    }

    fn validate_state(&self, id: TaskId, task: &Task) -> Result<(), Violation> {
        let key = &task.key;
        let state = task.state;
        ensure!(state != Forgotten, "{key}: forgotten, yet known");
        ensure!(
            (state == Queued) == self.queued.contains(task.rank(), id),
            "{key}: {state:?} against the queue"
        );
        ensure!(
            (state == NoWorker) == self.unrunnable.contains_key(&id),
            "{key}: {state:?} against unrunnable"
        );
        ensure!(
            (state == Processing) == task.processing_on.is_some(),
            "{key}: {state:?} against its worker"
        );
        ensure!(
            (state == Memory) != task.who_has.is_empty(),
            "{key}: {state:?} with {} copies",
            task.who_has.len()
        );
        ensure!(
            state == Waiting || task.waiting_on.is_empty(),
            "{key}: {state:?}, but waits for dependencies"
        );
        ensure!(
            state != Erred || task.failure().is_some(),
            "{key}: erred without a failure"
        );
        if matches!(state, Waiting | NoWorker | Queued | Processing) {
            ensure!(
                task.run_spec.is_some(),
                "{key}: {state:?} without a definition"
            );
            ensure!(task.is_needed(), "{key}: {state:?}, but nobody needs it");
            ensure!(
                !task.has_lost_dependencies,
                "{key}: {state:?} with lost dependencies"
            );
            for dependency in task.dependencies.iter() {
                let other = &self.tasks[dependency];
                ensure!(
                    other.waiters.contains(id),
                    "{key}: {state:?}, but {} does not know that",
                    other.key
                );
                let waits = task.waiting_on.contains(dependency);
                ensure!(
                    waits == other.who_has.is_empty(),
                    "{key}: waits for {} in {:?}: {waits}",
                    other.key,
                    other.state
                );
                ensure!(
                    !waits || matches!(other.state, Waiting | NoWorker | Queued | Processing),
                    "{key}: waits for {}, which is {:?}",
                    other.key,
                    other.state
                );
            }
            ensure!(
                state != Waiting || !task.waiting_on.is_empty(),
                "{key}: waits for nothing"
            );
        }
        // What is taken in with a large graph starts when all of it is known.
        if state == Released && task.run_spec.is_some() && !task.who_wants.contains(TAKING_IN) {
            ensure!(
                !task.is_needed(),
                "{key}: needed, but nothing is done for it"
            );
        }
        if let Some(worker) = task.processing_on {
            let has = self
                .workers
                .get(&worker)
                .is_some_and(|w| w.processing.contains(&id));
            ensure!(has, "{key}: processing on a worker that does not know it");
        }
        Ok(())
    }

    fn validate_worker(&self, id: WorkerId, worker: &Worker) -> Result<(), Violation> {
        let name = &worker.address;
        for task in &worker.processing {
            let on = self.tasks.get(*task).and_then(|task| task.processing_on);
            ensure!(on == Some(id), "{name}: processes a task that is elsewhere");
        }
        for task in &worker.has_what {
            ensure!(
                self.tasks
                    .get(*task)
                    .is_some_and(|t| t.who_has.contains(id)),
                "{name}: has what it has not"
            );
        }
        let nbytes: u64 = worker
            .has_what
            .iter()
            .map(|task| self.tasks[*task].nbytes.max(0) as u64)
            .sum();
        ensure!(
            nbytes == worker.nbytes,
            "{name}: counts {} bytes, has {nbytes}",
            worker.nbytes
        );
        for task in worker.long_running.iter().chain(worker.executing.keys()) {
            ensure!(
                worker.processing.contains(task),
                "{name}: runs a task that it does not process"
            );
        }
        let counted: u64 = worker.prefix_counts.values().sum();
        ensure!(
            counted == worker.busy() as u64,
            "{name}: counts {counted} tasks, has {}",
            worker.busy()
        );
        let network: u64 = worker.needs.values().map(|(_, bytes)| bytes).sum();
        ensure!(
            network == worker.network_bytes,
            "{name}: counts {} bytes to fetch, needs {network}",
            worker.network_bytes
        );
        for (needed, (count, _)) in &worker.needs {
            let users = worker
                .processing
                .iter()
                .filter(|t| self.tasks[**t].dependencies.contains(*needed))
                .count();
            ensure!(
                *count == users as u64,
                "{name}: {count} tasks need a key, {users} do"
            );
        }
        let runs = worker.status == WorkerStatus::Running;
        ensure!(
            runs == self.running.contains(&id),
            "{name}: {:?} against running",
            worker.status
        );
        ensure!(
            runs || !self.idle.contains(&id),
            "{name}: {:?}, but idle",
            worker.status
        );
        let open = worker
            .open_at
            .is_some_and(|at| self.open.contains(&(at, id)));
        ensure!(
            open == worker.open_at.is_some(),
            "{name}: place among open workers is wrong"
        );
        Ok(())
    }

    fn validate_totals(&self) -> Result<(), Violation> {
        let threads: u64 = self.workers.values().map(|w| u64::from(w.nthreads)).sum();
        ensure!(
            threads == self.total_nthreads,
            "{threads} threads, counted {}",
            self.total_nthreads
        );
        let network: u64 = self.workers.values().map(|w| w.network_bytes).sum();
        ensure!(
            network == self.network_bytes,
            "{network} bytes to fetch, counted {}",
            self.network_bytes
        );
        let busy: u64 = self.workers.values().map(|w| w.busy() as u64).sum();
        let counted: u64 = self.prefix_counts.values().sum();
        ensure!(
            busy == counted,
            "{busy} tasks processing, counted {counted}"
        );
        let open = self
            .workers
            .values()
            .filter(|w| w.open_at.is_some())
            .count();
        ensure!(
            open == self.open.len(),
            "{} open workers, {open} know it",
            self.open.len()
        );
        for (id, worker) in &self.planned {
            ensure!(
                self.tasks.get(*id).is_some() && self.workers.contains_key(worker),
                "a plan for a task or a worker that is not there"
            );
        }
        ensure!(
            self.fading().all(|id| self.tasks.get(id).is_some()),
            "a task that is gone is to be forgotten"
        );
        let queued = self.tasks.iter().filter(|(_, t)| t.state == Queued).count();
        ensure!(
            queued == self.queued.len(),
            "{} in the queue, {queued} queued",
            self.queued.len()
        );
        let replicated = self
            .tasks
            .iter()
            .filter(|(_, t)| t.who_has.len() > 1)
            .count();
        let known = self
            .replicated
            .iter()
            .all(|id| self.tasks.get(*id).is_some_and(|t| t.who_has.len() > 1));
        ensure!(
            known && replicated == self.replicated.len(),
            "the set of results with several copies is wrong"
        );
        let counts = self.task_counts();
        ensure!(
            counts.iter().sum::<u64>() == self.tasks.len() as u64,
            "counts of states do not add up: {counts:?}"
        );
        let in_memory = self.tasks.iter().filter(|(_, t)| t.state == Memory);
        let bytes: u64 = in_memory
            .map(|(_, t)| u64::try_from(t.nbytes).unwrap_or(0))
            .sum();
        let counted: u64 = self
            .groups
            .prefixes()
            .map(|prefix| prefix.totals.output_bytes)
            .sum();
        ensure!(
            bytes == counted,
            "{bytes} bytes in memory, counted {counted}"
        );
        for (id, client) in &self.clients {
            for task in &client.wants {
                let wanted = self
                    .tasks
                    .get(*task)
                    .is_some_and(|task| task.who_wants.contains(*id));
                ensure!(
                    wanted,
                    "{}: wants a task that does not know it",
                    client.name
                );
            }
        }
        Ok(())
    }
}
