//! What comes over the scheduler's stream.

use std::sync::Arc;

use oxidask_protocol::{
    Key,
    message::worker::{ComputeTask, StatusChange, ToWorker},
    msgpack::Writer,
    wire::{Encode, Pairs},
};
use oxidask_worker_core::{self as core, Address, EventKind, Priority, RunSpec};

use super::{Driver, End, Status, start::PRIMARY};
use crate::{executor::wire::control, stream::StreamMessage};

impl Driver {
    pub(super) fn scheduler_says(&mut self, message: StreamMessage) {
        match message {
            StreamMessage::Typed(message) => self.typed(*message),
            StreamMessage::Raw { op, frames } => match self.handle(PRIMARY) {
                Some(executor) if executor.is_deaf() => {
                    tracing::error!(op, "an operation is lost: the executor does not read");
                }
                Some(executor) if self.stream_handlers.contains(&op) => {
                    executor.send_control(control("stream", Vec::new(), frames));
                }
                None if self.executors_put_off => {
                    // A plugin's operation: only Python knows whether it has a handler.
                    tracing::debug!(op, "an operation for Python has no executor yet");
                }
                _ => tracing::warn!(op, "unknown operation on the scheduler's stream"),
            },
        }
    }

    fn typed(&mut self, message: ToWorker) {
        match message {
            ToWorker::ComputeTask(task) => self.compute_task(task),
            ToWorker::FreeKeys(m) => self.event(EventKind::FreeKeys(m.keys), m.stimulus_id),
            ToWorker::RemoveReplicas(m) => {
                self.event(EventKind::RemoveReplicas(m.keys), m.stimulus_id)
            }
            ToWorker::AcquireReplicas(m) => {
                let kind = EventKind::AcquireReplicas {
                    who_has: addresses(m.who_has),
                    nbytes: m.nbytes.0,
                };
                self.event(kind, m.stimulus_id);
            }
            ToWorker::StealRequest(m) => self.event(EventKind::StealRequest(m.key), m.stimulus_id),
            ToWorker::RefreshWhoHas(m) => self.event(
                EventKind::RefreshWhoHas(addresses(m.who_has)),
                m.stimulus_id,
            ),
            ToWorker::CancelCompute(m) => {
                self.event(EventKind::CancelCompute(m.key), m.stimulus_id)
            }
            ToWorker::StatusChange(m) => self.status_change(&m),
            ToWorker::RemoveWorker(m) => {
                let (peers, worker) = (self.peers.clone(), m.worker.clone());
                tokio::spawn(async move { peers.forget(&worker).await });
                self.event(EventKind::RemoveWorker(Arc::from(m.worker)), m.stimulus_id);
            }
            ToWorker::Close(m) => {
                let reason = m
                    .reason
                    .0
                    .unwrap_or_else(|| "the scheduler closes this worker".to_owned());
                self.close(false, reason);
            }
            ToWorker::CloseStream(_) => {
                self.stop = Some(End::Stop("the scheduler closes the stream".to_owned()))
            }
            ToWorker::ShuffleFail(_) | ToWorker::Unknown(_) => {}
        }
    }

    fn compute_task(&mut self, task: ComputeTask) {
        let mut annotations = Writer::new();
        task.annotations.encode(&mut annotations);
        let (user, generation, order) = task.priority;
        let resources = task.resource_restrictions.unwrap_or_default().0;
        let event = core::ComputeTask {
            key: task.key,
            run_id: task.run_id,
            priority: Priority::new(&[user.0, generation.0, order.0]),
            who_has: addresses(task.who_has),
            nbytes: task.nbytes.0,
            run_spec: Arc::new(RunSpec {
                payload: task.run_spec,
                annotations: annotations.into_document(),
                span_id: task.span_id.map(Arc::from),
                actor: task.actor,
            }),
            resources: resources
                .into_iter()
                .map(|(name, amount)| (Arc::from(name), amount))
                .collect(),
        };
        self.event(EventKind::ComputeTask(Box::new(event)), task.stimulus_id);
    }

    /// The scheduler sets a state and hears it back.
    fn status_change(&mut self, message: &StatusChange) {
        let status = match message.status.as_str() {
            "running" => Status::Running,
            "paused" => Status::Paused,
            "closing_gracefully" => Status::ClosingGracefully,
            other => {
                tracing::warn!(status = other, "the scheduler asks for an unknown state");
                return;
            }
        };
        if self.status == Status::Closing {
            return;
        }
        self.set_status(status, message.stimulus_id.clone());
        let kind = if status == Status::Running {
            EventKind::Unpause
        } else {
            EventKind::Pause
        };
        self.event(kind, message.stimulus_id.clone());
    }
}

fn addresses(who_has: Pairs<Key, Vec<String>>) -> Vec<(Key, Vec<Address>)> {
    let intern = |workers: Vec<String>| workers.into_iter().map(Arc::from).collect();
    who_has
        .0
        .into_iter()
        .map(|(key, workers)| (key, intern(workers)))
        .collect()
}
