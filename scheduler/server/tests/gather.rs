//! Large results through the real program: passed on unheld, whole even if a worker dies in the middle.

#![allow(clippy::unwrap_used)]

mod program;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::Value;
use oxidask_protocol::comm::{Comm, accept};
use oxidask_protocol::frame::{Limits, encode};
use oxidask_protocol::message::encode_one;
use oxidask_protocol::message::{decode_one, rpc};
use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::{Key, Payload};
use program::{FakeWorker, Scheduler, open};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(60);
const MB: usize = 1 << 20;

/// How a worker behaves when it is asked for data.
#[derive(Clone, Copy)]
enum Delivery {
    Whole,
    /// Its connection ends after so many bytes of the first answers, so many times.
    BreaksAfter(usize, usize),
}

/// Listens as a worker that holds `size` bytes under every key. Gives its address and how often it was asked.
async fn serve(size: usize, delivery: Delivery) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let comm = accept(stream, None, Limits::default(), SOON).await;
            tokio::spawn(answer(comm.unwrap(), size, delivery, Arc::clone(&count)));
        }
    });
    (address, asked)
}

async fn answer(mut comm: Comm, size: usize, delivery: Delivery, asked: Arc<AtomicUsize>) {
    while let Ok(Some(frames)) = comm.reader.read().await {
        let Ok(rpc::ToWorkerRpc::GetData(request)) = decode_one(&frames) else {
            // The word that data have come.
            continue;
        };
        let before = asked.fetch_add(1, Ordering::Relaxed);
        let message = data(&request.keys.keys, size);
        match delivery {
            Delivery::BreaksAfter(bytes, times) if before < times => {
                let mut whole: Vec<u8> = encode(&message).concat();
                whole.truncate(bytes);
                comm.writer.write_buffers(vec![whole.into()]).await.unwrap();
                return;
            }
            Delivery::BreaksAfter(..) | Delivery::Whole => {
                // The scheduler may have gone with its test.
                let _ = comm.writer.write(&message).await;
            }
        }
    }
}

/// The beginning of every value: no two neighbouring blocks are equal.
fn value() -> Bytes {
    static VALUE: OnceLock<Bytes> = OnceLock::new();
    let words = || {
        (0..(9_u64 << 20))
            .flat_map(u64::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    VALUE.get_or_init(|| words().into()).clone()
}

fn data(keys: &[Key], size: usize) -> Vec<Bytes> {
    let mut header = Writer::new();
    header.map(1);
    header.str("num-sub-frames");
    header.uint(1);
    let header = header.into_document();
    let value = value().slice(..size);
    let mut w = Writer::new();
    w.map(2);
    w.str("status");
    w.str("OK");
    w.str("data");
    w.map(keys.len());
    for key in keys {
        w.raw(key.wire());
        w.payload(&Payload::serialized(header.clone(), vec![value.clone()]));
    }
    w.into_frames()
}

/// A client's request; gives the lengths and sums of the values by key.
async fn gather(scheduler: &Scheduler, keys: &[&str]) -> Option<Vec<(String, usize)>> {
    let mut comm = open(&scheduler.address).await;
    let message = Value::map([
        ("op", Value::from("gather")),
        ("reply", true.into()),
        ("keys", Value::array(keys.iter().copied())),
    ]);
    comm.writer.write(&encode_one(&message)).await.unwrap();
    let frames = tokio::time::timeout(SOON, comm.reader.read()).await;
    let frames = frames.expect("an answer in time").ok()??;
    let answer: Value = decode_one(&frames).unwrap();
    assert_eq!(answer.field("status").and_then(Value::as_str), Some("OK"));
    let Some(Value::Map(data)) = answer.field("data") else {
        panic!("no data");
    };
    let lengths = data.iter().map(|(key, result)| {
        let Value::Payload(payload) = result else {
            panic!("{result:?}");
        };
        let bytes = payload.frames.as_slice().concat();
        assert!(value().starts_with(&bytes), "the bytes are in order");
        (key.as_str().unwrap().to_owned(), bytes.len())
    });
    Some(lengths.collect())
}

/// Peak of resident memory. Unit: bytes.
fn peak(scheduler: &Scheduler) -> usize {
    let pid = scheduler.process.id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_small_while_results_larger_than_it_are_gathered() {
    let scheduler = Scheduler::start(&[]).await;
    let before = peak(&scheduler);
    let mut workers = Vec::new();
    for number in 0..3 {
        let (address, _) = serve(70 * MB, Delivery::Whole).await;
        let worker = FakeWorker::join_at(&scheduler, &address, &format!("w{number}"), true).await;
        for key in [number * 2, number * 2 + 1] {
            worker.hold(&format!("k{key}"), 70 << 20, &scheduler).await;
        }
        workers.push(worker);
    }
    let keys = ["k0", "k1", "k2", "k3", "k4", "k5"];
    let got = gather(&scheduler, &keys).await.unwrap();
    assert_eq!(got.len(), 6);
    assert!(got.iter().all(|(_, length)| *length == 70 * MB));
    let growth = peak(&scheduler) - before;
    assert!(growth < 30 * MB, "{} MB for 420 MB", growth / MB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_in_the_middle_is_replaced_by_another_holder() {
    let scheduler = Scheduler::start(&[]).await;
    let (dying, asked_first) = serve(70 * MB, Delivery::BreaksAfter(80 * MB, 1)).await;
    let (other, asked_other) = serve(70 * MB, Delivery::Whole).await;
    let first = FakeWorker::join_at(&scheduler, &dying, "dying", true).await;
    for key in ["k0", "k1"] {
        first.hold(key, 70 << 20, &scheduler).await;
    }
    let running = gather(&scheduler, &["k0", "k1"]);
    let moved = async {
        // Once it has been asked, its data turn out to be elsewhere as well, and it goes.
        while asked_first.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let second = FakeWorker::join_at(&scheduler, &other, "other", true).await;
        for key in ["k0", "k1"] {
            second.hold(key, 70 << 20, &scheduler).await;
        }
        drop(first);
        second
    };
    let (got, _second) = tokio::join!(running, moved);
    let mut got = got.expect("the whole answer");
    got.sort();
    let all = [("k0".to_owned(), 70 * MB), ("k1".to_owned(), 70 * MB)];
    assert_eq!(got, all);
    assert!(asked_other.load(Ordering::Relaxed) > 0 || asked_first.load(Ordering::Relaxed) > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_comes_back_with_another_size_ends_the_connection() {
    let scheduler = Scheduler::start(&[]).await;
    let (dying, asked) = serve(70 * MB, Delivery::BreaksAfter(MB, usize::MAX)).await;
    let (other, _) = serve(71 * MB, Delivery::Whole).await;
    let first = FakeWorker::join_at(&scheduler, &dying, "dying", true).await;
    first.hold("k0", 70 << 20, &scheduler).await;
    let running = gather(&scheduler, &["k0"]);
    let moved = async {
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let second = FakeWorker::join_at(&scheduler, &other, "other", true).await;
        second.hold("k0", 70 << 20, &scheduler).await;
        drop(first);
        second
    };
    let (got, _second) = tokio::join!(running, moved);
    assert_eq!(got, None);
}
