//! Nanoseconds per message of the messages that every task costs, and bytes per second of payloads.
//!
//! `cargo bench -p oxidask-protocol --bench codec`. The time shown for a message is its share of a batch of 100,
//! from frames to typed message and back, as the two ends of a stream do it. Time is that of the processor, which
//! holds on a busy machine.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oxidask_protocol::compression::decompress;
use oxidask_protocol::frame::{FrameDecoder, Limits, encode};
use oxidask_protocol::message::client::{ClientKeys, FromClient, KeyInMemory, ToClient};
use oxidask_protocol::message::worker::{
    ComputeTask, FromWorker, Keys, PriorityPart, StartStop, TaskFinished, ToWorker,
};
use oxidask_protocol::message::{decode_batch, encode_batch, encode_one};
use oxidask_protocol::wire::{Decode, Encode, KeySet, Omit, Pairs};
use oxidask_protocol::{Key, Payload, Value};
use rustix::time::{ClockId, clock_gettime};

const BATCH: usize = 100;

fn key(i: usize) -> Key {
    Key::from(format!(
        "inc-{:032x}",
        0x9e37_79b9_7f4a_7c15_u128 * (1 + i as u128)
    ))
}

fn block(i: usize) -> Key {
    Key::tuple([
        Key::from("sum-aggregate-0e7b07bafbd72f1b2dd9"),
        Key::from(i as i64),
        Key::from(7),
    ])
}

fn compute_task(i: usize) -> ToWorker {
    let dependency = block(i);
    ToWorker::ComputeTask(ComputeTask {
        key: key(i),
        run_id: 1000 + i as i64,
        priority: (PriorityPart(0.0), PriorityPart(1.0), PriorityPart(i as f64)),
        stimulus_id: "update-graph-1795473590.1234567".to_owned(),
        who_has: Pairs(vec![(
            dependency.clone(),
            vec!["tcp://127.0.0.1:41231".to_owned()],
        )]),
        nbytes: Pairs(vec![(dependency, 80_000)]),
        run_spec: Payload::pickled(&[7; 400], Vec::new()).expect("a small pickle"),
        resource_restrictions: None,
        actor: false,
        annotations: Value::Map(Vec::new()),
        span_id: Some("7f9ab0a8-4bd3-4be4-9b5f-6a8b6a4d1f3c".to_owned()),
        duration: Omit(None),
    })
}

fn task_finished(i: usize) -> FromWorker {
    FromWorker::TaskFinished(TaskFinished {
        key: key(i),
        run_id: 1000 + i as i64,
        status: Omit(Some("OK".to_owned())),
        nbytes: Some(28),
        type_: Some(Bytes::from_static(
            b"\x80\x05\x95\x14\0\0\0\0\0\0\0\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.",
        )),
        typename: "int".to_owned(),
        metadata: Value::Map(Vec::new()),
        thread: Value::from(139_637_976_727_232_u64),
        startstops: Some(vec![StartStop {
            action: "compute".to_owned(),
            start: 1_795_473_590.25,
            stop: 1_795_473_590.75,
            source: Omit(None),
        }]),
        stimulus_id: "task-finished-1795473590.1234567".to_owned(),
    })
}

fn free_keys(i: usize) -> ToWorker {
    ToWorker::FreeKeys(Keys {
        keys: vec![key(i)],
        stimulus_id: "task-finished-1795473590.1234567".to_owned(),
    })
}

fn client_releases_keys(i: usize) -> FromClient {
    FromClient::ClientReleasesKeys(ClientKeys {
        keys: KeySet {
            keys: vec![key(i)],
            is_set: false,
        },
        client: Omit(Some(
            "Client-0f9ab0a8-4bd3-11f1-9b5f-6a8b6a4d1f3c".to_owned(),
        )),
    })
}

fn key_in_memory(i: usize) -> ToClient {
    ToClient::KeyInMemory(KeyInMemory {
        key: key(i),
        type_: Omit(Some(Bytes::from_static(
            b"\x80\x05\x95\x14\0\0\0\0\0\0\0\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.",
        ))),
        workers: Omit(None),
    })
}

fn add_keys(i: usize) -> FromWorker {
    FromWorker::AddKeys(Keys {
        keys: vec![block(i)],
        stimulus_id: "task-finished-1795473590.1234567".to_owned(),
    })
}

/// Time that this thread spent on doing `work` `n` times.
fn cpu_time(n: u64, mut work: impl FnMut()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
    };
    let start = now();
    for _ in 0..n {
        work();
    }
    now() - start
}

fn message<T: Encode + Decode>(c: &mut Criterion, name: &str, make: fn(usize) -> T) {
    let batch: Vec<T> = (0..BATCH).map(make).collect();
    let frames = encode_batch(batch.iter());
    c.bench_function(&format!("{name}/encode"), |b| {
        b.iter_custom(|n| {
            cpu_time(n, || {
                black_box(encode_batch(black_box(&batch).iter()));
            }) / BATCH as u32
        });
    });
    c.bench_function(&format!("{name}/decode"), |b| {
        b.iter_custom(|n| {
            cpu_time(n, || {
                black_box(decode_batch::<T>(black_box(&frames))).expect("what we encoded decodes");
            }) / BATCH as u32
        });
    });
}

fn messages(c: &mut Criterion) {
    message(c, "compute-task", compute_task);
    message(c, "task-finished", task_finished);
    message(c, "free-keys", free_keys);
    message(c, "client-releases-keys", client_releases_keys);
    message(c, "key-in-memory", key_in_memory);
    message(c, "add-keys", add_keys);
}

fn payloads(c: &mut Criterion) {
    for (name, size) in [("1 KiB", 1 << 10), ("1 MiB", 1 << 20), ("64 MiB", 64 << 20)] {
        let payload = Payload::serialized(
            Bytes::from_static(b"\x81\xaenum-sub-frames\x01"),
            vec![Bytes::from(vec![7; size])],
        );
        let wire = encode(&encode_one(&payload)).concat();
        let mut group = c.benchmark_group("payload");
        group
            .throughput(Throughput::Bytes(size as u64))
            .sample_size(20);
        group.bench_function(format!("{name}/encode"), |b| {
            b.iter_custom(|n| {
                cpu_time(n, || {
                    black_box(encode(&encode_one(black_box(&payload))));
                })
            });
        });
        group.bench_function(format!("{name}/read"), |b| {
            b.iter_custom(|n| {
                cpu_time(n, || {
                    black_box(read(black_box(&wire)));
                })
            });
        });
    }
    let text = b"dask ".repeat(200_000);
    let compressed = lz4_flex::block::compress_prepend_size(&text);
    let mut group = c.benchmark_group("decompress");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("lz4", |b| {
        b.iter_custom(|n| {
            cpu_time(n, || {
                let opened = decompress("lz4", black_box(&compressed), 1 << 30);
                black_box(opened).expect("what we compressed opens");
            })
        });
    });
}

/// Reads a message as from a socket that gives 256 KiB at a time.
fn read(mut wire: &[u8]) -> Vec<Bytes> {
    let mut decoder = FrameDecoder::new(Limits::default());
    loop {
        if let Some(frames) = decoder.poll().expect("what we encoded decodes") {
            return frames;
        }
        let (space, limit) = decoder.space();
        let n = (space.capacity() - space.len())
            .min(limit)
            .min(wire.len())
            .min(256 << 10);
        space.extend_from_slice(&wire[..n]);
        wire = &wire[n..];
    }
}

criterion_group!(benches, messages, payloads);
criterion_main!(benches);
