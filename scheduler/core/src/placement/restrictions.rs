//! Workers that a task may run on.

use crate::Core;
use crate::ids::WorkerId;
use crate::state::task::Task;

impl Core {
    /// Running workers that satisfy a task's restrictions; `None` if it has none.
    ///
    /// A restriction names workers by address, name or host; resources must be there in full amount, free or not.
    /// Source: distributed `valid_workers`.
    pub(crate) fn valid_workers(&self, task: &Task) -> Option<Vec<WorkerId>> {
        let named = task.worker_restrictions();
        let resources = task.resource_restrictions();
        if named.is_empty() && resources.is_empty() {
            return None;
        }
        let is_valid = |worker: &&WorkerId| {
            let worker = &self.workers[*worker];
            (named.is_empty() || named.iter().any(|name| worker.is_named(name)))
                && worker.has_resources(resources)
        };
        Some(self.running.iter().filter(is_valid).copied().collect())
    }

    /// Whether a task may run anywhere when none of the workers that it names is there.
    pub(crate) fn allows_other_workers(&self, task: &Task) -> bool {
        task.special().restriction.is_none()
            && task
                .annotations
                .as_ref()
                .is_some_and(|a| a.allow_other_workers)
    }
}
