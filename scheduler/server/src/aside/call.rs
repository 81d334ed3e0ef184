//! Calls to the process and their answers.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use oxidask_protocol::msgpack::{Reader, Writer};
use oxidask_protocol::wire::{Decode, Encode};
use oxidask_protocol::{DecodeError, Key, Payload, Value};
use tokio::sync::{mpsc, oneshot};

use super::{AsideError, Message, P2pSpec};

/// One call: a function of `calls.py` with its arguments and raw parts.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(super) id: u64,
    what: &'static str,
    args: Value,
    parts: Vec<Bytes>,
}

/// A number that no other call has.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Call {
    pub(super) fn new<const N: usize>(
        what: &'static str,
        args: [(&'static str, Value); N],
        parts: Vec<Bytes>,
    ) -> Self {
        Self {
            id: next_id(),
            what,
            args: Value::map(args),
            parts,
        }
    }

    /// The same call once more, under another number.
    pub(super) fn again(&self) -> Self {
        Self {
            id: next_id(),
            ..self.clone()
        }
    }

    pub(super) fn message(self) -> Message {
        let document = Value::map([
            ("op", "call".into()),
            ("id", self.id.into()),
            ("what", self.what.into()),
            ("args", self.args),
        ]);
        let mut message = vec![document_of(&document)];
        message.extend(self.parts);
        message
    }
}

/// A value as a msgpack document.
pub(super) fn document_of(value: &Value) -> Bytes {
    let mut w = Writer::new();
    value.encode(&mut w);
    w.into_document()
}

/// Where the answer to a call goes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// To one who waits.
    Once(oneshot::Sender<Result<Answer, AsideError>>),
    /// To a feed: its messages, and an error at its end.
    Feed(mpsc::Sender<Result<Message, AsideError>>),
    /// Nowhere but into the log, with these words if it fails.
    Log(&'static str),
}

impl Sink {
    pub(super) fn end(self, answer: Result<Answer, AsideError>) {
        match (self, answer) {
            // Who asked may have gone away, which is as well.
            (Self::Once(reply), answer) => drop(reply.send(answer)),
            (Self::Feed(messages), Err(error)) => drop(messages.try_send(Err(error))),
            (Self::Log(words), Err(error)) => tracing::warn!(error = %error, "{words}"),
            (Self::Feed(_) | Self::Log(_), Ok(_)) => {}
        }
    }
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// A value.
    pub value: Value,
    /// Raw parts, such as the frames of a message.
    pub parts: Vec<Bytes>,
}

impl Answer {
    /// Reads a `reply`: the number of the call, and its answer or error.
    pub(super) fn read(frames: &[Bytes]) -> Result<(u64, Result<Self, AsideError>), DecodeError> {
        let parts = frames.get(1..).unwrap_or_default();
        let mut r = Reader::of_message(frames)?;
        let (mut id, mut value, mut failed, mut has_traceback) = (0, Value::Nil, false, false);
        let (mut text, mut traceback_text) = (String::new(), String::new());
        for _ in 0..r.map()? {
            match r.str()? {
                "id" => id = r.uint()?,
                "value" => value = Value::decode(&mut r)?,
                "failed" => failed = r.bool()?,
                "traceback" => has_traceback = r.bool()?,
                "exception_text" => text = r.str()?.to_owned(),
                "traceback_text" => traceback_text = r.str()?.to_owned(),
                _ => r.skip()?,
            }
        }
        if failed {
            let exception = parts.first().cloned().unwrap_or_default();
            let traceback = if has_traceback {
                parts.get(1).cloned()
            } else {
                None
            };
            return Ok((
                id,
                Err(AsideError::raised(
                    exception,
                    traceback,
                    text,
                    traceback_text,
                )),
            ));
        }
        Ok((
            id,
            Ok(Self {
                value,
                parts: parts.to_vec(),
            }),
        ))
    }

    pub(super) fn into_p2p_spec(self) -> Option<P2pSpec> {
        let pair = |pair: &Value| -> Option<(Key, String)> {
            match pair.as_array()? {
                [partition, worker] => Some((partition.to_key()?, worker.as_str()?.to_owned())),
                _ => None,
            }
        };
        let worker_for = self
            .value
            .as_array()?
            .iter()
            .map(pair)
            .collect::<Option<_>>()?;
        let (pickle, buffers) = self.parts.split_first()?;
        Some(P2pSpec {
            worker_for,
            run_spec: Payload::pickled(pickle, buffers.to_vec()).ok()?,
        })
    }
}
