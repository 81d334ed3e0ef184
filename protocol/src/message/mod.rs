//! Typed messages, one file per pair of peers.
//!
//! A stream carries arrays of op-maps without answers ([`decode_batch`], [`encode_batch`]); any other connection
//! carries one request map at a time, each with an answer ([`rpc`]).

pub mod client;
#[cfg(test)]
mod docs;
pub mod rpc;
#[cfg(test)]
mod tests;
pub mod worker;

use bytes::Bytes;

use crate::msgpack::{Reader, Writer};
use crate::wire::{Decode, Encode};
use crate::{DecodeError, DecodeErrorKind};

/// Longest name of an operation. It is named in log lines, and the longest that Dask has is 31.
const MAX_OP: usize = 128;

/// The operations of one direction.
pub trait Operation: Sized {
    /// Reads the map that comes next, whose `op` was read before.
    ///
    /// # Errors
    /// If the operation lacks a field or has one of another type.
    fn decode_op(op: &str, r: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// The `op` of the map that comes next, without consuming it.
///
/// # Errors
/// If the next value is no map, or a map without a text under `op`.
pub fn peek_op<'a>(r: &Reader<'a>) -> Result<&'a str, DecodeError> {
    let mut probe = r.clone();
    for _ in 0..probe.map()? {
        if probe.field()? == b"op" {
            return read_op(&mut probe);
        }
        probe.skip()?;
    }
    r.fail(DecodeErrorKind::NoOp)
}

fn read_op<'a>(r: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let at = r.position();
    let op = r.str()?;
    if op.len() > MAX_OP {
        let kind = DecodeErrorKind::Limit {
            what: "bytes of the name of an op",
            declared: op.len() as u64,
            limit: MAX_OP as u64,
        };
        return r.fail_at(at, kind);
    }
    Ok(op)
}

/// Reads what a stream connection carries: an array of op-maps, or one alone. A bare `"OK"` ends the array.
///
/// # Errors
/// If the document is damaged or an operation lacks a field; the error tells the message and the byte.
pub fn decode_batch<T: Decode>(frames: &[Bytes]) -> Result<Vec<T>, DecodeError> {
    let mut r = Reader::of_message(frames)?;
    if !r.is_array()? {
        let alone = read_item(&mut r)?;
        r.finish()?;
        return Ok(alone.into_iter().collect());
    }
    let length = r.array()?;
    let mut batch = Vec::with_capacity(length.min(r.remaining() / SMALLEST_ITEM));
    for index in 0..length {
        match read_item(&mut r).map_err(|error| error.in_message(index))? {
            Some(item) => batch.push(item),
            None => {
                for _ in index + 1..length {
                    r.skip()?;
                }
                break;
            }
        }
    }
    r.finish()?;
    Ok(batch)
}

/// Bytes of `{"op": ""}`. No more messages than fit are made room for.
const SMALLEST_ITEM: usize = 5;

/// Reads one message of a batch, or `None` for the `"OK"` that ends it.
#[inline]
fn read_item<T: Decode>(r: &mut Reader<'_>) -> Result<Option<T>, DecodeError> {
    if r.is_map()? {
        return T::decode(r).map(Some);
    }
    let at = r.position();
    match r.str_or_skip()? {
        Some("OK") => Ok(None),
        _ => r.fail_at(
            at,
            DecodeErrorKind::Unexpected {
                expected: "a message with \"op\", or \"OK\"",
                found: "another value",
            },
        ),
    }
}

/// Writes a batch for a stream connection.
pub fn encode_batch<'a, T: Encode + 'a>(batch: impl ExactSizeIterator<Item = &'a T>) -> Vec<Bytes> {
    let mut w = Writer::new();
    w.array(batch.len());
    batch.for_each(|message| message.encode(&mut w));
    w.into_frames()
}

/// Writes one value as a message.
pub fn encode_one(value: &impl Encode) -> Vec<Bytes> {
    let mut w = Writer::new();
    value.encode(&mut w);
    w.into_frames()
}

/// Reads a message that is one value.
///
/// # Errors
/// If it is of another type, damaged, or followed by more.
pub fn decode_one<T: Decode>(frames: &[Bytes]) -> Result<T, DecodeError> {
    let mut r = Reader::of_message(frames)?;
    let value = T::decode(&mut r)?;
    r.finish()?;
    Ok(value)
}
