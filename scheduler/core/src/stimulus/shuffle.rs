//! Peer-to-peer shuffles: their runs, who takes part, and their ends.
//!
//! Everything about the data happens in the workers' plugin; the scheduler keeps which worker has which partition,
//! ties output tasks to these workers, and starts a run anew when one of them leaves.
//!
//! Source: distributed `shuffle/_scheduler_plugin.py`.

use std::sync::Arc;

use oxidask_protocol::{Key, Payload, Value};

use crate::Core;
use crate::action::Action;
use crate::action::TaskStateName::{Erred, Released};
use crate::ids::{TaskId, WorkerId};
use crate::state::set::Set;

/// Keys of barriers are this and the id of their shuffle.
pub(crate) const BARRIER: &str = "shuffle-barrier-";

/// A shuffle that is under way.
#[derive(Debug)]
pub(crate) struct Shuffle {
    pub(crate) run_id: i64,
    pub(crate) run_spec: Payload,
    /// The worker of each output partition, by address.
    pub(crate) worker_for: Vec<(Value, Arc<str>)>,
    /// Workers that hold input or output.
    pub(crate) participating: Set<WorkerId>,
    /// Output tasks that were tied to a worker, and how they were restricted before.
    restricted: Vec<(Key, Option<Box<[String]>>)>,
}

impl Core {
    /// The barrier of a shuffle.
    pub(crate) fn barrier_of(&self, id: &str) -> Option<TaskId> {
        self.tasks.find(&Key::from(format!("{BARRIER}{id}")))
    }

    pub(super) fn shuffle_started(
        &mut self,
        id: Arc<str>,
        run_id: i64,
        worker_for: Vec<(Value, Arc<str>)>,
        run_spec: Payload,
    ) {
        let participating = self
            .workers
            .iter()
            .filter(|(_, worker)| {
                worker_for
                    .iter()
                    .any(|(_, address)| *address == worker.address)
            })
            .map(|(id, _)| *id)
            .collect();
        self.shuffles.insert(
            id,
            Shuffle {
                run_id,
                run_spec,
                worker_for,
                participating,
                restricted: Vec::new(),
            },
        );
    }

    pub(super) fn shuffle_joined(&mut self, id: &str, worker: WorkerId) {
        if let Some(shuffle) = self.shuffles.get_mut(id) {
            shuffle.participating.insert(worker);
        }
    }

    pub(super) fn shuffle_output_restricted(&mut self, id: &str, key: Key, worker: String) {
        let Some(shuffle) = self.shuffles.get_mut(id) else {
            return;
        };
        let Some(task) = self.tasks.find(&key) else {
            return;
        };
        let before = self.tasks[task]
            .special_mut()
            .restriction
            .replace(vec![worker].into_boxed_slice());
        if !shuffle.restricted.iter().any(|(known, _)| *known == key) {
            shuffle.restricted.push((key, before));
        }
    }

    pub(super) fn shuffle_inconsistent(&mut self, id: &str, run_id: i64) {
        if self
            .shuffles
            .get(id)
            .is_some_and(|shuffle| shuffle.run_id == run_id)
        {
            self.end_shuffle(id, "the transfers of the shuffle belong to different runs");
            self.recommend_shuffle_anew(id);
        }
    }

    /// Shuffles in which a worker took part start anew without it.
    pub(super) fn restart_shuffles_of(&mut self, worker: WorkerId) {
        let ids: Vec<Arc<str>> = self
            .shuffles
            .iter()
            .filter(|(_, shuffle)| shuffle.participating.contains(worker))
            .map(|(id, _)| Arc::clone(id))
            .collect();
        for id in ids {
            let address = Arc::clone(&self.workers[&worker].address);
            self.shuffles[&id].participating.remove(worker);
            self.end_shuffle(
                &id,
                &format!("Worker {address} left during active shuffle {id}"),
            );
            self.recommend_shuffle_anew(&id);
        }
    }

    /// The barrier, its inputs and its outputs are computed again, unless one of them has failed.
    fn recommend_shuffle_anew(&mut self, id: &str) {
        let Some(barrier) = self.barrier_of(id) else {
            return;
        };
        let task = &self.tasks[barrier];
        let order: Vec<TaskId> = task
            .dependents
            .iter()
            .chain([barrier])
            .chain(task.dependencies.iter())
            .collect();
        if order.iter().any(|id| self.tasks[*id].state == Erred) {
            return;
        }
        for id in order {
            self.recommend(id, Released);
        }
    }

    /// The barrier no longer stands: the run is over, as it should be or not.
    pub(crate) fn end_shuffle_of(&mut self, barrier: TaskId) {
        let key = self.tasks[barrier].key.clone();
        if let Some(id) = key.as_str().and_then(|text| text.strip_prefix(BARRIER)) {
            self.end_shuffle(id, &format!("shuffle {id} forgotten"));
        }
    }

    fn end_shuffle(&mut self, id: &str, message: &str) {
        let Some((id, shuffle)) = self.shuffles.shift_remove_entry(id) else {
            return;
        };
        let Shuffle {
            run_id,
            participating,
            restricted,
            ..
        } = shuffle;
        for (key, before) in restricted {
            if let Some(task) = self.tasks.find(&key) {
                self.tasks[task].special_mut().restriction = before;
            }
        }
        let workers = participating.to_vec();
        self.actions.push_back(Action::ShuffleFail {
            workers,
            id,
            run_id,
            message: message.to_owned(),
        });
    }
}
