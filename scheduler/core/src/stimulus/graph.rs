//! A client submits a graph.

use oxidask_protocol::Key;

use crate::Core;
use crate::action::TaskStateName::{Erred, Forgotten, Memory, Released, Waiting};
use crate::action::{Action, GraphUpdated};
use crate::event::{Actors, NewTask, TaskRole, UpdateGraph};
use crate::ids::{ClientId, TaskId};
use crate::state::task::Priority;

/// A task submitted from inside a task comes before those of its parent's generation by this much.
const SUBTASK_ADVANCE: f64 = 0.01;

impl Core {
    /// Source: distributed `update_graph`, `_create_taskstate_from_graph`, `_generate_taskstates`.
    pub(super) fn update_graph(&mut self, graph: UpdateGraph) {
        let UpdateGraph {
            client,
            tasks,
            wanted,
            submitting_task,
            fifo_timeout,
            actors,
            user_priority,
            span_metadata,
            code,
            stimulus_id,
        } = graph;
        let mut outcome = GraphUpdated {
            client: Some(client),
            stimulus_id,
            tasks: tasks.len(),
            ..GraphUpdated::default()
        };
        if !self.clients.contains_key(&client) {
            return;
        }
        let generation = self.begin_generation(submitting_task.as_ref(), fifo_timeout);
        let mut new: Vec<TaskId> = Vec::with_capacity(tasks.len());
        let (defined, key_collisions) = self.define(tasks, generation, user_priority, &mut new);
        outcome.new_tasks = new.len();
        outcome.key_collisions = key_collisions;
        if let Some(lost) = self.lost_dependencies(&wanted, &defined) {
            self.refuse_lost(client, wanted, &lost, &defined, &new);
            outcome.refused = true;
            self.actions
                .push_back(Action::GraphUpdated(Box::new(outcome)));
            return;
        }
        let touched = self.connect(defined);
        let described = (span_metadata.as_ref(), code.as_ref());
        self.observe_spans(&touched, described, &mut None);
        self.plan_batch(&touched);

        let mut wanted_ids: Vec<TaskId> = Vec::with_capacity(wanted.len());
        for key in &wanted {
            let Some(id) = self.tasks.find(key) else {
                continue;
            };
            self.begin_interest(client, id);
            wanted_ids.push(id);
        }
        self.mark_actors(&actors, &wanted_ids);

        // A placeholder that somebody wanted may be defined by a graph that does not ask for it.
        let wanted_before = touched
            .iter()
            .copied()
            .filter(|id| !self.tasks[*id].who_wants.is_empty());
        let mut start: Vec<TaskId> = wanted_ids.iter().copied().chain(wanted_before).collect();
        start.retain(|id| self.tasks[*id].state == Released);
        start.sort_by_key(|id| std::cmp::Reverse(self.tasks[*id].rank()));
        for id in start {
            self.recommend(id, Waiting);
        }
        for id in new {
            let task = &self.tasks[id];
            if task.dependents.is_empty() && task.who_wants.is_empty() {
                self.recommend(id, Forgotten);
            }
        }
        for id in &touched {
            self.blame_erred_dependency(*id);
        }
        if self.graphs_observed {
            let key = |id: &TaskId| self.tasks[*id].key.clone();
            outcome.touched = touched.iter().map(key).collect();
            outcome.wanted = wanted;
        }
        self.actions
            .push_back(Action::GraphUpdated(Box::new(outcome)));
        // What was in memory or erred before is reported at once; the rest when it gets there.
        let reported: Vec<TaskId> = wanted_ids
            .into_iter()
            .filter(|id| matches!(self.tasks[*id].state, Memory | Erred))
            .collect();
        for id in reported {
            self.report_state(client, id);
        }
    }

    /// The generation of the tasks of a graph: later graphs come after earlier ones.
    ///
    /// Source: distributed `_set_priorities`.
    pub(crate) fn begin_generation(
        &mut self,
        submitting_task: Option<&Key>,
        fifo_timeout: std::time::Duration,
    ) -> f64 {
        if let Some(key) = submitting_task {
            let parent = self
                .tasks
                .find(key)
                .and_then(|id| self.tasks[id].priority());
            return parent.map_or(self.generation, |priority| {
                priority.generation - SUBTASK_ADVANCE
            });
        }
        if self
            .generation_began
            .is_none_or(|began| self.now - began > fifo_timeout)
        {
            self.generation += 1.0;
            self.generation_began = Some(self.now);
        }
        self.generation
    }

    /// Makes the tasks of a graph, or gives a definition to those that had none. What is defined already keeps its
    /// definition. Gives each task with the dependencies that its definition names, and how many kept another one.
    fn define(
        &mut self,
        tasks: Vec<NewTask>,
        generation: f64,
        user_priority: f64,
        new: &mut Vec<TaskId>,
    ) -> (Vec<(TaskId, Vec<Key>)>, usize) {
        let mut collisions = 0;
        let mut defined = Vec::with_capacity(tasks.len());
        for task in tasks {
            let id = match self.tasks.find(&task.key) {
                Some(id) => id,
                None => {
                    let id = self.new_task(task.key.clone());
                    new.push(id);
                    id
                }
            };
            match self.define_one(id, task, generation, user_priority) {
                Ok(dependencies) => defined.push((id, dependencies)),
                Err(collides) => collisions += usize::from(collides),
            }
        }
        (defined, collisions)
    }

    /// Gives a task its definition, if it has none. Gives the dependencies that the definition names.
    ///
    /// # Errors
    /// If it has one, which it keeps: whether that is another one.
    pub(crate) fn define_one(
        &mut self,
        id: TaskId,
        task: NewTask,
        generation: f64,
        user_priority: f64,
    ) -> Result<Vec<Key>, bool> {
        let NewTask {
            key: _,
            run_spec,
            dependencies,
            order,
            data_producer,
            annotations,
            role,
        } = task;
        if self.tasks[id].run_spec.is_some() {
            return Err(self.is_collision(id, &dependencies));
        }
        let task = &mut self.tasks[id];
        let user = annotations
            .as_ref()
            .and_then(|a| a.priority)
            .unwrap_or(user_priority);
        task.set_priority(Priority {
            user: -user,
            generation,
            order,
        });
        task.run_spec = Some(run_spec);
        task.data_producer = data_producer;
        task.is_barrier = role == TaskRole::ShuffleBarrier;
        let retries = annotations.as_ref().map_or(0, |a| a.retries);
        if retries != task.special().retries {
            task.special_mut().retries = retries;
        }
        task.annotations = annotations;
        Ok(dependencies)
    }

    /// One name for two different tasks is the user's mistake; the first definition holds.
    fn is_collision(&self, id: TaskId, dependencies: &[Key]) -> bool {
        let task = &self.tasks[id];
        let same = task.dependencies.len() == dependencies.len()
            && dependencies.iter().all(|key| {
                self.tasks
                    .find(key)
                    .is_some_and(|d| task.dependencies.contains(d))
            });
        let collides = !same && task.run_spec.is_some();
        if collides {
            tracing::warn!(
                key = %task.key,
                "detected different `run_spec` for one key in two graphs: the first is kept; use unique key names"
            );
        }
        collides
    }

    /// Keys that are needed, but that nobody has defined and no worker holds.
    fn lost_dependencies(
        &self,
        wanted: &[Key],
        defined: &[(TaskId, Vec<Key>)],
    ) -> Option<Vec<Key>> {
        let is_lost = |key: &&Key| match self.tasks.find(key) {
            Some(id) => self.tasks[id].run_spec.is_none() && self.tasks[id].who_has.is_empty(),
            None => true,
        };
        let lost: Vec<Key> = wanted
            .iter()
            .chain(defined.iter().flat_map(|(_, d)| d))
            .filter(is_lost)
            .cloned()
            .collect();
        (!lost.is_empty()).then_some(lost)
    }

    /// A graph that needs data which are gone is refused as a whole, as if it had never come.
    fn refuse_lost(
        &mut self,
        client: ClientId,
        wanted: Vec<Key>,
        lost: &[Key],
        defined: &[(TaskId, Vec<Key>)],
        new: &[TaskId],
    ) {
        tracing::info!(missing = %lost[0], count = lost.len(), "a graph depends on lost data; its keys are cancelled");
        for (id, _) in defined {
            let task = &mut self.tasks[*id];
            task.run_spec = None;
            task.annotations = None;
            task.is_barrier = false;
        }
        for id in new {
            self.transition(*id, Forgotten);
        }
        let reason = Some("lost dependencies".to_owned());
        self.actions.push_back(Action::CancelledKeys {
            client: Some(client),
            keys: wanted,
            reason,
            message: None,
        });
    }

    /// Draws the edges of newly defined tasks. Gives the tasks.
    fn connect(&mut self, defined: Vec<(TaskId, Vec<Key>)>) -> Vec<TaskId> {
        let mut touched = Vec::with_capacity(defined.len());
        for (id, dependencies) in defined {
            self.connect_one(id, &dependencies);
            touched.push(id);
        }
        touched
    }

    /// Draws the edges of a newly defined task.
    pub(crate) fn connect_one(&mut self, id: TaskId, dependencies: &[Key]) {
        let group = self.tasks[id].group;
        for key in dependencies {
            let Some(dependency) = self.tasks.find(key) else {
                // It went between two slices of a large graph.
                self.tasks[id].has_lost_dependencies = true;
                continue;
            };
            if dependency == id {
                continue;
            }
            self.tasks[id].dependencies.insert(dependency);
            self.tasks[dependency].dependents.insert(id);
            if self.tasks[dependency].is_barrier {
                self.tasks[id].never_queued = true;
            }
            let other = self.tasks[dependency].group;
            self.groups.get_mut(group).dependencies.insert(other);
        }
    }

    pub(crate) fn mark_actors(&mut self, actors: &Actors, wanted: &[TaskId]) {
        match actors {
            Actors::None => {}
            Actors::Wanted => {
                for id in wanted {
                    self.tasks[*id].is_actor = true;
                }
            }
            Actors::Keys(keys) => {
                for id in keys
                    .iter()
                    .filter_map(|key| self.tasks.find(key))
                    .collect::<Vec<_>>()
                {
                    self.tasks[id].is_actor = true;
                }
            }
        }
    }
}
