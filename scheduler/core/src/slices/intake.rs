//! A large graph comes in.
//!
//! Its tasks are first made known as placeholders, which nothing is done for, and looked at for dependencies that are
//! gone: such a graph is refused before anything has come of it. Then each task gets its definition and its edges,
//! each is asked whether something needs it, those that are needed start in the order of their priority, and what is
//! not needed goes. A pseudo client wants all tasks and dependencies meanwhile, so that none is released, forgotten
//! or given to another key before what needs it is there.

use oxidask_protocol::Key;

use crate::Core;
use crate::action::TaskStateName::{Released, Waiting};
use crate::action::{Action, GraphUpdated};
use crate::event::{NewTask, UpdateGraph};
use crate::ids::{ClientId, TaskId};
use crate::state::Client;
use crate::state::task::Rank;

/// The pseudo client that wants what comes in. Drivers number clients from below.
pub(crate) const TAKING_IN: ClientId = ClientId(u32::MAX);

/// A graph under way.
#[derive(Debug)]
pub(crate) struct Intake {
    graph: UpdateGraph,
    generation: f64,
    stage: Stage,
    /// How much of the stage is done.
    done: usize,
    /// Tasks that are not defined yet, once all have been looked at.
    undefined: std::vec::IntoIter<NewTask>,
    /// One for each task of the graph.
    ids: Vec<TaskId>,
    /// Tasks that others have defined and these depend on.
    others: Vec<TaskId>,
    /// Tasks that got their definition by this graph.
    touched: Vec<TaskId>,
    /// Tasks that are to start, by priority.
    start: Vec<(Rank, TaskId)>,
    /// The span of those tasks that name none.
    default_span: Option<std::sync::Arc<str>>,
    outcome: GraphUpdated,
}

/// What is done for one task or key after the other.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Make them known.
    Announce,
    /// Look for dependencies that are gone.
    Check,
    /// Look for wanted keys that are gone.
    CheckWanted,
    /// Give definitions and draw edges.
    Define,
    /// Give them their span.
    Spans,
    /// Note the client's interest.
    Want,
    /// Find those that are needed, dependents before their dependencies.
    Choose,
    /// Have them done.
    Start,
    /// Let go of what was held meanwhile.
    LetGo,
}

impl Intake {
    pub(super) fn new(graph: UpdateGraph, generation: f64) -> Self {
        let outcome = GraphUpdated {
            client: Some(graph.client),
            stimulus_id: std::sync::Arc::clone(&graph.stimulus_id),
            tasks: graph.tasks.len(),
            ..GraphUpdated::default()
        };
        Self {
            graph,
            generation,
            stage: Stage::Announce,
            done: 0,
            undefined: Vec::new().into_iter(),
            ids: Vec::new(),
            others: Vec::new(),
            touched: Vec::new(),
            start: Vec::new(),
            default_span: None,
            outcome,
        }
    }

    pub(super) fn client(&self) -> ClientId {
        self.graph.client
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.done = 0;
    }

    /// The next places of a list of this length.
    fn slice(&mut self, length: usize, most: usize) -> std::ops::Range<usize> {
        let from = self.done.min(length);
        self.done = length.min(from + most);
        from..self.done
    }
}

impl Core {
    /// Takes in a slice; true when all is done.
    pub(super) fn take_in(&mut self, intake: &mut Intake) -> bool {
        self.stimulus = std::sync::Arc::clone(&intake.graph.stimulus_id);
        let most = self.config.slice.max(1);
        let tasks = intake.ids.len().max(intake.graph.tasks.len());
        match intake.stage {
            Stage::Announce => {
                let range = intake.slice(tasks, most);
                self.announce(intake, range);
                if intake.done == tasks {
                    intake.enter(Stage::Check);
                }
            }
            Stage::Check => {
                let range = intake.slice(tasks, most);
                if let Some(lost) = self.find_lost(intake, range) {
                    self.refuse(intake, &lost);
                } else if intake.done == tasks {
                    intake.enter(Stage::CheckWanted);
                }
            }
            Stage::CheckWanted => {
                let length = intake.graph.wanted.len();
                let range = intake.slice(length, most);
                let lost = intake.graph.wanted[range]
                    .iter()
                    .find(|key| self.is_lost(key));
                if let Some(lost) = lost.cloned() {
                    self.refuse(intake, &lost);
                } else if intake.done == length {
                    intake.undefined = std::mem::take(&mut intake.graph.tasks).into_iter();
                    intake.enter(Stage::Define);
                }
            }
            Stage::Define => {
                let range = intake.slice(tasks, most);
                self.define_slice(intake, range);
                if intake.done == tasks {
                    intake.enter(Stage::Spans);
                }
            }
            Stage::Spans => {
                let range = intake.slice(intake.touched.len(), most);
                let (metadata, code) = (&intake.graph.span_metadata, &intake.graph.code);
                self.observe_spans(
                    &intake.touched[range],
                    (metadata.as_ref(), code.as_ref()),
                    &mut intake.default_span,
                );
                if intake.done == intake.touched.len() {
                    self.defined(intake);
                    intake.enter(Stage::Want);
                }
            }
            Stage::Want => {
                let length = intake.graph.wanted.len();
                let range = intake.slice(length, most);
                self.want_slice(intake, range);
                if intake.done == length {
                    intake.enter(Stage::Choose);
                }
            }
            Stage::Choose => {
                let range = intake.slice(tasks, most);
                self.choose(intake, range);
                if intake.done == tasks {
                    // Sorted already, unless tasks of one graph have priorities of their own.
                    intake.start.sort_unstable();
                    intake.enter(Stage::Start);
                }
            }
            Stage::Start => {
                let range = intake.slice(intake.start.len(), most);
                for (_, id) in intake.start[range].iter().rev() {
                    if self.is_to_start(*id) {
                        self.recommend(*id, Waiting);
                    }
                }
                if intake.done == intake.start.len() {
                    intake.enter(Stage::LetGo);
                }
            }
            Stage::LetGo => {
                let length = intake.ids.len() + intake.others.len();
                let range = intake.slice(length, most);
                for at in range {
                    let id = match intake.ids.get(at) {
                        Some(id) => *id,
                        None => intake.others[at - intake.ids.len()],
                    };
                    if self.is_held(id) {
                        self.end_interest(TAKING_IN, id);
                    }
                }
                if intake.done == length {
                    self.clients.shift_remove(&TAKING_IN);
                    return true;
                }
            }
        }
        false
    }

    /// Holds a task, so that its id stays its own.
    fn keep(&mut self, id: TaskId) {
        self.clients.entry(TAKING_IN).or_insert_with(|| Client {
            name: "taking-in".into(),
            wants: crate::IdSet::default(),
        });
        self.begin_interest(TAKING_IN, id);
    }

    /// Whether an id is still that of a task which is held. A user who cancels by force takes held tasks away too.
    fn is_held(&self, id: TaskId) -> bool {
        let holder = self.clients.get(&TAKING_IN);
        holder.is_some_and(|holder| holder.wants.contains(&id))
    }

    /// Whether a task is there, is defined, and nothing is done for it yet.
    fn is_to_start(&self, id: TaskId) -> bool {
        self.is_held(id) && {
            let task = &self.tasks[id];
            task.state == Released && task.run_spec.is_some()
        }
    }

    fn announce(&mut self, intake: &mut Intake, range: std::ops::Range<usize>) {
        for task in &intake.graph.tasks[range] {
            let id = match self.tasks.find(&task.key) {
                Some(id) => id,
                None => {
                    intake.outcome.new_tasks += 1;
                    self.new_task(task.key.clone())
                }
            };
            self.keep(id);
            intake.ids.push(id);
        }
    }

    /// Whether nobody defines a key and no worker holds it.
    fn is_lost(&self, key: &Key) -> bool {
        self.tasks.find(key).is_none_or(|id| {
            let task = &self.tasks[id];
            task.run_spec.is_none() && task.who_has.is_empty() && !self.is_held(id)
        })
    }

    /// A key that is needed and gone. Dependencies that others have defined are held from now on.
    fn find_lost(&mut self, intake: &mut Intake, range: std::ops::Range<usize>) -> Option<Key> {
        for at in range {
            let id = intake.ids[at];
            if self.is_held(id) && self.tasks[id].run_spec.is_some() {
                continue;
            }
            for key in &intake.graph.tasks[at].dependencies {
                if self.is_lost(key) {
                    return Some(key.clone());
                }
                if let Some(id) = self.tasks.find(key)
                    && !self.is_held(id)
                {
                    self.keep(id);
                    intake.others.push(id);
                }
            }
        }
        None
    }

    /// A graph that needs data which are gone is refused as a whole; its placeholders go.
    fn refuse(&mut self, intake: &mut Intake, lost: &Key) {
        tracing::info!(missing = %lost, "a graph depends on lost data; its keys are cancelled");
        self.actions.push_back(Action::CancelledKeys {
            client: Some(intake.graph.client),
            keys: std::mem::take(&mut intake.graph.wanted),
            reason: Some("lost dependencies".to_owned()),
            message: None,
        });
        intake.outcome.refused = true;
        let outcome = std::mem::take(&mut intake.outcome);
        self.actions
            .push_back(Action::GraphUpdated(Box::new(outcome)));
        intake.enter(Stage::LetGo);
    }

    fn define_slice(&mut self, intake: &mut Intake, range: std::ops::Range<usize>) {
        for at in range {
            let Some(task) = intake.undefined.next() else {
                return;
            };
            let mut id = intake.ids[at];
            if !self.is_held(id) {
                id = self.task_or_placeholder(&task.key);
                self.keep(id);
                intake.ids[at] = id;
            }
            match self.define_one(id, task, intake.generation, intake.graph.user_priority) {
                Ok(dependencies) => {
                    self.connect_one(id, &dependencies);
                    intake.touched.push(id);
                }
                Err(collides) => intake.outcome.key_collisions += usize::from(collides),
            }
        }
    }

    /// All tasks are defined, and none of this graph has started.
    fn defined(&mut self, intake: &mut Intake) {
        let touched = std::mem::take(&mut intake.touched);
        self.plan_batch(&touched);
        let mut outcome = std::mem::take(&mut intake.outcome);
        if self.graphs_observed {
            let key = |id: &TaskId| self.tasks[*id].key.clone();
            outcome.touched = touched
                .iter()
                .filter(|id| self.is_held(**id))
                .map(key)
                .collect();
            outcome.wanted.clone_from(&intake.graph.wanted);
        }
        self.actions
            .push_back(Action::GraphUpdated(Box::new(outcome)));
    }

    fn want_slice(&mut self, intake: &Intake, range: std::ops::Range<usize>) {
        let client = intake.graph.client;
        let wanted = &intake.graph.wanted[range.clone()];
        let wanted = wanted.iter().filter_map(|key| self.tasks.find(key));
        let wanted: Vec<TaskId> = wanted.collect();
        for id in &wanted {
            self.begin_interest(client, *id);
            self.report_state(client, *id);
        }
        if range.start == 0 || !matches!(intake.graph.actors, crate::event::Actors::Keys(_)) {
            self.mark_actors(&intake.graph.actors, &wanted);
        }
    }

    /// Of the tasks so far from the end, in the order that the driver gave, those that are needed start later; the
    /// others are let go.
    fn choose(&mut self, intake: &mut Intake, range: std::ops::Range<usize>) {
        let last = intake.ids.len() - 1;
        for at in range {
            let id = intake.ids[last - at];
            if !self.is_held(id) || self.tasks[id].state != Released {
                // Results that are there already are held until those have started that need them.
                continue;
            }
            let task = &self.tasks[id];
            let is_wanted = task.who_wants.len() > 1 || !task.waiters.is_empty();
            if is_wanted
                || task
                    .dependents
                    .iter()
                    .any(|dependent| self.is_to_start(dependent))
            {
                intake.start.push((task.rank(), id));
            } else {
                self.end_interest(TAKING_IN, id);
            }
        }
    }
}
