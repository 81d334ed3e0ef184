//! Typed messages, one file per pair of peers.
//!
//! A stream carries arrays of op-maps without answers ([`decode_batch`], [`encode_batch`]); any other connection
//! carries one request map at a time, each with an answer ([`rpc`]).

pub mod client;
pub mod rpc;
pub mod worker;

use bytes::Bytes;

use crate::msgpack::{Reader, Writer};
use crate::wire::{Decode, Encode};
use crate::{DecodeError, DecodeErrorKind};

/// The `op` of the map that comes next, without consuming it.
///
/// # Errors
/// If the next value is no map, or a map without a text under `op`.
pub fn peek_op<'a>(r: &Reader<'a>) -> Result<&'a str, DecodeError> {
    let mut probe = r.clone();
    for _ in 0..probe.map()? {
        if probe.str_or_skip()? == Some("op") {
            return probe.str();
        }
        probe.skip()?;
    }
    r.fail(DecodeErrorKind::NoOp)
}

/// Reads what a stream connection carries: an array of op-maps, or one bare map.
///
/// # Errors
/// If the document is damaged or an operation lacks a field; the error tells the byte.
pub fn decode_batch<T: Decode>(frames: &[Bytes]) -> Result<Vec<T>, DecodeError> {
    let mut r = Reader::of_message(frames)?;
    if r.is_map()? {
        return Ok(vec![T::decode(&mut r)?]);
    }
    let length = r.array()?;
    let mut batch = Vec::with_capacity(length.min(4096));
    for _ in 0..length {
        if r.is_map()? {
            batch.push(T::decode(&mut r)?);
        } else {
            // Stock peers end a batch with a bare "OK".
            r.skip()?;
        }
    }
    r.finish()?;
    Ok(batch)
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
