//! How runs end.

use std::{sync::Arc, time::Duration};

use oxidask_protocol::Key;

use crate::{
    Core,
    action::{Action, Message},
    event::TaskError,
    ids::TaskId,
    state::{Busy, State},
};

impl Core {
    /// The task whose run ended, its slot freed; nothing for an answer to no question.
    fn end_run(&mut self, key: &Key) -> Option<TaskId> {
        let id = self.tasks.find(key)?;
        if !self.free_slot(id) {
            return None;
        }
        self.executed += 1;
        Some(id)
    }

    pub(crate) fn executed(&mut self, key: &Key, nbytes: u64, duration: Duration) {
        let Some(id) = self.end_run(key) else { return };
        self.note_duration(id, duration);
        match self.tasks[id].state {
            State::Executing | State::LongRunning => {
                self.tasks[id].nbytes = Some(nbytes);
                self.set_state(id, State::Memory);
                let run_id = self.tasks[id].run_id;
                self.send(Message::TaskFinished {
                    key: key.clone(),
                    run_id,
                    nbytes,
                });
            }
            State::Resumed(Busy::Executing | Busy::LongRunning) => {
                // The scheduler believes it in memory elsewhere and expects a replica.
                self.tasks[id].nbytes = Some(nbytes);
                self.set_state(id, State::Memory);
                self.send(Message::AddKeys(vec![key.clone()]));
            }
            State::Cancelled(Busy::Executing | Busy::LongRunning) => {
                self.actions.push_back(Action::FreeData(key.clone()));
                self.drop_task(id);
            }
            // Scattered meanwhile: that value counts.
            State::Memory => {}
            other => debug_assert!(false, "a task with a slot is busy, not {other:?}"),
        }
    }

    pub(crate) fn execute_failed(&mut self, key: &Key, error: Arc<TaskError>) {
        let Some(id) = self.end_run(key) else { return };
        self.tasks[id].suspect = false;
        match self.tasks[id].state {
            State::Executing | State::LongRunning => self.fail(id, error),
            _ => self.run_brought_nothing(id),
        }
    }

    pub(crate) fn rescheduled(&mut self, key: &Key) {
        let Some(id) = self.end_run(key) else { return };
        match self.tasks[id].state {
            State::Executing | State::LongRunning => {
                self.send(Message::Reschedule(key.clone()));
                self.drop_task(id);
            }
            _ => self.run_brought_nothing(id),
        }
    }

    /// A run that nobody waits for ended without a value.
    fn run_brought_nothing(&mut self, id: TaskId) {
        match self.tasks[id].state {
            State::Cancelled(Busy::Executing | Busy::LongRunning) => self.drop_task(id),
            State::Resumed(Busy::Executing | Busy::LongRunning) => self.fetch_or_missing(id),
            _ => {}
        }
    }

    pub(crate) fn seceded(&mut self, key: &Key, compute_duration: Duration) {
        let Some(id) = self.tasks.find(key) else {
            return;
        };
        if self.tasks[id].slot.is_none() {
            return;
        }
        self.secede_slot(id);
        match self.tasks[id].state {
            State::Executing => {
                self.set_state(id, State::LongRunning);
                let run_id = self.tasks[id].run_id;
                self.send(Message::LongRunning {
                    key: key.clone(),
                    run_id,
                    compute_duration: Some(compute_duration),
                });
            }
            State::Cancelled(_) => self.set_state(id, State::Cancelled(Busy::LongRunning)),
            State::Resumed(_) => self.set_state(id, State::Resumed(Busy::LongRunning)),
            _ => {}
        }
    }

    pub(crate) fn executor_lost(
        &mut self,
        running: &[Key],
        queued: &[Key],
        error: &Arc<TaskError>,
    ) {
        for key in queued {
            let Some(id) = self.end_run(key) else {
                continue;
            };
            match self.tasks[id].state {
                State::Executing | State::LongRunning => self.set_state(id, State::Waiting),
                _ => self.run_brought_nothing(id),
            }
        }
        let alone = running.len() == 1;
        for key in running {
            let Some(id) = self.end_run(key) else {
                continue;
            };
            match self.tasks[id].state {
                State::Executing | State::LongRunning => self.run_again(id, alone, error),
                _ => self.run_brought_nothing(id),
            }
        }
    }

    fn run_again(&mut self, id: TaskId, alone: bool, error: &Arc<TaskError>) {
        let task = &mut self.tasks[id];
        // Where one is blamed anyhow, the others need not wait for it.
        task.suspect = !(alone && self.config.isolated);
        task.deaths += u32::from(alone);
        if task.deaths > self.config.allowed_failures {
            task.deaths = 0;
            task.suspect = false;
            self.fail(id, error.clone());
        } else {
            self.set_state(id, State::Waiting);
        }
    }

    pub(crate) fn data_lost(&mut self, keys: &[Key]) {
        for key in keys {
            let Some(id) = self.tasks.find(key) else {
                continue;
            };
            if self.tasks[id].state != State::Memory {
                continue;
            }
            self.actions.push_back(Action::FreeData(key.clone()));
            self.send(Message::ReleaseWorkerData(key.clone()));
            if let Some(busy) = self.tasks[id].busy() {
                self.set_state(id, State::Cancelled(busy));
            } else {
                self.drop_task(id);
            }
        }
    }
}
