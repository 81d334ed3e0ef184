//! Any message comes back equal through bytes; no bytes make reading panic.

use std::fmt::Debug;

use bytes::{Buf, Bytes};
use proptest::prelude::*;

use super::client::{FromClient, ToClient};
use super::rpc::{Failure, Request, ToScheduler, ToWorkerRpc};
use super::worker::{FromWorker, RegisterWorkerReply, ToWorker};
use super::*;
use crate::frame::{FrameDecoder, Limits, encode};
use crate::handshake::Handshake;
use crate::sample::{Sample, Source};
use crate::{Key, Value};

/// What decides a sample, now and then enough for a big one.
fn seeds() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..60),
        1 => prop::collection::vec(any::<u8>(), 0..3000),
    ]
}

/// Sends frames through a stream of bytes that arrive `step` at a time.
fn transfer(frames: &[Bytes], step: usize) -> Vec<Bytes> {
    let bytes = encode(frames).concat();
    let mut rest = &bytes[..];
    let mut decoder = FrameDecoder::new(Limits::default());
    loop {
        if let Some(message) = decoder.poll().unwrap() {
            assert!(rest.is_empty() && decoder.is_between_messages());
            return message;
        }
        let (space, limit) = decoder.space();
        let n = step.min(limit).min(rest.len());
        assert!(n > 0, "the decoder waits for bytes that were not sent");
        space.extend_from_slice(&rest[..n]);
        rest.advance(n);
    }
}

fn check_one<T: Sample + Decode + Encode + PartialEq + Debug>(seed: &[u8], step: usize) {
    let value = T::sample(&mut Source::new(seed));
    let frames = transfer(&encode_one(&value), step);
    assert_eq!(decode_one::<T>(&frames).unwrap(), value);
}

fn check_batch<T: Sample + Decode + Encode + PartialEq + Debug>(seed: &[u8], step: usize) {
    let batch: Vec<T> = Vec::sample(&mut Source::new(seed));
    let frames = transfer(&encode_batch(batch.iter()), step);
    assert_eq!(decode_batch::<T>(&frames).unwrap(), batch);
}

fn check_request<T: Sample + Operation + Encode + PartialEq + Debug>(seed: &[u8], step: usize) {
    let call = T::sample(&mut Source::new(seed));
    let frames = transfer(&encode_one(&call), step);
    assert_eq!(decode_one::<Request<T>>(&frames).unwrap().call, call);
}

/// Reads frames as everything that they could be.
fn read_as_all(frames: &[Bytes]) {
    let _ = decode_batch::<FromClient>(frames);
    let _ = decode_batch::<ToClient>(frames);
    let _ = decode_batch::<FromWorker>(frames);
    let _ = decode_batch::<ToWorker>(frames);
    let _ = decode_one::<Request<ToScheduler>>(frames);
    let _ = decode_one::<Request<ToWorkerRpc>>(frames);
    let _ = decode_one::<Handshake>(frames);
    if let Ok(value) = decode_one::<Value>(frames) {
        // What was read can be written, and is read the same. (NaN differs from itself, so bytes are compared.)
        let again = encode_one(&value);
        let value: Value = decode_one(&again).unwrap();
        assert_eq!(encode_one(&value), again);
    }
    if let Some(Ok(key)) = frames.first().map(|document| Key::parse_wire(document)) {
        assert_eq!(Key::parse_wire(key.wire()).unwrap(), key);
        let _ = (key.prefix(), key.group(), key.to_string(), key.as_tuple());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_value_comes_back_equal(seed in seeds(), step in 1_usize..100_000) {
        check_one::<Value>(&seed, step);
        check_one::<Key>(&seed, step);
    }

    #[test]
    fn any_batch_of_each_stream_comes_back_equal(seed in seeds(), step in 1_usize..100_000) {
        check_batch::<FromClient>(&seed, step);
        check_batch::<ToClient>(&seed, step);
        check_batch::<FromWorker>(&seed, step);
        check_batch::<ToWorker>(&seed, step);
    }

    #[test]
    fn any_request_and_answer_comes_back_equal(seed in seeds(), step in 1_usize..100_000) {
        check_request::<ToScheduler>(&seed, step);
        check_request::<ToWorkerRpc>(&seed, step);
        check_one::<RegisterWorkerReply>(&seed, step);
        check_one::<Failure>(&seed, step);
        check_one::<Handshake>(&seed, step);
    }

    #[test]
    fn any_two_equal_keys_have_one_hash_and_one_place(a in seeds(), b in seeds()) {
        use std::hash::BuildHasher;
        let state = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
        let a = Key::sample(&mut Source::new(&a));
        let b = Key::sample(&mut Source::new(&b));
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
        if a == b {
            prop_assert_eq!(state.hash_one(&a), state.hash_one(&b));
        }
    }

    #[test]
    fn random_bytes_never_panic(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4)) {
        let frames: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
        read_as_all(&frames);
    }

    #[test]
    fn damaged_messages_never_panic(
        seed in seeds(),
        kind in 0_usize..6,
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        cut in any::<usize>(),
    ) {
        let mut source = Source::new(&seed);
        let mut frames = match kind {
            0 => encode_one(&FromClient::sample(&mut source)),
            1 => encode_one(&ToClient::sample(&mut source)),
            2 => encode_one(&FromWorker::sample(&mut source)),
            3 => encode_one(&ToWorker::sample(&mut source)),
            4 => encode_one(&ToScheduler::sample(&mut source)),
            _ => encode_one(&ToWorkerRpc::sample(&mut source)),
        };
        let mut document = frames[0].to_vec();
        for (at, byte) in damage {
            let at = at % document.len();
            document[at] = byte;
        }
        if cut % 3 == 0 {
            document.truncate(cut % document.len());
        }
        frames[0] = document.into();
        read_as_all(&frames);
    }

    #[test]
    fn any_stream_of_bytes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), small in any::<bool>()) {
        // Small numbers in the places of the lengths, so that some messages are whole.
        let mut stream = bytes;
        if small {
            stream.iter_mut().enumerate().filter(|(i, _)| i % 8 != 0).for_each(|(_, byte)| *byte = 0);
        }
        let mut decoder = FrameDecoder::new(Limits { frames: 100, message_bytes: 1 << 20, ..Limits::default() });
        decoder.space().0.extend_from_slice(&stream);
        while let Ok(Some(_)) = decoder.poll() {}
    }
}

#[test]
fn errors_name_message_op_field_and_byte() {
    let batch = Value::array([
        Value::map([("op", "keep-alive")].map(|(k, v)| (k, Value::from(v)))),
        Value::map([
            ("op", Value::from("task-finished")),
            ("key", Value::from("x")),
            (
                "startstops",
                Value::array([Value::map([("action", Value::from(5_i64))])]),
            ),
        ]),
    ]);
    let error = decode_batch::<FromWorker>(&encode_one(&batch)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "task-finished, field startstops.action: expected str, found int, at byte 60 of frame 0, \
         in message 1 of the batch"
    );
    let error =
        decode_batch::<FromWorker>(&encode_one(&Value::map([("op", Value::from("add-keys"))])));
    assert_eq!(
        error.unwrap_err().to_string(),
        "add-keys: the field \"keys\" of Keys is missing, at byte 13 of frame 0"
    );
    let error = decode_batch::<FromWorker>(&encode_one(&Value::array(["x"]))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a message with \"op\", or \"OK\", found another value, at byte 1 of frame 0, \
         in message 0 of the batch"
    );
}

#[test]
fn a_batch_ends_at_a_bare_ok() {
    let keep_alive = || Value::map([("op", Value::from("keep-alive"))]);
    let batch = Value::array([keep_alive(), Value::from("OK"), keep_alive()]);
    let read = decode_batch::<FromWorker>(&encode_one(&batch)).unwrap();
    assert_eq!(read.len(), 1);
    assert!(
        decode_batch::<FromWorker>(&encode_one(&Value::from("OK")))
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        decode_batch::<FromWorker>(&encode_one(&keep_alive()))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn payloads_may_not_share_frames() {
    let payload = crate::Payload::pickled(b"N.", vec![Bytes::from_static(b"buffer")])
        .expect("a small pickle");
    let mut frames = encode_one(&Value::array([payload.clone(), payload]));
    // Both name the first payload's frames.
    let document: Vec<u8> = frames[0]
        .iter()
        .map(|byte| if *byte == 3 { 1 } else { *byte })
        .collect();
    frames[0] = document.into();
    let error = decode_one::<Value>(&frames).unwrap_err();
    assert_eq!(
        error.kind,
        DecodeErrorKind::FrameTaken { index: 1, taken: 2 }
    );
}

#[test]
fn markers_among_other_fields_are_refused() {
    for map in [
        Value::map([("__Serialized__", Value::from(1_i64)), ("data", Value::Nil)]),
        Value::map([("a", Value::Nil), ("__Pickled__", Value::from(1_i64))]),
        Value::map([("__Pickled__", Value::from(0_i64))]),
        Value::map([("__Serialized__", Value::Bool(true))]),
    ] {
        let error = decode_one::<Value>(&encode_one(&map)).unwrap_err();
        assert!(
            matches!(error.kind, DecodeErrorKind::BadMarker(_)),
            "{error}"
        );
    }
}

#[test]
fn announced_elements_must_fit_the_document() {
    // Arrays inside each other, each announcing as many elements as bytes are left.
    let mut document = Vec::new();
    for depth in 0..100_u32 {
        document.push(0xdd);
        document.extend_from_slice(&(1_000_000 - 5 * depth).to_be_bytes());
    }
    document.resize(1_000_505, 0xc0);
    let error = decode_one::<Value>(&[document.into()]).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::Truncated);
}
