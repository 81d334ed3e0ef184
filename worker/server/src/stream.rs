//! Batches of the scheduler's stream: typed messages, and those that Python handles as they came.

use bytes::Bytes;
use oxidask_protocol::{
    DecodeError,
    message::{peek_op, worker::ToWorker},
    msgpack::Reader,
    wire::Decode,
};

/// One message of the scheduler's stream.
#[derive(Clone, Debug)]
pub(crate) enum StreamMessage {
    /// For the worker itself.
    Typed(Box<ToWorker>),
    /// For a stream handler of a plugin: the message alone, with the frames it may refer to.
    Raw { op: String, frames: Vec<Bytes> },
}

/// Reads a batch.
///
/// # Errors
/// If the document is damaged or a known operation lacks a field.
pub(crate) fn decode(frames: &[Bytes]) -> Result<Vec<StreamMessage>, DecodeError> {
    let mut r = Reader::of_message(frames)?;
    if r.is_map()? {
        return Ok(vec![decode_message(&mut r, frames)?]);
    }
    let length = r.array()?;
    let mut batch = Vec::with_capacity(length.min(4096));
    for _ in 0..length {
        if r.is_map()? {
            batch.push(decode_message(&mut r, frames)?);
        } else {
            r.skip()?;
        }
    }
    Ok(batch)
}

fn decode_message(r: &mut Reader<'_>, frames: &[Bytes]) -> Result<StreamMessage, DecodeError> {
    let op = peek_op(r)?;
    if op != "shuffle-fail" && ToWorker::OPS.contains(&op) {
        return Ok(StreamMessage::Typed(Box::new(ToWorker::decode(r)?)));
    }
    let op = op.to_owned();
    let mut own = vec![Bytes::copy_from_slice(r.raw()?)];
    own.extend_from_slice(&frames[1..]);
    Ok(StreamMessage::Raw { op, frames: own })
}
