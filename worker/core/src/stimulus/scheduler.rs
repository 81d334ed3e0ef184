//! What the scheduler asks.

use oxidask_protocol::Key;

use crate::{
    Core,
    action::Message,
    event::{Address, ComputeTask},
    ids::TaskId,
    priority::Priority,
    state::{Busy, State},
    transition::Recommendation,
};

impl Core {
    pub(crate) fn compute_task(&mut self, event: ComputeTask) {
        let id = self.ensure_task(&event.key);
        self.tasks[id].run_id = event.run_id;
        match self.tasks[id].state {
            State::Waiting
            | State::Ready
            | State::Constrained
            | State::Executing
            | State::LongRunning => {}
            State::Memory => {
                let task = &mut self.tasks[id];
                task.freed = false;
                let (run_id, nbytes) = (task.run_id, task.size());
                self.send(Message::TaskFinished {
                    key: event.key,
                    run_id,
                    nbytes,
                });
            }
            State::Released
            | State::Fetch
            | State::Flight
            | State::Missing
            | State::Cancelled(_)
            | State::Resumed(_)
            | State::Error => self.prepare_to_compute(id, event),
        }
    }

    fn prepare_to_compute(&mut self, id: TaskId, event: ComputeTask) {
        let priority = event.priority.with_generation(self.generation);
        self.generation -= 1;
        self.set_priority(id, priority);
        let task = &mut self.tasks[id];
        task.run_spec = Some(event.run_spec);
        if task.slot.is_none() {
            // A run that goes on keeps the resources it took, so that they are given back.
            task.resources = event.resources;
        }
        for (key, nbytes) in &event.nbytes {
            let dependency = self.ensure_task(key);
            self.link(id, dependency);
            if self.tasks[dependency].state == State::Released {
                self.set_priority(dependency, priority);
            }
            if self.tasks[dependency].state != State::Memory {
                self.tasks[dependency].nbytes = Some(*nbytes);
            }
        }
        for (key, addresses) in &event.who_has {
            if let Some(dependency) = self.tasks.find(key) {
                self.update_who_has(dependency, addresses);
            }
        }
        self.recommend(id, Recommendation::Wait);
    }

    /// Change a priority and the index that is sorted by it.
    fn set_priority(&mut self, id: TaskId, priority: Priority) {
        let old = self.tasks[id].priority;
        if self.tasks[id].state == State::Fetch {
            for index in 0..self.tasks[id].who_has.len() {
                let peer = self.tasks[id].who_has[index];
                let needed = &mut self.peers[peer].needed;
                needed.remove(&(old, id));
                needed.insert((priority, id));
            }
        }
        self.tasks[id].priority = priority;
    }

    pub(crate) fn free_keys(&mut self, keys: &[Key]) {
        // The last recommendation is followed first: in the order of the message.
        for key in keys.iter().rev() {
            if let Some(id) = self.tasks.find(key) {
                self.recommend(id, Recommendation::Release);
            }
        }
    }

    pub(crate) fn remove_replicas(&mut self, keys: &[Key]) {
        let mut kept = Vec::new();
        for key in keys {
            let Some(id) = self.tasks.find(key) else {
                continue;
            };
            let task = &self.tasks[id];
            if task.state != State::Memory {
                continue;
            }
            if task.users > 0 {
                kept.push(key.clone());
            } else {
                self.recommend(id, Recommendation::Release);
            }
        }
        if !kept.is_empty() {
            self.send(Message::AddKeys(kept));
        }
    }

    pub(crate) fn acquire_replicas(
        &mut self,
        who_has: &[(Key, Vec<Address>)],
        nbytes: &[(Key, u64)],
    ) {
        let mut here = Vec::new();
        for (key, addresses) in who_has {
            let id = self.ensure_task(key);
            self.update_who_has(id, addresses);
            let task = &mut self.tasks[id];
            if task.state == State::Memory {
                if std::mem::take(&mut task.freed) {
                    here.push(key.clone());
                }
                continue;
            }
            task.replica = true;
            if let Some((_, size)) = nbytes.iter().find(|(k, _)| k == key) {
                task.nbytes = Some(*size);
            }
            self.recommend(id, Recommendation::Fetch);
        }
        if !here.is_empty() {
            self.send(Message::AddKeys(here));
        }
    }

    pub(crate) fn steal_request(&mut self, key: Key) {
        let id = self.tasks.find(&key);
        let state = id.map(|id| self.tasks[id].state);
        self.send(Message::StealResponse {
            key,
            state: state.map(State::name),
        });
        if let (Some(id), Some(State::Waiting | State::Ready | State::Constrained)) = (id, state) {
            self.recommend(id, Recommendation::Release);
        }
    }

    pub(crate) fn refresh_who_has(&mut self, who_has: &[(Key, Vec<Address>)]) {
        for (key, addresses) in who_has {
            // The key may have been forgotten while the question travelled.
            let Some(id) = self.tasks.find(key) else {
                continue;
            };
            self.update_who_has(id, addresses);
        }
    }

    pub(crate) fn cancel_compute(&mut self, key: &Key) {
        if let Some(id) = self.tasks.find(key)
            && matches!(
                self.tasks[id].state,
                State::Waiting | State::Ready | State::Constrained
            )
        {
            self.recommend(id, Recommendation::Release);
        }
    }

    pub(crate) fn remove_worker(&mut self, worker: &str) {
        let Some(peer) = self.peers.find(worker) else {
            return;
        };
        self.forget_replicas_at(peer);
    }

    /// Nothing of what the peer was said to hold can be had from it.
    pub(crate) fn forget_replicas_at(&mut self, peer: crate::ids::PeerId) {
        for id in std::mem::take(&mut self.peers[peer].has_what) {
            self.remove_holder(id, peer);
        }
    }

    pub(crate) fn scattered(&mut self, data: Vec<(Key, u64)>) {
        for (key, nbytes) in data {
            let id = self.ensure_task(&key);
            let state = self.tasks[id].state;
            if state == State::Memory {
                self.tasks[id].freed = false;
                continue;
            }
            self.tasks[id].nbytes = Some(nbytes);
            self.set_state(id, State::Memory);
            // A computation that the scheduler waits for is thereby done; its run, if
            // there is one, goes on and its value is not used.
            let awaited = state.holds_dependencies() || state == State::Resumed(Busy::Flight);
            if awaited {
                let run_id = self.tasks[id].run_id;
                self.send(Message::TaskFinished {
                    key,
                    run_id,
                    nbytes,
                });
            }
        }
    }
}
