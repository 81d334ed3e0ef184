//! State changes: what a recommendation means in each state, and the bookkeeping of entering and leaving one.

use crate::{
    Core,
    action::{Action, Message},
    ids::{PeerId, TaskId},
    state::{Busy, State, Task},
    story::StoryEntry,
};

/// Wanted next state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recommendation {
    /// Not wanted any more.
    Release,
    /// Wanted as a value: get it from a peer.
    Fetch,
    /// Wanted as a computation here.
    Wait,
    /// All dependencies may be in memory.
    Ready,
    /// Not even its name is needed.
    Forget,
}

impl Core {
    pub(crate) fn recommend(&mut self, id: TaskId, recommendation: Recommendation) {
        self.recommendations.push((id, recommendation));
    }

    /// Follow recommendations, last first, until none is left.
    pub(crate) fn follow_recommendations(&mut self) {
        while let Some((id, recommendation)) = self.recommendations.pop() {
            if self.tasks.get(id).is_none() {
                continue;
            }
            match recommendation {
                Recommendation::Release => self.release(id),
                Recommendation::Fetch => self.fetch(id),
                Recommendation::Wait => self.wait(id),
                Recommendation::Ready => self.make_ready(id),
                Recommendation::Forget => self.forget(id),
            }
        }
    }

    /// Find the task or make it, in state released.
    pub(crate) fn ensure_task(&mut self, key: &oxidask_protocol::Key) -> TaskId {
        if let Some(id) = self.tasks.find(key) {
            return id;
        }
        let prefix = self.prefix_of(key);
        self.tasks.insert(Task::new(key.clone(), prefix))
    }

    fn release(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        match task.state {
            State::Released => self.recommend(id, Recommendation::Forget),
            State::Fetch
            | State::Flight
            | State::Missing
            | State::Resumed(Busy::Executing | Busy::LongRunning)
                if task.users > 0 =>
            {
                // A task here waits for it. Either the scheduler frees that task too, and
                // then this one goes with it, or the message was late and it is needed.
                self.tasks[id].replica = false;
            }
            State::Waiting
            | State::Ready
            | State::Constrained
            | State::Fetch
            | State::Missing
            | State::Error => {
                self.drop_task(id);
            }
            State::Flight => self.set_state(id, State::Cancelled(Busy::Flight)),
            State::Executing => self.set_state(id, State::Cancelled(Busy::Executing)),
            State::LongRunning => self.set_state(id, State::Cancelled(Busy::LongRunning)),
            State::Resumed(busy) => self.set_state(id, State::Cancelled(busy)),
            State::Cancelled(_) => {}
            State::Memory if task.users > 0 => self.tasks[id].freed = true,
            State::Memory => self.drop_value(id),
        }
    }

    /// Drop the value of a task in memory and tell the scheduler.
    fn drop_value(&mut self, id: TaskId) {
        let key = self.tasks[id].key.clone();
        self.actions.push_back(Action::FreeData(key.clone()));
        self.send(Message::ReleaseWorkerData(key));
        match self.tasks[id].busy() {
            // A scattered value can come while the same task runs or flies; that goes on.
            Some(busy) => self.set_state(id, State::Cancelled(busy)),
            None => self.drop_task(id),
        }
    }

    /// Back to released, and forgotten if nobody depends on it. Not for busy tasks.
    pub(crate) fn drop_task(&mut self, id: TaskId) {
        self.set_state(id, State::Released);
        let task = &mut self.tasks[id];
        task.replica = false;
        task.suspect = false;
        if task.users == 0 {
            task.nbytes = None;
            self.clear_who_has(id);
        }
        self.recommend(id, Recommendation::Forget);
    }

    fn fetch(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        match task.state {
            State::Released | State::Error | State::Missing => self.fetch_or_missing(id),
            State::Cancelled(Busy::Flight) | State::Resumed(Busy::Flight) => {
                self.set_state(id, State::Flight)
            }
            State::Cancelled(busy @ (Busy::Executing | Busy::LongRunning)) => {
                self.set_state(id, State::Resumed(busy));
            }
            // On its way already, or computed here soon.
            State::Waiting
            | State::Fetch
            | State::Flight
            | State::Ready
            | State::Constrained
            | State::Executing
            | State::LongRunning
            | State::Resumed(Busy::Executing | Busy::LongRunning)
            | State::Memory => {}
        }
    }

    /// To fetch or missing, by whether a holder is known.
    pub(crate) fn fetch_or_missing(&mut self, id: TaskId) {
        let to = if self.tasks[id].who_has.is_empty() {
            State::Missing
        } else {
            State::Fetch
        };
        self.set_state(id, to);
    }

    fn wait(&mut self, id: TaskId) {
        match self.tasks[id].state {
            State::Released | State::Fetch | State::Missing | State::Error => {
                self.set_state(id, State::Waiting)
            }
            State::Flight | State::Cancelled(Busy::Flight) => {
                self.set_state(id, State::Resumed(Busy::Flight))
            }
            State::Cancelled(Busy::Executing) | State::Resumed(Busy::Executing) => {
                self.set_state(id, State::Executing);
            }
            State::Cancelled(Busy::LongRunning) | State::Resumed(Busy::LongRunning) => {
                self.set_state(id, State::LongRunning);
                let task = &self.tasks[id];
                let (key, run_id) = (task.key.clone(), task.run_id);
                // If it seceded before it was cancelled, the scheduler hears it twice.
                self.send(Message::LongRunning {
                    key,
                    run_id,
                    compute_duration: None,
                });
            }
            State::Waiting
            | State::Ready
            | State::Constrained
            | State::Executing
            | State::LongRunning
            | State::Resumed(Busy::Flight)
            | State::Memory => {}
        }
    }

    fn make_ready(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        if task.state == State::Waiting && task.waiting_for == 0 {
            let to = if task.resources.is_empty() {
                State::Ready
            } else {
                State::Constrained
            };
            self.set_state(id, to);
        }
    }

    fn forget(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        if task.state != State::Released || !task.dependents.is_empty() {
            return;
        }
        self.log(id, "released", "forgotten");
        self.clear_who_has(id);
        for dependency in std::mem::take(&mut self.tasks[id].dependencies) {
            let dependency_task = &mut self.tasks[dependency];
            dependency_task.dependents.swap_remove(&id);
            if dependency_task.state == State::Released && dependency_task.dependents.is_empty() {
                self.recommend(dependency, Recommendation::Forget);
            }
        }
        self.tasks.remove(id);
    }

    /// Make the task depend on another, once. Not while its state holds dependencies.
    pub(crate) fn link(&mut self, id: TaskId, dependency: TaskId) {
        debug_assert!(!self.tasks[id].state.holds_dependencies());
        if dependency != id && self.tasks[dependency].dependents.insert(id) {
            self.tasks[id].dependencies.push(dependency);
        }
    }

    /// The one place where a state changes: keeps every index in step.
    pub(crate) fn set_state(&mut self, id: TaskId, to: State) {
        let from = self.tasks[id].state;
        if from == to {
            return;
        }
        self.leave(id, from);
        self.log(id, from.name(), to.name());
        self.tasks[id].state = to;
        match (from.holds_dependencies(), to.holds_dependencies()) {
            (false, true) => self.hold_dependencies(id),
            (true, false) => self.let_go_dependencies(id),
            _ => {}
        }
        self.enter(id, to);
        if from == State::Memory {
            self.value_gone(id);
        }
        if self.tasks[id].users > 0
            && matches!(to, State::Released | State::Cancelled(_) | State::Error)
        {
            // Tasks here wait for it all the same: either the scheduler frees them too,
            // or another worker will have it.
            self.recommend(id, Recommendation::Fetch);
        }
    }

    fn leave(&mut self, id: TaskId, from: State) {
        match from {
            State::Fetch => {
                let task = &self.tasks[id];
                for peer in &task.who_has {
                    self.peers[*peer].needed.remove(&(task.priority, id));
                }
                self.fetching -= 1;
            }
            State::Missing => {
                self.missing.remove(&id);
                if self.missing.is_empty() {
                    self.refresh_at = None;
                }
            }
            State::Ready => {
                self.ready.remove(&(self.tasks[id].priority, id));
            }
            State::Constrained => {
                self.constrained.remove(&(self.tasks[id].priority, id));
            }
            State::Memory => {
                self.nbytes -= self.tasks[id].size();
                self.tasks[id].freed = false;
            }
            State::Waiting => self.tasks[id].waiting_for = 0,
            State::Released
            | State::Flight
            | State::Executing
            | State::LongRunning
            | State::Cancelled(_)
            | State::Resumed(_)
            | State::Error => {}
        }
    }

    fn enter(&mut self, id: TaskId, to: State) {
        match to {
            State::Fetch => {
                let task = &self.tasks[id];
                for peer in &task.who_has {
                    self.peers[*peer].needed.insert((task.priority, id));
                }
                self.fetching += 1;
            }
            State::Missing => {
                self.missing.insert(id);
                self.refresh_at
                    .get_or_insert(self.now + crate::gather::FIRST_REFRESH);
            }
            State::Ready => {
                self.ready.insert((self.tasks[id].priority, id));
            }
            State::Constrained => {
                self.constrained.insert((self.tasks[id].priority, id));
            }
            State::Memory => self.value_here(id),
            State::Waiting => self.count_missing_dependencies(id),
            State::Released
            | State::Flight
            | State::Executing
            | State::LongRunning
            | State::Cancelled(_)
            | State::Resumed(_)
            | State::Error => {}
        }
    }

    fn count_missing_dependencies(&mut self, id: TaskId) {
        let mut waiting_for = 0;
        for index in 0..self.tasks[id].dependencies.len() {
            let dependency = self.tasks[id].dependencies[index];
            if self.tasks[dependency].state != State::Memory {
                waiting_for += 1;
                self.recommend(dependency, Recommendation::Fetch);
            }
        }
        self.tasks[id].waiting_for = waiting_for;
        if waiting_for == 0 {
            self.recommend(id, Recommendation::Ready);
        }
    }

    fn hold_dependencies(&mut self, id: TaskId) {
        for index in 0..self.tasks[id].dependencies.len() {
            let dependency = self.tasks[id].dependencies[index];
            self.tasks[dependency].users += 1;
        }
    }

    fn let_go_dependencies(&mut self, id: TaskId) {
        for index in 0..self.tasks[id].dependencies.len() {
            let dependency = self.tasks[id].dependencies[index];
            let task = &mut self.tasks[dependency];
            task.users -= 1;
            if task.users > 0 {
                continue;
            }
            let unneeded = match task.state {
                State::Memory => task.freed,
                State::Fetch | State::Flight | State::Missing => !task.replica,
                State::Resumed(Busy::Executing | Busy::LongRunning) => !task.replica,
                _ => false,
            };
            if unneeded {
                self.recommend(dependency, Recommendation::Release);
            }
        }
    }

    fn value_here(&mut self, id: TaskId) {
        let task = &mut self.tasks[id];
        task.replica = false;
        if task.slot.is_none() {
            task.suspect = false;
        }
        task.deaths = 0;
        self.nbytes += self.tasks[id].size();
        for index in 0..self.tasks[id].dependents.len() {
            let dependent = self.tasks[id].dependents[index];
            let task = &mut self.tasks[dependent];
            if task.state == State::Waiting {
                task.waiting_for -= 1;
                if task.waiting_for == 0 {
                    self.recommend(dependent, Recommendation::Ready);
                }
            }
        }
    }

    /// The value left memory: tasks that were ready wait again.
    fn value_gone(&mut self, id: TaskId) {
        for index in 0..self.tasks[id].dependents.len() {
            let dependent = self.tasks[id].dependents[index];
            match self.tasks[dependent].state {
                State::Waiting => self.tasks[dependent].waiting_for += 1,
                State::Ready | State::Constrained => self.set_state(dependent, State::Waiting),
                _ => {}
            }
        }
    }

    /// Make `peers` the known holders of the task.
    pub(crate) fn set_who_has(&mut self, id: TaskId, peers: Vec<PeerId>) {
        let old = std::mem::take(&mut self.tasks[id].who_has);
        let (state, priority) = (self.tasks[id].state, self.tasks[id].priority);
        for peer in old.iter().filter(|peer| !peers.contains(peer)) {
            self.peers[*peer].has_what.swap_remove(&id);
            if state == State::Fetch {
                self.peers[*peer].needed.remove(&(priority, id));
            }
        }
        for peer in peers.iter().filter(|peer| !old.contains(peer)) {
            self.peers[*peer].has_what.insert(id);
            if state == State::Fetch {
                self.peers[*peer].needed.insert((priority, id));
            }
        }
        let known = !peers.is_empty();
        self.tasks[id].who_has = peers;
        if (state == State::Fetch && !known) || (state == State::Missing && known) {
            self.fetch_or_missing(id);
        }
    }

    /// The peer does not hold the task after all.
    pub(crate) fn remove_holder(&mut self, id: TaskId, peer: PeerId) {
        let mut who_has = self.tasks[id].who_has.clone();
        who_has.retain(|holder| *holder != peer);
        self.set_who_has(id, who_has);
    }

    fn clear_who_has(&mut self, id: TaskId) {
        self.set_who_has(id, Vec::new());
    }

    pub(crate) fn log(&mut self, id: TaskId, from: &'static str, to: &'static str) {
        if let Some(watched) = &mut self.watched {
            watched.push((self.tasks[id].key.clone(), from, to));
        }
        self.story.push(StoryEntry {
            key: self.tasks[id].key.clone(),
            from,
            to,
            stimulus_id: self.stimulus_id.clone(),
            time: self.now,
        });
    }
}
