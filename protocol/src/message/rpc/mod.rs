//! Requests on a connection of their own, one at a time, each with an answer.

mod extensions;
mod failure;
mod scheduler;
mod worker;

pub use extensions::*;
pub use failure::Failure;
pub use scheduler::*;
pub use worker::*;

use super::{Operation, read_op};
use crate::msgpack::Reader;
use crate::wire::{Decode, Omit};
use crate::{DecodeError, DecodeErrorKind, Value};

wire_struct! {
    /// What every request may say about its answer.
    pub struct Envelope {
        /// Whether an answer is wanted.
        reply: bool = true,
        /// Whether the listener closes the connection after it.
        close: bool = false,
        /// Serialisation families allowed in the answer.
        serializers: Omit<Value>,
        /// The caller submits native graphs only, so no interpreter need be kept ready for it. Of oxidask alone.
        native: bool = false,
    }
}

/// A request with what it says about its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<T> {
    /// Whether and how to answer.
    pub envelope: Envelope,
    /// The request.
    pub call: T,
}

impl<T: Operation> Decode for Request<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut probe = r.clone();
        let (mut op, mut envelope) = (None, Envelope::default());
        for _ in 0..probe.map()? {
            match probe.field()? {
                b"op" => op = Some(read_op(&mut probe)?),
                b"reply" => envelope.reply = field(&mut probe, "reply")?,
                b"close" => envelope.close = field(&mut probe, "close")?,
                b"native" => envelope.native = field(&mut probe, "native")?,
                b"serializers" => envelope.serializers = field(&mut probe, "serializers")?,
                _ => probe.skip()?,
            }
        }
        let Some(op) = op else {
            return r.fail(DecodeErrorKind::NoOp);
        };
        let call = T::decode_op(op, r)?;
        Ok(Self { envelope, call })
    }
}

fn field<T: Decode>(r: &mut Reader<'_>, name: &'static str) -> Result<T, DecodeError> {
    T::decode(r).map_err(|error| error.in_field(name))
}

impl Default for Envelope {
    /// What holds for a request that says nothing.
    fn default() -> Self {
        Self {
            reply: true,
            close: false,
            serializers: Omit(None),
            native: false,
        }
    }
}
