//! What the core asks for, done.

use std::sync::Arc;

use oxidask_protocol::{
    Key, Payload, Value,
    message::worker::{
        FromWorker, KeyStimulus, Keys, LongRunning, StealResponse, TaskErred, TaskFinished,
    },
    wire::Omit,
};
use oxidask_worker_core::{Action, Address, Message, TaskError};

use super::{Driver, Start};
use crate::input::Input;

impl Driver {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Execute {
                key,
                run_spec,
                dependencies,
                ..
            } => {
                self.start(Start {
                    key,
                    run_spec,
                    dependencies,
                });
            }
            Action::GatherDep {
                worker,
                keys,
                nbytes,
                ..
            } => self.gather(worker, keys, nbytes),
            Action::FreeData(key) => self.free(&key),
            Action::Send(message, stimulus_id) => self.send(message, &stimulus_id),
        }
    }

    fn gather(&mut self, worker: Address, keys: Vec<Key>, nbytes: u64) {
        let (peers, inputs, who) = (
            self.peers.clone(),
            self.inputs.clone(),
            self.address.clone(),
        );
        tokio::spawn(async move {
            let outcome = peers.get_data(&worker, &keys, &who, nbytes).await;
            inputs.send(Input::Transfer { worker, outcome }).await;
        });
    }

    fn free(&mut self, key: &Key) {
        if let Some(entry) = self.store.remove(key) {
            self.drop_from_executors(&entry);
            self.note_unspilled(&entry);
            self.gets.value_gone(entry.id);
            self.value_gone_for_spilling(entry.id);
        }
    }

    fn send(&mut self, message: Message, stimulus_id: &Arc<str>) {
        let stimulus_id = stimulus_id.to_string();
        let message = match message {
            Message::TaskFinished {
                key,
                run_id,
                nbytes,
            } => self.task_finished(key, run_id, nbytes, stimulus_id),
            Message::TaskErred { key, run_id, error } => {
                let blamed = self
                    .death
                    .as_ref()
                    .and_then(|death| death.blame(&key, &error, self));
                task_erred(key, run_id, blamed.as_ref().unwrap_or(&error), stimulus_id)
            }
            Message::Reschedule(key) => FromWorker::Reschedule(KeyStimulus { key, stimulus_id }),
            Message::LongRunning {
                key,
                run_id,
                compute_duration,
            } => FromWorker::LongRunning(LongRunning {
                key,
                run_id: Omit(Some(run_id)),
                compute_duration: compute_duration.map(|duration| duration.as_secs_f64()),
                stimulus_id,
            }),
            Message::AddKeys(keys) => FromWorker::AddKeys(Keys { keys, stimulus_id }),
            Message::ReleaseWorkerData(key) => {
                FromWorker::ReleaseWorkerData(KeyStimulus { key, stimulus_id })
            }
            Message::RequestRefreshWhoHas(keys) => {
                FromWorker::RequestRefreshWhoHas(Keys { keys, stimulus_id })
            }
            Message::StealResponse { key, state } => FromWorker::StealResponse(StealResponse {
                key,
                state: state.map(str::to_owned),
                stimulus_id,
            }),
        };
        self.tell_scheduler(message);
    }

    fn task_finished(&self, key: Key, run_id: i64, nbytes: u64, stimulus_id: String) -> FromWorker {
        let about = self
            .store
            .get(&key)
            .map(|entry| entry.about.clone())
            .unwrap_or_default();
        FromWorker::TaskFinished(TaskFinished {
            key,
            run_id,
            status: Omit(Some("OK".to_owned())),
            nbytes: Some(nbytes),
            type_: Some(about.type_),
            typename: about.typename,
            metadata: Value::Map(Vec::new()),
            thread: Value::Int(about.thread.into()),
            startstops: Some(about.startstops),
            stimulus_id,
        })
    }
}

fn task_erred(key: Key, run_id: i64, error: &TaskError, stimulus_id: String) -> FromWorker {
    FromWorker::TaskErred(TaskErred {
        key,
        run_id,
        status: Omit(Some("error".to_owned())),
        exception: Value::Payload(error.exception.clone()),
        traceback: error.traceback.clone().map_or(Value::Nil, Value::Payload),
        exception_text: error.exception_text.clone(),
        traceback_text: error.traceback_text.clone(),
        thread: Value::Nil,
        startstops: Some(Vec::new()),
        stimulus_id,
    })
}

/// An error that arose on this side of the executor: a RuntimeError with this text.
pub(super) fn task_error(text: &str) -> Arc<TaskError> {
    let pickle = oxidask_protocol::exception::builtin("RuntimeError", text);
    Arc::new(TaskError {
        exception: Payload::of_bytes(pickle),
        traceback: None,
        exception_text: format!("RuntimeError({text:?})"),
        traceback_text: String::new(),
    })
}
