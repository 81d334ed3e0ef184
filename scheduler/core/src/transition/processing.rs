//! Transitions of tasks that are assigned to a worker, and the way into and out of that state.

use std::sync::Arc;
use std::time::Duration;

use oxidask_protocol::Value;

use super::TaskStateName::{Erred, Memory, Processing, Released};
use crate::action::{Action, ComputeTask, Report};
use crate::event::{TaskError, TaskFinished};
use crate::ids::{TaskId, WorkerId};
use crate::state::task::{Blame, ResultType};
use crate::{Core, Time};

impl Core {
    /// Sends a ready task to a worker. Source: distributed `_add_to_processing`, `_task_to_msg`.
    pub(super) fn assign(&mut self, id: TaskId, on: WorkerId) {
        self.occupy(id, on);
        self.tasks[id].processing_on = Some(on);
        self.set_state(id, Processing);
        self.assigned += 1;
        if self.tasks[id].is_actor {
            self.workers[&on].actors.insert(id);
        }
        if let Some(error) = self.too_large_for(id, on) {
            let key = self.tasks[id].key.clone();
            self.tasks[id].blame_on(Arc::new(Blame { key, error }));
            self.recommend(id, Erred);
            return;
        }
        self.send_task(id, on);
    }

    pub(crate) fn send_task(&mut self, id: TaskId, on: WorkerId) {
        self.flush_freed_keys_of(on);
        let run_id = self.next_run_id;
        self.next_run_id += 1;
        self.tasks[id].run_id = run_id;
        let task = &self.tasks[id];
        let dependencies = task
            .dependencies
            .iter()
            .map(|dependency| {
                let nbytes = self.nbytes_or_default(dependency);
                let dependency = &self.tasks[dependency];
                (dependency.key.clone(), dependency.who_has.to_vec(), nbytes)
            })
            .collect();
        let priority = task
            .priority()
            .map_or((0.0, 0.0, 0), |p| (p.user, p.generation, p.order));
        let compute = ComputeTask {
            worker: on,
            key: task.key.clone(),
            run_id,
            priority,
            dependencies,
            run_spec: task
                .run_spec
                .clone()
                .expect("a task that waits has a definition"),
            annotations: task.annotations.clone(),
            actor: task.is_actor,
            duration: self.expected_duration(task.group),
            span_id: self.groups.get(task.group).span.clone(),
        };
        self.actions
            .push_back(Action::ComputeTask(Box::new(compute)));
    }

    /// The error of a task whose dependencies alone exceed the memory of its worker.
    fn too_large_for(&self, id: TaskId, on: WorkerId) -> Option<Arc<TaskError>> {
        let worker = &self.workers[&on];
        let task = &self.tasks[id];
        let input: u64 = task
            .dependencies
            .iter()
            .map(|d| u64::try_from(self.tasks[d].nbytes).unwrap_or(0))
            .sum();
        if worker.memory_limit == 0 || input <= worker.memory_limit {
            return None;
        }
        let mut text = format!(
            "Task {:?} has {} worth of input dependencies, but worker {} has memory_limit set to {}.",
            task.key,
            format_bytes(input),
            worker.address,
            format_bytes(worker.memory_limit)
        );
        if task.dependents.is_empty() {
            text.push_str(
                " It seems like you called client.compute() on a huge collection. Consider writing to distributed \
                 storage or slicing/reducing first.",
            );
        }
        Some(Arc::new(TaskError::builtin("MemoryError", &text)))
    }

    /// A task no longer runs on its worker. Gives the worker if it is still there.
    pub(crate) fn vacate(&mut self, id: TaskId) -> Option<WorkerId> {
        let on = self.tasks[id]
            .processing_on
            .take()
            .expect("a processing task has a worker");
        self.unoccupy(id, on);
        self.workers.contains_key(&on).then_some(on)
    }

    /// A task has its result. Source: distributed `_transition_processing_memory`, `_add_to_memory`.
    pub(crate) fn processing_to_memory(&mut self, id: TaskId, finished: TaskFinished) {
        let on = finished.worker;
        if let Some(seconds) = finished.compute {
            self.groups
                .prefix_of_mut(self.tasks[id].group)
                .observe(seconds.max(0.0));
        }
        let transfer: f64 = finished
            .other
            .iter()
            .filter(|(action, _)| action == "transfer")
            .map(|(_, seconds)| seconds.max(0.0))
            .sum();
        if transfer > 0.0 {
            let prefix = self.groups.prefix_of_mut(self.tasks[id].group);
            prefix.totals.transfer += transfer;
        }
        let nbytes = finished.nbytes.unwrap_or(self.config.default_data_size);
        let begun = Duration::try_from_secs_f64(finished.compute.unwrap_or(0.0));
        let start = Time(
            self.now
                .0
                .saturating_sub(begun.unwrap_or_default().as_nanos() as u64),
        );
        let figures = &mut self.groups.get_mut(self.tasks[id].group).figures;
        figures.note(start, self.now, nbytes, &finished.typename);
        if let Some(seconds) = finished.compute {
            figures.spend("compute", seconds.max(0.0));
        }
        for (action, seconds) in &finished.other {
            figures.spend(action, seconds.max(0.0));
        }
        self.vacate(id);
        self.set_nbytes(id, nbytes);
        self.tasks[id].result_type = Some(self.result_type(id, finished.typename, finished.type_));
        self.set_state(id, Memory);
        self.add_replica(id, on);
        self.recommend_ready_dependents(id);
        self.let_go_of_dependencies(id);
        if self.tasks[id].is_needed() {
            let task = &self.tasks[id];
            let type_ = task.result_type.as_ref().and_then(|t| t.pickle.clone());
            self.report(
                id,
                &Report::InMemory {
                    key: task.key.clone(),
                    type_,
                },
            );
        } else {
            self.recommend(id, Released);
        }
        self.release_fire_and_forget(id);
    }

    /// Shares the class with the task of the same group that had it last.
    fn result_type(
        &mut self,
        id: TaskId,
        name: Arc<str>,
        pickle: Option<bytes::Bytes>,
    ) -> Arc<ResultType> {
        let group = self.groups.get_mut(self.tasks[id].group);
        if let Some(known) = &group.result_type
            && known.name == name
            && known.pickle == pickle
        {
            return Arc::clone(known);
        }
        let pickle = pickle.map(|bytes| bytes::Bytes::copy_from_slice(&bytes));
        let new = Arc::new(ResultType { name, pickle });
        group.result_type = Some(Arc::clone(&new));
        new
    }

    /// Dependents that waited for this task alone can run; the first in order is placed first.
    pub(crate) fn recommend_ready_dependents(&mut self, id: TaskId) {
        let mut ready: Vec<TaskId> = Vec::new();
        for dependent in self.tasks[id].dependents.to_vec() {
            let task = &mut self.tasks[dependent];
            if task.waiting_on.remove(id) && task.waiting_on.is_empty() {
                ready.push(dependent);
            }
        }
        if ready.len() > 1 {
            ready.sort_by_key(|dependent| std::cmp::Reverse(self.tasks[*dependent].rank()));
        }
        for dependent in ready {
            self.recommend(dependent, Processing);
        }
    }

    /// Source: distributed `_transition_processing_released`.
    pub(super) fn processing_to_released(&mut self, id: TaskId) {
        if let Some(worker) = self.vacate(id) {
            self.workers[&worker].actors.swap_remove(&id);
            let key = self.tasks[id].key.clone();
            self.free_key(worker, key);
        }
        self.release_task(id);
    }

    /// Source: distributed `_transition_processing_erred`.
    pub(super) fn processing_to_erred(&mut self, id: TaskId) {
        if let Some(worker) = self.vacate(id) {
            self.workers[&worker].actors.swap_remove(&id);
        }
        self.fail(id);
    }
}

impl TaskError {
    /// An exception that the scheduler itself raises, of a builtin class.
    pub(crate) fn builtin(class: &str, text: &str) -> Self {
        Self {
            exception: Value::Bin(oxidask_protocol::exception::builtin(class, text)),
            traceback: Value::Nil,
            exception_text: format!("{class}({text:?})"),
            traceback_text: String::new(),
        }
    }
}

/// Dask's `format_bytes`.
fn format_bytes(n: u64) -> String {
    for (power, unit) in [
        (50, "PiB"),
        (40, "TiB"),
        (30, "GiB"),
        (20, "MiB"),
        (10, "kiB"),
    ] {
        if n as f64 >= (1_u64 << power) as f64 * 0.9 {
            return format!("{:.2} {unit}", n as f64 / (1_u64 << power) as f64);
        }
    }
    format!("{n} B")
}
