//! No task is handed out for a while, so that the scheduler or every worker can be replaced.

use crate::Core;
use crate::action::TaskStateName::Processing;
use crate::ids::TaskId;

impl Core {
    /// Stops handing out tasks, or goes on. What workers have goes on to its end; what becomes ready is parked.
    pub(super) fn set_draining(&mut self, draining: bool) {
        let ends = self.draining && !draining;
        self.draining = draining;
        if !ends {
            return;
        }
        let mut parked: Vec<TaskId> = self.unrunnable.keys().copied().collect();
        for since in self.unrunnable.values_mut() {
            // Nobody could have run them meanwhile.
            *since = self.now;
        }
        parked.sort_by_key(|task| std::cmp::Reverse(self.tasks[*task].rank()));
        for task in parked {
            self.recommend(task, Processing);
        }
    }

    /// Whether no task is handed out.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Tasks that workers have been given and have not ended.
    pub fn assigned_tasks(&self) -> usize {
        self.workers.values().map(|w| w.processing.len()).sum()
    }
}
