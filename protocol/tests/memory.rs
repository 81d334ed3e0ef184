//! What reading may allocate, on the documents that cost most: `docs/protocol.md` §6 states the multiple.
//!
//! One test, since the allocator counts for the whole process.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use oxidask_protocol::message::client::{FromClient, ToClient};
use oxidask_protocol::message::rpc::{Request, ToScheduler};
use oxidask_protocol::message::worker::{FromWorker, ToWorker};
use oxidask_protocol::message::{decode_batch, decode_one};
use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::{Key, Value};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes allocated at one time per byte of the message.
const PER_BYTE: usize = 128;

/// Bytes allocated for any message.
const FIXED: usize = 4096;

/// Elements in the arrays below.
const MANY: usize = 50_000;

/// An array of `MANY` times the same encoded value.
fn array_of(encoded: &[u8]) -> Bytes {
    let mut w = Writer::new();
    w.array(MANY);
    (0..MANY).for_each(|_| w.raw(encoded));
    w.into_document()
}

/// `{"op": op, field: value}`.
fn message(op: &str, field: &str, value: &[u8]) -> Bytes {
    let mut w = Writer::new();
    w.map(2);
    w.str("op");
    w.str(op);
    w.str(field);
    w.raw(value);
    w.into_document()
}

/// A map of `MANY` times the same pair.
fn map_of(pair: &[u8]) -> Bytes {
    let mut w = Writer::new();
    w.map(MANY);
    (0..MANY).for_each(|_| w.raw(pair));
    w.into_document()
}

fn documents() -> Vec<(&'static str, Bytes)> {
    // Arrays inside each other, each announcing that all the rest belongs to it.
    let mut announced = Vec::new();
    for _ in 0..120_usize {
        announced.push(0xdd);
        announced.extend_from_slice(&(MANY as u32 - 1000).to_be_bytes());
    }
    announced.resize(MANY, 0xc0);
    vec![
        ("nil", array_of(b"\xc0")),
        ("one-element arrays", array_of(b"\x91\xc0")),
        ("one-pair maps", array_of(b"\x81\xc0\xc0")),
        ("empty strings", array_of(b"\xa0")),
        ("short strings", array_of(b"\xa1x")),
        ("short bytes", array_of(b"\xc4\x01x")),
        ("pairs of nil", map_of(b"\xc0\xc0")),
        ("announced arrays", announced.into()),
        ("ops without a name", array_of(b"\x81\xa2op\xa0")),
        ("ops of one field", array_of(b"\x81\xa2op\xaakeep-alive")),
        ("no messages", array_of(b"\x80")),
        ("int keys", message("free-keys", "keys", &array_of(b"\x01"))),
        (
            "empty tuples",
            message("add-keys", "keys", &array_of(b"\x90")),
        ),
        (
            "float keys",
            message("client-releases-keys", "keys", &array_of(b"\xca\0\0\0\0")),
        ),
        (
            "who_has",
            message("acquire-replicas", "who_has", &map_of(b"\x01\x90")),
        ),
        (
            "who_has of empty addresses",
            message("update_data", "who_has", &map_of(b"\x01\x91\xa0")),
        ),
        (
            "startstops",
            message("task-finished", "startstops", &array_of(b"\x80")),
        ),
        (
            "names of workers",
            message("has_what", "workers", &array_of(b"\xc0")),
        ),
    ]
}

fn within<T>(limit: usize, what: &str, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    let peak = ALLOCATOR.peak_usage() - before;
    assert!(
        peak <= limit,
        "{what}: {peak} bytes allocated, allowed are {limit}"
    );
    result
}

#[test]
fn reading_allocates_in_proportion_to_the_message() {
    for (name, document) in documents() {
        let limit = document.len() * PER_BYTE + FIXED;
        let frames = [document.clone()];
        let _ = within(limit, name, || decode_one::<Value>(&frames));
        let _ = within(limit, name, || decode_batch::<FromClient>(&frames));
        let _ = within(limit, name, || decode_batch::<ToClient>(&frames));
        let _ = within(limit, name, || decode_batch::<FromWorker>(&frames));
        let _ = within(limit, name, || decode_batch::<ToWorker>(&frames));
        let _ = within(limit, name, || decode_one::<Request<ToScheduler>>(&frames));
        let _ = within(limit, name, || Key::parse_wire(&document));
    }

    // Every marker names the same payload of many sub-frames.
    let mut header = Writer::new();
    header.map(1);
    header.str("num-sub-frames");
    header.uint(MANY as u64);
    let mut frames = vec![
        array_of(b"\x81\xae__Serialized__\x01"),
        header.into_document(),
    ];
    frames.resize(2 + MANY, Bytes::new());
    let size: usize = frames.iter().map(|frame| 8 + frame.len()).sum();
    within(size * PER_BYTE + FIXED, "one payload named often", || {
        decode_one::<Value>(&frames).unwrap_err()
    });

    // A key of many parts is named, shown and taken apart.
    let key = within(MANY * PER_BYTE, "a long key", || {
        Key::parse_wire(&array_of(b"\x01")).unwrap()
    });
    within(FIXED, "its prefix", || key.prefix().len());
    within(MANY * PER_BYTE, "its parts", || {
        key.as_tuple().unwrap().len()
    });
}
