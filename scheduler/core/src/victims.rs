//! Which workers may go with the least harm.

use crate::{Core, IdMap, WorkerId};

/// What would be lost with a worker: results that nobody else holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unique {
    /// How many there are.
    pub results: usize,
    /// Sum of their sizes; unknown sizes count as 0. Unit: bytes.
    pub bytes: u64,
}

impl Core {
    /// What each worker alone holds.
    ///
    /// Cost: the workers, and the results that have several copies.
    pub fn unique(&self) -> IdMap<WorkerId, Unique> {
        let all = |worker: &crate::Worker| Unique {
            results: worker.has_what.len(),
            bytes: worker.nbytes,
        };
        let mut unique: IdMap<WorkerId, Unique> = self
            .workers
            .iter()
            .map(|(id, worker)| (*id, all(worker)))
            .collect();
        for id in &self.replicated {
            let task = &self.tasks[*id];
            let bytes = u64::try_from(task.nbytes).unwrap_or(0);
            for holder in task.who_has.iter() {
                if let Some(of_holder) = unique.get_mut(&holder) {
                    of_holder.results -= 1;
                    of_holder.bytes -= bytes;
                }
            }
        }
        unique
    }

    /// At most `count` workers that may go, the best first: idle ones without unique results, idle ones, those
    /// with the least unique bytes. `among`: only these; `None`: all.
    ///
    /// Those with actors, with long-running tasks (which often submit others) and those that take part in a shuffle
    /// may not go, nor those that are leaving already.
    pub fn victims(&self, count: usize, among: Option<&[WorkerId]>) -> Vec<WorkerId> {
        let unique = self.unique();
        let mut order: Vec<_> = self
            .workers
            .iter()
            .filter(|(id, _)| among.is_none_or(|among| among.contains(id)))
            .filter(|(id, worker)| !worker.is_leaving() && self.may_go(**id, worker))
            .map(|(id, worker)| {
                let busy = !worker.processing.is_empty();
                let unique = unique.get(id).copied().unwrap_or_default();
                let has_unique = unique.results > 0;
                ((busy, !busy && has_unique, unique.bytes), *id)
            })
            .collect();
        // Of equals the youngest goes, as Kubernetes scales down.
        order.sort_by_key(|(harm, id)| (*harm, std::cmp::Reverse(*id)));
        order.into_iter().take(count).map(|(_, id)| id).collect()
    }

    fn may_go(&self, id: WorkerId, worker: &crate::Worker) -> bool {
        worker.actors.is_empty()
            && worker.long_running.is_empty()
            && !self
                .shuffles
                .values()
                .any(|shuffle| shuffle.participating.contains(id))
    }
}
