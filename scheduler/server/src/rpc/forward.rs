//! Questions that workers answer.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures::future::join_all;
use oxidask_protocol::message::rpc::{Broadcast, WorkerLogs};
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::action::TaskStateName;

use super::reply::{Refusal, key_error};
use super::{Answer, Outcome, broadcast};
use crate::server::Server;

/// `worker_logs`: the last lines of each worker, or of its nanny.
pub(super) async fn worker_logs(server: &Arc<Server>, body: WorkerLogs) -> Outcome {
    let message = Value::map([("op", Value::from("get_logs")), ("n", body.n.into())]);
    let request = Broadcast {
        msg: message,
        workers: body.workers,
        hosts: None,
        nanny: body.nanny,
        on_error: "raise".to_owned(),
    };
    broadcast::broadcast(server, request).await
}

/// `call_stack`: stacks of the tasks that run, of all or of those that keys wait for.
pub(super) async fn call_stack(server: &Arc<Server>, keys: Option<Vec<Key>>) -> Outcome {
    let asked = match keys {
        None => server
            .driver()
            .workers
            .iter()
            .map(|peer| (Arc::clone(&peer.address), None))
            .collect(),
        Some(keys) => running(server, keys)?,
    };
    let calls = asked.into_iter().map(|(address, keys)| async move {
        let keys = keys.map_or(Value::Nil, |keys| {
            Value::Array(keys.iter().map(Value::from).collect())
        });
        let message = Value::map([("op", Value::from("call_stack")), ("keys", keys)]);
        let answer = broadcast::send(server, &address, &message).await;
        answer.map(|answer| (Value::from(&*address), answer))
    });
    let answers: Result<Vec<(Value, Value)>, Refusal> = join_all(calls).await.into_iter().collect();
    let mut answers = answers?;
    answers.retain(|(_, stacks)| stacks.as_map().is_some_and(|stacks| !stacks.is_empty()));
    Answer::value(Value::Map(answers))
}

type ByWorker = Vec<(Arc<str>, Option<Vec<Key>>)>;

/// The tasks that run for keys, by worker.
fn running(server: &Server, keys: Vec<Key>) -> Result<ByWorker, Refusal> {
    let driver = server.driver();
    let mut seen: HashSet<Key> = keys.iter().cloned().collect();
    let mut todo = VecDeque::from(keys);
    let mut out: Vec<(Arc<str>, Option<Vec<Key>>)> = Vec::new();
    while let Some(key) = todo.pop_front() {
        let view = driver
            .core()
            .task(&key)
            .ok_or_else(|| key_error(&key.to_string()))?;
        match view.state {
            TaskStateName::Waiting => {
                todo.extend(
                    view.dependencies
                        .into_iter()
                        .filter(|d| seen.insert(d.clone())),
                );
            }
            TaskStateName::Processing => {
                let Some(peer) = view.processing_on.and_then(|id| driver.workers.get(id)) else {
                    continue;
                };
                match out.iter_mut().find(|(address, _)| *address == peer.address) {
                    Some((_, Some(keys))) => keys.push(key),
                    _ => out.push((Arc::clone(&peer.address), Some(vec![key]))),
                }
            }
            _ => {}
        }
    }
    Ok(out)
}
