//! What a client asks for at once, taken in slices.
//!
//! A graph of a million tasks, or the release of as many keys, would hold everybody else up for seconds. More than
//! [`Config::slice`](crate::Config::slice) tasks or keys at once are therefore put by; each tick takes in a slice
//! more, and the next deadline is at once while anything is left. What the same client sends meanwhile waits, so its
//! order holds; what others send is handled between two slices. Of the tasks that one release leaves without anybody
//! who needs them, as many are forgotten in each tick.
//!
//! After each slice the state is whole: a task is unknown, a placeholder, released or under way, as it may also be
//! after an event that is taken in at once. How a graph goes through that is told in `intake`.

mod intake;

use std::collections::VecDeque;

use oxidask_protocol::Key;

use crate::action::TaskStateName::{Erred, Forgotten, Memory, Released};
use crate::event::{Event, UpdateGraph};
use crate::ids::{ClientId, TaskId};
use crate::{Core, IdMap, IdSet};
use intake::Intake;
pub(crate) use intake::TAKING_IN;

/// Small events of a client that are caught up with in one tick.
const CATCH_UP: usize = 64;

/// Requests under way, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    works: VecDeque<Work>,
    /// What clients sent behind a request of theirs in `works`. All and only such clients have an entry.
    behind: IdMap<ClientId, VecDeque<Event>>,
    /// Tasks that were needed by forgotten ones only, and go later, unless somebody needs them then: they rest, in
    /// memory, released or erred.
    fading: IdSet<TaskId>,
    /// Tasks that are forgotten because of others since the last tick or event began.
    forgotten: usize,
}

/// A request of which a part is still to be done.
#[derive(Debug)]
enum Work {
    /// A graph comes in.
    Graph(Box<Intake>),
    /// A client begins or ends its interest in keys.
    Keys {
        client: ClientId,
        keys: std::vec::IntoIter<Key>,
        desires: bool,
    },
    /// A client has left, and what it wanted is released.
    Leave(ClientId),
    /// What a client sent meanwhile.
    CatchUp(ClientId),
}

impl Work {
    fn client(&self) -> ClientId {
        match self {
            Self::Graph(intake) => intake.client(),
            Self::Keys { client, .. } | Self::Leave(client) | Self::CatchUp(client) => *client,
        }
    }
}

impl Slices {
    /// Whether nothing is left to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.works.is_empty() && self.fading.is_empty()
    }

    /// A task is forgotten.
    pub(crate) fn note_forgotten(&mut self, id: TaskId) {
        self.fading.swap_remove(&id);
    }

    fn begin(&mut self, work: Work) {
        self.behind.entry(work.client()).or_default();
        self.works.push_back(work);
    }
}

impl Core {
    /// Whether something that this client sent is not taken in yet.
    pub fn is_behind(&self, client: ClientId) -> bool {
        self.slices.behind.contains_key(&client)
    }

    /// Whether something is left of what clients have sent, so that ticks are due at once.
    pub fn has_slices(&self) -> bool {
        !self.slices.is_empty()
    }

    /// Puts an event by whose client has sent something before that is not taken in yet. Gives any other back.
    pub(crate) fn defer(&mut self, event: Event) -> Option<Event> {
        match event
            .client()
            .and_then(|client| self.slices.behind.get_mut(&client))
        {
            Some(behind) => {
                behind.push_back(event);
                None
            }
            None => Some(event),
        }
    }

    /// Puts a graph by if it is large. Its place in the order of graphs is that of its arrival.
    pub(crate) fn slice_graph(&mut self, graph: UpdateGraph) -> Option<UpdateGraph> {
        let is_small = graph.tasks.len().max(graph.wanted.len()) <= self.config.slice;
        if is_small || !self.clients.contains_key(&graph.client) {
            return Some(graph);
        }
        let generation = self.begin_generation(graph.submitting_task.as_ref(), graph.fifo_timeout);
        let intake = Intake::new(graph, generation);
        self.slices.begin(Work::Graph(Box::new(intake)));
        None
    }

    /// Puts a change of interest by if it is about many keys. Gives few back.
    pub(crate) fn slice_keys(
        &mut self,
        client: ClientId,
        keys: Vec<Key>,
        desires: bool,
    ) -> Option<Vec<Key>> {
        if keys.len() <= self.config.slice {
            return Some(keys);
        }
        self.slices.begin(Work::Keys {
            client,
            keys: keys.into_iter(),
            desires,
        });
        None
    }

    /// Puts the end of a client by that wants many keys; true if so.
    pub(crate) fn slice_leave(&mut self, client: ClientId) -> bool {
        let wants = self
            .clients
            .get(&client)
            .map_or(0, |client| client.wants.len());
        let is_large = wants > self.config.slice;
        if is_large {
            self.slices.begin(Work::Leave(client));
        }
        is_large
    }

    /// A task that nobody needs any more is forgotten; later, if many were already and nothing is done for it.
    pub(crate) fn forget_soon(&mut self, id: TaskId) {
        let rests = matches!(self.tasks[id].state, Memory | Released | Erred);
        if rests && self.slices.forgotten >= self.config.slice {
            self.slices.fading.insert(id);
        } else {
            self.slices.forgotten += 1;
            self.recommend(id, Forgotten);
        }
    }

    /// Counts anew how much has been done in one go.
    pub(crate) fn begin_slice(&mut self) {
        self.slices.forgotten = 0;
    }

    /// What is forgotten in later ticks.
    pub(crate) fn fading(&self) -> impl Iterator<Item = TaskId> {
        self.slices.fading.iter().copied()
    }

    /// Forgets a slice of what is fading.
    fn fade(&mut self) {
        for _ in 0..self.config.slice.max(1) {
            let Some(id) = self.slices.fading.pop() else {
                break;
            };
            let task = &self.tasks[id];
            if task.dependents.is_empty() && task.who_wants.is_empty() {
                self.recommend(id, Forgotten);
            }
        }
        if self.slices.fading.is_empty() {
            self.slices.fading = IdSet::default();
        }
    }

    /// Does a slice of what was put by.
    pub(crate) fn advance(&mut self) {
        self.fade();
        let Some(work) = self.slices.works.pop_front() else {
            return;
        };
        if let Some(rest) = self.advance_work(work) {
            self.slices.works.push_front(rest);
        }
    }

    /// Does a slice. Gives what is left.
    fn advance_work(&mut self, work: Work) -> Option<Work> {
        let client = work.client();
        match work {
            Work::Graph(mut intake) => {
                if !self.take_in(&mut intake) {
                    return Some(Work::Graph(intake));
                }
            }
            Work::Keys {
                client,
                mut keys,
                desires,
            } => {
                let slice: Vec<Key> = keys.by_ref().take(self.config.slice).collect();
                if desires {
                    self.client_desires_keys(client, &slice);
                } else {
                    self.client_releases_keys(client, &slice);
                }
                if keys.len() > 0 {
                    return Some(Work::Keys {
                        client,
                        keys,
                        desires,
                    });
                }
            }
            Work::Leave(client) => {
                let wants = self.clients.get(&client).map(|client| &client.wants);
                let wants = wants.into_iter().flatten().copied();
                let slice: Vec<TaskId> = wants.take(self.config.slice).collect();
                if !slice.is_empty() {
                    slice
                        .into_iter()
                        .for_each(|id| self.end_interest(client, id));
                    return Some(Work::Leave(client));
                }
                self.client_removed(client);
            }
            Work::CatchUp(_) => return self.catch_up(client),
        }
        Some(Work::CatchUp(client))
    }

    /// Handles what a client sent meanwhile, until it has to wait again or nothing is left.
    fn catch_up(&mut self, client: ClientId) -> Option<Work> {
        for _ in 0..CATCH_UP {
            let behind = self.slices.behind.get_mut(&client)?;
            let Some(event) = behind.pop_front() else {
                self.slices.behind.swap_remove(&client);
                return None;
            };
            self.apply_now(event);
            self.run_recommendations();
            if self.slices.works.iter().any(|work| work.client() == client) {
                return None;
            }
        }
        Some(Work::CatchUp(client))
    }

    /// Everything is forgotten, so nothing is left to be taken in; clients that were to leave have left.
    pub(crate) fn drop_slices(&mut self) {
        let Slices { works, behind, .. } = std::mem::take(&mut self.slices);
        let leaving = works.into_iter().filter_map(|work| match work {
            Work::Leave(client) => Some(client),
            Work::Graph(_) | Work::Keys { .. } | Work::CatchUp(_) => None,
        });
        let behind = behind
            .into_values()
            .flatten()
            .filter_map(|event| match event {
                Event::ClientRemoved { client } => Some(client),
                _ => None,
            });
        for client in leaving.chain(behind).collect::<Vec<_>>() {
            self.client_removed(client);
        }
    }
}

impl Event {
    /// The client whose order an event belongs to.
    fn client(&self) -> Option<ClientId> {
        match self {
            Self::UpdateGraph(graph) => Some(graph.client),
            Self::ClientRemoved { client }
            | Self::ClientDesiresKeys { client, .. }
            | Self::ClientReleasesKeys { client, .. }
            | Self::CancelKeys { client, .. }
            | Self::ReportKey { client, .. } => Some(*client),
            Self::DataAdded { client, .. } => *client,
            _ => None,
        }
    }
}
