//! Answers and failures.

use bytes::Bytes;
use oxidask_protocol::Value;
use oxidask_protocol::message::rpc::Failure;
use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::wire::Encode;

/// What an operation answers with: a value, or an exception that the caller raises.
pub type Outcome = Result<Answer, Refusal>;

/// An exception that the caller raises.
pub type Refusal = Box<Failure>;

/// A builtin exception with a text.
pub fn raise(class: &str, text: &str) -> Refusal {
    Box::new(Failure::builtin(class, text))
}

/// An encoded answer, payloads included.
#[derive(Debug)]
pub struct Answer(Vec<Bytes>);

impl Answer {
    /// An answer written by hand.
    pub fn write(write: impl FnOnce(&mut Writer)) -> Outcome {
        let mut w = Writer::new();
        write(&mut w);
        Ok(Self(w.into_frames()))
    }

    /// Any value that can be encoded.
    pub fn of(value: &impl Encode) -> Outcome {
        Self::write(|w| value.encode(w))
    }

    /// A value.
    pub fn value(value: impl Into<Value>) -> Outcome {
        Self::of(&value.into())
    }

    /// `None`.
    pub fn nil() -> Outcome {
        Self::write(Writer::nil)
    }

    /// `{"status": "OK"}`.
    pub fn ok() -> Outcome {
        Self::value(Value::map([("status", Value::from("OK"))]))
    }

    /// A whole message that somebody else wrote.
    pub fn message(frames: Vec<Bytes>) -> Self {
        Self(frames)
    }

    /// The message.
    pub fn into_frames(self) -> Vec<Bytes> {
        self.0
    }
}

/// `KeyError(text)` at the caller.
pub fn key_error(text: &str) -> Refusal {
    raise("KeyError", text)
}
