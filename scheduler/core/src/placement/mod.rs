//! Which worker runs a task.
//!
//! Root tasks (many, with few or no dependencies) go to the emptiest worker with an open slot and are queued while
//! there is none, so that what follows them runs first and memory stays low. All others go where they are expected
//! to start soonest, given what each worker has to do and which dependencies it would have to fetch.
//!
//! A worker is charged for values that nothing else brings to it, and for sending the result to where what follows
//! will run (`cost`). Many tasks that become ready at once are divided among the workers as a whole (`batch`).
//!
//! Source: distributed `decide_worker_*`, `is_rootish`, `worker_objective`; docs/scheduling.md.

mod batch;
mod cost;
mod objective;
mod occupancy;
mod restrictions;
mod roots;

use crate::Core;
use crate::ids::{TaskId, WorkerId};

/// Where a ready task goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// To this worker.
    On(WorkerId),
    /// Every worker that could take it has enough to do.
    Queue,
    /// No worker may run it.
    Nowhere,
}

impl Core {
    /// Chooses a place for a ready task.
    pub(crate) fn place(&mut self, id: TaskId) -> Place {
        if let Some(worker) = self.planned.swap_remove(&id)
            && self.running.contains(&worker)
        {
            return Place::On(worker);
        }
        let is_root = self.is_rootish(id);
        if self.draining {
            let may_queue =
                !self.config.worker_saturation.is_infinite() && !self.tasks[id].never_queued;
            return if is_root && may_queue {
                Place::Queue
            } else {
                Place::Nowhere
            };
        }
        if !is_root {
            return self.place_by_objective(id);
        }
        if self.config.worker_saturation.is_infinite() || self.tasks[id].never_queued {
            return self.place_beside_siblings(id);
        }
        if self.running.is_empty() {
            // Stock would queue it too: it starts when a worker comes.
            return Place::Queue;
        }
        self.emptiest_open_worker().map_or(Place::Queue, Place::On)
    }
}
