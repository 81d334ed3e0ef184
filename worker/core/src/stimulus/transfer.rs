//! How transfers from peers end.

use std::sync::Arc;

use hashbrown::HashMap;
use oxidask_protocol::Key;

use crate::{
    Core,
    action::{Action, Message},
    event::TaskError,
    gather::BUSY_DELAY,
    ids::{PeerId, TaskId},
    state::{Busy, State},
    transition::Recommendation,
};

impl Core {
    pub(crate) fn gathered(&mut self, worker: &str, data: Vec<(Key, u64)>) {
        let Some(peer) = self.peers.find(worker) else {
            return;
        };
        let data: HashMap<Key, u64> = data.into_iter().collect();
        let mut arrived = Vec::new();
        for id in self.end_transfer(peer) {
            let key = self.tasks[id].key.clone();
            if let Some(nbytes) = data.get(&key) {
                self.one_gathered(id, key, *nbytes, &mut arrived);
            } else {
                self.remove_holder(id, peer);
                self.fetch_elsewhere(id);
            }
        }
        if !arrived.is_empty() {
            self.send(Message::AddKeys(arrived));
        }
    }

    fn one_gathered(&mut self, id: TaskId, key: Key, nbytes: u64, arrived: &mut Vec<Key>) {
        match self.tasks[id].state {
            State::Flight => {
                self.tasks[id].nbytes = Some(nbytes);
                self.set_state(id, State::Memory);
                arrived.push(key);
            }
            State::Resumed(Busy::Flight) => {
                // The scheduler asked for a computation meanwhile; it expects that answer.
                self.tasks[id].nbytes = Some(nbytes);
                self.set_state(id, State::Memory);
                let run_id = self.tasks[id].run_id;
                self.send(Message::TaskFinished {
                    key,
                    run_id,
                    nbytes,
                });
            }
            State::Memory => {}
            _ => {
                self.actions.push_back(Action::FreeData(key));
                self.fetch_elsewhere(id);
            }
        }
    }

    /// The transfer brought nothing: what becomes of a task that was in flight.
    fn fetch_elsewhere(&mut self, id: TaskId) {
        match self.tasks[id].state {
            State::Flight => self.fetch_or_missing(id),
            State::Cancelled(Busy::Flight) => self.drop_task(id),
            State::Resumed(Busy::Flight) => self.set_state(id, State::Waiting),
            _ => {}
        }
    }

    pub(crate) fn gather_busy(&mut self, worker: &str) {
        let Some(peer) = self.peers.find(worker) else {
            return;
        };
        self.peers[peer].busy_until = Some(self.now + BUSY_DELAY);
        let mut all_busy = Vec::new();
        for id in self.end_transfer(peer) {
            self.fetch_elsewhere(id);
            let task = &self.tasks[id];
            if task.state == State::Fetch && task.who_has.iter().all(|holder| self.is_busy(*holder))
            {
                all_busy.push(task.key.clone());
            }
        }
        if !all_busy.is_empty() {
            // Perhaps the scheduler knows of another holder.
            self.send(Message::RequestRefreshWhoHas(all_busy));
        }
    }

    fn is_busy(&self, peer: PeerId) -> bool {
        self.peers[peer].busy_until.is_some()
    }

    /// Take the peer for dead: it may come back, but another holder, or the
    /// scheduler's word that there is one, is faster than waiting for that.
    pub(crate) fn gather_failed(&mut self, worker: &str) {
        let Some(peer) = self.peers.find(worker) else {
            return;
        };
        let tasks = self.end_transfer(peer);
        self.forget_replicas_at(peer);
        for id in tasks {
            self.fetch_elsewhere(id);
        }
    }

    /// The value exists but cannot be used: the tasks that wait for it fail.
    pub(crate) fn gather_erred(&mut self, worker: &str, error: &Arc<TaskError>) {
        let Some(peer) = self.peers.find(worker) else {
            return;
        };
        for id in self.end_transfer(peer) {
            let dependents: Vec<TaskId> = self.tasks[id].dependents.iter().copied().collect();
            for dependent in dependents {
                if self.tasks[dependent].state == State::Waiting {
                    self.fail(dependent, error.clone());
                }
            }
            match self.tasks[id].state {
                State::Flight | State::Cancelled(Busy::Flight) => self.drop_task(id),
                State::Resumed(Busy::Flight) => self.set_state(id, State::Waiting),
                _ => self.recommend(id, Recommendation::Forget),
            }
        }
    }

    pub(crate) fn fail(&mut self, id: TaskId, error: Arc<TaskError>) {
        self.set_state(id, State::Error);
        let task = &self.tasks[id];
        let (key, run_id) = (task.key.clone(), task.run_id);
        self.send(Message::TaskErred { key, run_id, error });
    }
}
