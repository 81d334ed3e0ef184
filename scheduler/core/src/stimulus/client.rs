//! What clients do besides submitting graphs.

use std::sync::Arc;

use oxidask_protocol::Key;

use crate::action::TaskStateName::{
    Erred, Forgotten, Memory, NoWorker, Processing, Queued, Released, Waiting,
};
use crate::action::{Action, Report};
use crate::ids::{ClientId, TaskId};
use crate::state::Client;
use crate::state::set::Set;
use crate::state::task::Task;
use crate::{Core, IdSet};

/// The pseudo client of `fire_and_forget`.
const FIRE_AND_FORGET: &str = "fire-and-forget";

impl Core {
    pub(super) fn client_added(&mut self, client: ClientId, name: Arc<str>) {
        if *name == *FIRE_AND_FORGET {
            self.fire_and_forget = Some(client);
        }
        self.clients.entry(client).or_insert_with(|| Client {
            name,
            wants: IdSet::default(),
        });
    }

    pub(crate) fn client_removed(&mut self, client: ClientId) {
        let Some(state) = self.clients.get(&client) else {
            return;
        };
        for id in state.wants.iter().copied().collect::<Vec<_>>() {
            self.end_interest(client, id);
        }
        self.clients.shift_remove(&client);
        if self.fire_and_forget == Some(client) {
            self.fire_and_forget = None;
        }
    }

    /// Source: distributed `client_desires_keys`. Unknown keys become placeholders, since the graph that defines
    /// them may come later on another connection.
    pub(crate) fn client_desires_keys(&mut self, client: ClientId, keys: &[Key]) {
        if !self.clients.contains_key(&client) {
            return;
        }
        for key in keys {
            let id = self.task_or_placeholder(key);
            self.begin_interest(client, id);
            self.report_state(client, id);
            let is_resting = self.tasks[id].state == Released && self.tasks[id].run_spec.is_some();
            if is_resting && !self.blame_erred_dependency(id) {
                self.recommend(id, Waiting);
            }
        }
    }

    pub(crate) fn begin_interest(&mut self, client: ClientId, id: TaskId) {
        self.tasks[id].who_wants.insert(client);
        self.clients[&client].wants.insert(id);
    }

    /// Tells one client about a task that is in memory or erred.
    pub(crate) fn report_state(&mut self, client: ClientId, id: TaskId) {
        let task = &self.tasks[id];
        let key = task.key.clone();
        match task.state {
            Memory => {
                let type_ = task.result_type.as_ref().and_then(|t| t.pickle.clone());
                self.report_to(client, Report::InMemory { key, type_ });
            }
            Erred => {
                let failure = task.failure().expect("an erred task has a failure");
                let error = Arc::clone(&failure.blame.error);
                self.report_to(client, Report::Erred { key, error });
            }
            _ => {}
        }
    }

    pub(crate) fn client_releases_keys(&mut self, client: ClientId, keys: &[Key]) {
        for key in keys {
            if let Some(id) = self.tasks.find(key) {
                self.end_interest(client, id);
            }
        }
    }

    /// Source: distributed `stimulus_cancel`: dependents that nobody else wants are cancelled first.
    pub(super) fn cancel_keys(
        &mut self,
        client: ClientId,
        keys: Vec<Key>,
        force: bool,
        reason: Option<String>,
        message: Option<String>,
    ) {
        if !self.clients.contains_key(&client) {
            return;
        }
        let mut cancelled: Vec<TaskId> = Vec::new();
        let mut seen = IdSet::default();
        let mut stack: Vec<TaskId> = keys.iter().filter_map(|key| self.tasks.find(key)).collect();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            let task = &self.tasks[id];
            let alone = task.who_wants.len() == 1 && task.who_wants.contains(client);
            if force || alone || task.who_wants.is_empty() {
                cancelled.push(id);
                stack.extend(task.dependents.iter());
            }
        }
        // Dependents end before what they depend on, so that nothing is computed in between.
        for id in cancelled.iter().rev() {
            let wanters = if force {
                self.tasks[*id].who_wants.to_vec()
            } else {
                vec![client]
            };
            for wanter in wanters {
                self.end_interest(wanter, *id);
            }
        }
        let keys = cancelled
            .iter()
            .map(|id| self.tasks[*id].key.clone())
            .collect();
        self.actions.push_back(Action::CancelledKeys {
            client: None,
            keys,
            reason,
            message,
        });
    }

    /// Source: distributed `handle_report_key` after a failed gather: an unknown key is cancelled.
    pub(super) fn report_key(&mut self, client: ClientId, key: Key) {
        match self.tasks.find(&key) {
            Some(id) => self.report_state(client, id),
            None => {
                let reason = Some("forgotten".to_owned());
                self.actions.push_back(Action::CancelledKeys {
                    client: Some(client),
                    keys: vec![key],
                    reason,
                    message: None,
                });
            }
        }
    }

    /// Source: distributed `stimulus_retry`: begins at the failed tasks that the keys depend on.
    pub(super) fn retry_keys(&mut self, keys: Vec<Key>) {
        let asked: Vec<TaskId> = keys.iter().filter_map(|key| self.tasks.find(key)).collect();
        let up = self.erred_closure(asked, |task| &task.dependencies);
        let roots: Vec<TaskId> = up
            .into_iter()
            .filter(|id| {
                !self.tasks[*id]
                    .dependencies
                    .iter()
                    .any(|d| self.tasks[d].state == Erred)
            })
            .collect();
        let retried = self.erred_closure(roots.clone(), |task| &task.dependents);
        self.retrying = true;
        for id in roots {
            self.recommend(id, Waiting);
        }
        self.run_recommendations();
        self.retrying = false;
        // What failed with a root goes on with it, but only what leads to something that is wanted shall stay.
        for id in retried.into_iter().rev() {
            let task = &self.tasks[id];
            if matches!(task.state, Waiting | Processing | Queued | NoWorker) && !task.is_needed() {
                self.transition(id, Released);
                self.run_recommendations();
            }
        }
    }

    /// The erred tasks among `start`, and all erred ones that an edge leads to, nearer ones first.
    fn erred_closure(
        &self,
        start: Vec<TaskId>,
        edges: impl Fn(&Task) -> &Set<TaskId>,
    ) -> IdSet<TaskId> {
        let mut found: IdSet<TaskId> = start
            .into_iter()
            .filter(|id| self.tasks[*id].state == Erred)
            .collect();
        let mut next = 0;
        while let Some(id) = found.get_index(next).copied() {
            next += 1;
            found.extend(
                edges(&self.tasks[id])
                    .iter()
                    .filter(|id| self.tasks[*id].state == Erred),
            );
        }
        found
    }

    /// Everything is forgotten.
    pub(super) fn restart(&mut self) {
        self.actions.push_back(Action::ReportRestart);
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for client in clients {
            let wants: Vec<TaskId> = self.clients[&client].wants.iter().copied().collect();
            for id in wants {
                self.tasks[id].who_wants.remove(client);
            }
            self.clients[&client].wants.clear();
        }
        let ids: Vec<TaskId> = self.tasks.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.recommend(id, Forgotten);
        }
        self.run_recommendations();
        self.drop_slices();
        self.retirements.clear();
    }
}
