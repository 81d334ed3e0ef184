//! Messages recorded between stock processes of distributed 2026.8.0 decode, and encode back to equal messages.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::Bytes;
use oxidask_protocol::frame::{FrameDecoder, Limits, encode};
use oxidask_protocol::message::client::{FromClient, ToClient};
use oxidask_protocol::message::rpc::{Request, ToScheduler, ToWorkerRpc};
use oxidask_protocol::message::worker::{FromWorker, RegisterWorkerReply, ToWorker};
use oxidask_protocol::message::{decode_batch, decode_one, encode_batch, encode_one};
use oxidask_protocol::wire::{Decode, Encode, Seconds};
use oxidask_protocol::{DecodeError, Value};

struct Recorded {
    place: String,
    link: String,
    opener_sent: bool,
    frames: Vec<Bytes>,
    wire: Vec<u8>,
}

/// Every recorded message whose bytes are in the files (those up to 4 KiB).
fn recorded() -> Vec<Recorded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut out = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "jsonl"))
    {
        for (i, line) in std::fs::read_to_string(file).unwrap().lines().enumerate() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(hex) = record.get("hex").and_then(|hex| hex.as_str()) else {
                continue;
            };
            let wire: Vec<u8> = (0..hex.len() / 2)
                .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
                .collect();
            let mut decoder = FrameDecoder::new(Limits::default());
            decoder.space().0.extend_from_slice(&wire);
            let frames = decoder
                .poll()
                .unwrap()
                .expect("a recorded message is whole");
            assert!(decoder.is_between_messages());
            out.push(Recorded {
                place: format!("{}:{}", file.file_name().unwrap().to_string_lossy(), i + 1),
                link: record["link"].as_str().unwrap().to_owned(),
                opener_sent: record["dir"] == ">",
                frames,
                wire,
            });
        }
    }
    assert!(out.len() > 400, "only {} recorded messages", out.len());
    out
}

/// Maps in one order and whole floats as ints, so that messages that Python would read as equal compare equal.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Float(x) if x.fract() == 0.0 => Value::Int(*x as i128),
        Value::Map(pairs) => {
            let mut pairs: Vec<_> = pairs
                .iter()
                .map(|(k, v)| {
                    (
                        sorted(k),
                        if DURATIONS.contains(&k.as_str().unwrap_or_default()) {
                            seconds(v)
                        } else {
                            sorted(v)
                        },
                    )
                })
                .collect();
            pairs.sort_by_key(|(k, _)| format!("{k:?}"));
            Value::Map(pairs)
        }
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        Value::Set(values) => Value::Set(values.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Fields in which a peer may write `"30 s"` for 30.
const DURATIONS: [&str; 4] = ["timeout", "fifo_timeout", "target_duration", "interval"];

fn seconds(value: &Value) -> Value {
    sorted(
        &value
            .as_str()
            .and_then(Seconds::parse)
            .map_or_else(|| value.clone(), Value::Float),
    )
}

#[test]
fn any_recorded_document_encodes_back_to_the_same_bytes() {
    for message in recorded() {
        let value: Value = decode_one(&message.frames)
            .unwrap_or_else(|error| panic!("{}: {error}", message.place));
        let again = encode_one(&value);
        assert_eq!(again[0], message.frames[0], "{}", message.place);
        assert_eq!(again, message.frames, "{}", message.place);
        let mut bytes = encode(&again).concat();
        // The sender may choose where the first part ends; ours ends with the message.
        bytes[..8].copy_from_slice(&message.wire[..8]);
        assert_eq!(bytes, message.wire, "{}", message.place);
    }
}

/// Decodes as `T`, encodes, and compares what a peer would read. Absent fields may come back as nil and reverse.
fn check_batch<T: Decode + Encode>(message: &Recorded) {
    let batch: Vec<T> =
        decode_batch(&message.frames).unwrap_or_else(|error| panic!("{}: {error}", message.place));
    compare(message, &encode_batch(batch.iter()));
}

fn compare(message: &Recorded, again: &[Bytes]) {
    let before: Value = decode_one(&message.frames).unwrap();
    let after: Value = decode_one(again).unwrap();
    let before = match before {
        map @ Value::Map(_) => Value::Array(vec![map]),
        array => array,
    };
    let after = match after {
        map @ Value::Map(_) => Value::Array(vec![map]),
        array => array,
    };
    assert_eq!(
        without_nil(&sorted(&before)),
        without_nil(&sorted(&after)),
        "{}",
        message.place
    );
}

fn without_nil(value: &Value) -> Value {
    match value {
        Value::Map(pairs) => Value::Map(
            pairs
                .iter()
                .filter(|(_, v)| *v != Value::Nil)
                .map(|(k, v)| (k.clone(), without_nil(v)))
                .collect(),
        ),
        Value::Array(values) => Value::Array(values.iter().map(without_nil).collect()),
        other => other.clone(),
    }
}

fn is_batch(message: &Recorded) -> bool {
    matches!(decode_one::<Value>(&message.frames), Ok(Value::Array(ref items)) if !items.is_empty()
        && items.iter().all(|item| item.field("op").is_some()))
}

#[test]
fn recorded_stream_messages_keep_every_field_through_their_types() {
    let mut seen = 0;
    for message in recorded().iter().filter(|message| is_batch(message)) {
        match (message.link.as_str(), message.opener_sent) {
            ("c-s", true) => check_batch::<FromClient>(message),
            ("c-s", false) => check_batch::<ToClient>(message),
            ("w-s", true) => check_batch::<FromWorker>(message),
            ("w-s", false) => check_batch::<ToWorker>(message),
            _ => continue,
        }
        seen += 1;
    }
    assert!(seen > 150, "only {seen} batches");
}

#[test]
fn recorded_requests_keep_every_field_through_their_types() {
    let mut seen = 0;
    for message in recorded()
        .iter()
        .filter(|message| message.opener_sent && !is_batch(message))
    {
        let document: Value = decode_one(&message.frames).unwrap();
        if document.field("op").is_none()
            || document
                .field("status")
                .is_some_and(|s| s.as_str() == Some("ok"))
        {
            continue;
        }
        if message.link.starts_with("to-w") {
            let request: Request<ToWorkerRpc> =
                decode_one(&message.frames).unwrap_or_else(|e| fail(message, &e));
            compare_request(message, &request.call);
        } else {
            let request: Request<ToScheduler> =
                decode_one(&message.frames).unwrap_or_else(|e| fail(message, &e));
            if !matches!(request.call, ToScheduler::Unknown(_)) {
                compare_request(message, &request.call);
            }
        }
        seen += 1;
    }
    assert!(seen > 60, "only {seen} requests");
}

fn fail(message: &Recorded, error: &DecodeError) -> ! {
    panic!("{}: {error}", message.place)
}

/// Compares without the fields of the envelope, and without those that the request takes from its defaults.
fn compare_request(message: &Recorded, call: &impl Encode) {
    let before: Value = decode_one(&message.frames).unwrap();
    let after: Value = decode_one(&encode_one(call)).unwrap();
    for (name, value) in before.as_map().unwrap() {
        let name = name.as_str().unwrap();
        if ["reply", "close", "serializers"].contains(&name)
            || name == "badarg"
            || *value == Value::Nil
        {
            continue;
        }
        let again = after
            .field(name)
            .unwrap_or_else(|| panic!("{}: {name} is lost", message.place));
        assert_eq!(seconds(value), seconds(again), "{}: {name}", message.place);
    }
}

#[test]
fn the_recorded_answer_to_a_worker_decodes() {
    let replies = recorded()
        .iter()
        .filter(|message| message.link == "w-s" && !message.opener_sent)
        .filter_map(|message| decode_one::<RegisterWorkerReply>(&message.frames).ok())
        .count();
    assert!(replies >= 2);
}
