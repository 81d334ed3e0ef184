//! Any frames, read as a message of every direction: a message or an error, with memory in proportion to the frames;
//! what was read can be written, and is then read the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use oxidask_protocol::handshake::Handshake;
use oxidask_protocol::message::client::{FromClient, ToClient};
use oxidask_protocol::message::rpc::{Failure, Request, ToScheduler, ToWorkerRpc};
use oxidask_protocol::message::worker::{FromWorker, RegisterWorkerReply, ToWorker};
use oxidask_protocol::message::{decode_batch, decode_one, encode_batch, encode_one};
use oxidask_protocol::wire::{Decode, Encode};
use oxidask_protocol::{DecodeError, Value};
use oxidask_protocol_fuzz::within;

/// Bytes allocated per byte of the message. The costliest byte is one of the five of `{"op": ""}` in a batch from a
/// client, which takes the 464 bytes of the largest such message; then nil in an array of values, 64 bytes.
const PER_BYTE: usize = 128;

/// Bytes allocated for any message: errors, the list of a batch.
const FIXED: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let frames = oxidask_protocol_fuzz::frames(input);
    let size: usize = frames.iter().map(|frame| 8 + frame.len()).sum();
    let limit = size * PER_BYTE + FIXED;
    batch::<FromClient>(&frames, limit);
    batch::<ToClient>(&frames, limit);
    batch::<FromWorker>(&frames, limit);
    batch::<ToWorker>(&frames, limit);
    one::<Value>(&frames, limit);
    one::<Handshake>(&frames, limit);
    one::<RegisterWorkerReply>(&frames, limit);
    one::<Failure>(&frames, limit);
    request::<ToScheduler>(&frames, limit);
    request::<ToWorkerRpc>(&frames, limit);
});

fn batch<T: Decode + Encode>(frames: &[Bytes], limit: usize) {
    let read = |frames: &[Bytes]| decode_batch::<T>(frames);
    again(frames, limit, read, |batch| encode_batch(batch.iter()));
}

fn one<T: Decode + Encode>(frames: &[Bytes], limit: usize) {
    again(frames, limit, |frames| decode_one::<T>(frames), encode_one);
}

fn request<T: oxidask_protocol::message::Operation + Encode>(frames: &[Bytes], limit: usize) {
    let read = |frames: &[Bytes]| decode_one::<Request<T>>(frames).map(|request| request.call);
    again(frames, limit, read, encode_one);
}

/// Bytes are compared, since a NaN differs from itself.
fn again<T>(
    frames: &[Bytes],
    limit: usize,
    read: impl Fn(&[Bytes]) -> Result<T, DecodeError>,
    write: impl Fn(&T) -> Vec<Bytes>,
) {
    match within(limit, std::any::type_name::<T>(), || read(frames)) {
        Err(error) => {
            let _ = error.to_string();
        }
        Ok(message) => {
            let written = write(&message);
            let message = read(&written).expect("what was written is read");
            assert_eq!(write(&message), written);
        }
    }
}
