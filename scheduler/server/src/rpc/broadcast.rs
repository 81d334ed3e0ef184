//! Requests that go on to workers or nannies, with their answers brought back unopened.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use oxidask_protocol::message::decode_one;
use oxidask_protocol::message::rpc::{Broadcast, Failure, Proxy};
use oxidask_protocol::wire::Encode;
use oxidask_protocol::{Payload, Value};
use tracing::warn;

use super::reply::{Refusal, key_error, raise};
use super::{Answer, Outcome, coerce, failure_in, unreachable_peer};
use crate::server::Server;

/// What becomes of a worker's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnError {
    /// The whole request fails with it.
    Raise,
    /// It stands in the worker's place as an exception.
    Return,
    /// It stands in the worker's place as a pickle in bytes.
    ReturnPickle,
    /// The worker is left out.
    Ignore,
}

/// `broadcast`: one request to many workers.
pub(super) async fn broadcast(server: &Arc<Server>, body: Broadcast) -> Outcome {
    let on_error = match body.on_error.as_str() {
        "raise" => OnError::Raise,
        "return" => OnError::Return,
        "return_pickle" => OnError::ReturnPickle,
        "ignore" => OnError::Ignore,
        other => {
            let text = format!(
                "on_error must be 'raise', 'return', 'return_pickle', or 'ignore'; got {other:?}"
            );
            return Err(raise("ValueError", &text));
        }
    };
    let targets = targets(server, &body)?;
    let answers = send_all(server, targets, &body.msg, on_error).await?;
    Answer::of(&Value::Map(answers))
}

/// `proxy`: one request to one worker.
pub(super) async fn proxy(server: &Arc<Server>, body: Proxy) -> Outcome {
    let address = coerce(&server.driver(), &body.worker)?;
    let answer = send(server, &address, &body.msg).await?;
    Answer::of(&answer)
}

/// A request to all workers (or their nannies); the answers by worker, or the first failure.
pub(super) async fn to_all(server: &Arc<Server>, message: &Value, nanny: bool) -> Outcome {
    let body = Broadcast {
        msg: Value::Nil,
        workers: None,
        hosts: None,
        nanny,
        on_error: String::new(),
    };
    let targets = targets(server, &body)?;
    let answers = send_all(server, targets, message, OnError::Raise).await?;
    Answer::of(&Value::Map(answers))
}

/// The name in the answer, and the address to send to.
type Target = (Arc<str>, Arc<str>);

/// Who is meant.
fn targets(server: &Server, body: &Broadcast) -> Result<Vec<Target>, Refusal> {
    let driver = server.driver();
    let mut workers: Vec<Arc<str>> = match (&body.workers, &body.hosts) {
        (Some(names), _) => names
            .iter()
            .map(|name| coerce(&driver, name))
            .collect::<Result<_, _>>()?,
        (None, None) => driver
            .workers
            .iter()
            .map(|peer| Arc::clone(&peer.address))
            .collect(),
        (None, Some(_)) => Vec::new(),
    };
    for host in body.hosts.iter().flatten() {
        let on_host = driver.workers.iter().filter(|peer| *peer.host == **host);
        workers.extend(on_host.map(|peer| Arc::clone(&peer.address)));
    }
    if !body.nanny {
        return Ok(workers.into_iter().map(|w| (Arc::clone(&w), w)).collect());
    }
    let mut out = Vec::with_capacity(workers.len());
    for worker in workers {
        let peer = driver
            .workers
            .by_address(&worker)
            .ok_or_else(|| key_error(&worker))?;
        if let Some(nanny) = &peer.nanny {
            out.push((worker, nanny.as_str().into()));
        }
    }
    Ok(out)
}

async fn send_all(
    server: &Arc<Server>,
    targets: Vec<Target>,
    message: &Value,
    on_error: OnError,
) -> Result<Vec<(Value, Value)>, Refusal> {
    let sends = targets.into_iter().map(|(worker, address)| async move {
        let answer = send(server, &address, message).await;
        (worker, answer)
    });
    let mut out = Vec::new();
    for (worker, answer) in join_all(sends).await {
        let value = match answer {
            Ok(value) => value,
            Err(failure) => {
                warn!(worker = %worker, error = failure.exception_text, "broadcast failed");
                match on_error {
                    OnError::Raise => return Err(failure),
                    OnError::Return => {
                        let pickled = Payload::pickled(&pickle_of(&failure), Vec::new());
                        Value::Payload(pickled.map_err(|_| failure)?)
                    }
                    OnError::ReturnPickle => Value::Bin(pickle_of(&failure)),
                    OnError::Ignore => continue,
                }
            }
        };
        out.push((Value::from(&*worker), value));
    }
    Ok(out)
}

/// Sends a request that is passed on as it came.
pub(super) async fn send(
    server: &Server,
    address: &str,
    message: &Value,
) -> Result<Value, Refusal> {
    let frames = server
        .pool
        .call(address, &Forwarded(message))
        .await
        .map_err(|error| unreachable_peer(address, &error))?;
    let answer: Value = decode_one(&frames)
        .map_err(|error| raise("ValueError", &format!("answer of {address}: {error}")))?;
    match failure_in(&answer) {
        Some(failure) => Err(failure),
        None => Ok(answer),
    }
}

/// A request of somebody else, sent on with the answer wanted and the connection kept.
struct Forwarded<'a>(&'a Value);

impl Encode for Forwarded<'_> {
    fn encode(&self, w: &mut oxidask_protocol::msgpack::Writer) {
        let pairs = self.0.as_map().unwrap_or_default();
        let kept = || {
            pairs
                .iter()
                .filter(|(name, _)| !matches!(name.as_str(), Some("reply" | "close")))
        };
        w.map(kept().count() + 1);
        for (name, value) in kept() {
            name.encode(w);
            value.encode(w);
        }
        w.str("reply");
        w.bool(true);
    }
}

/// The pickled exception of a failure.
fn pickle_of(failure: &Failure) -> Bytes {
    match &failure.exception {
        Value::Bin(pickle) => pickle.clone(),
        // An exception travels as pickled bytes that are serialised as `bytes`: one frame, the pickle.
        Value::Payload(payload) if payload.frames.as_slice().len() == 1 => {
            payload.frames.as_slice()[0].clone()
        }
        _ => oxidask_protocol::exception::builtin("Exception", &failure.exception_text),
    }
}
