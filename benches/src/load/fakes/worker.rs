//! Workers that answer each task at once. All listen on one port, each on a loopback address of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use oxidask_protocol::address::Address;
use oxidask_protocol::comm::{Comm, CommReader, CommWriter, accept};
use oxidask_protocol::frame::Limits;
use oxidask_protocol::message::rpc::{Request, ToWorkerRpc};
use oxidask_protocol::message::worker::{
    ComputeTask, FromWorker, KeyStimulus, Keys, StartStop, StealResponse, TaskFinished, ToWorker,
};
use oxidask_protocol::message::{decode_batch, decode_one, encode_batch};
use oxidask_protocol::wire::Omit;
use oxidask_protocol::{Key, Payload, Value};
use tokio::net::TcpListener;

use super::{PATIENCE, call, open};

/// Bytes of a result whose key begins with `large`.
pub(crate) const LARGE: usize = 50 << 20;

/// Time between two heartbeats of a worker.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Connections that the heartbeats of all workers share.
const BEATERS: usize = 8;

/// `pickle.dumps(type(None))`
const NONE_TYPE: &[u8] = b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x04type\x94\x93\x94N\x85\x94R\x94.";

/// All workers.
pub(crate) struct FakeWorkers {
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    freed: AtomicU64,
}

impl FakeWorkers {
    /// Registers so many workers of one thread each.
    pub(crate) async fn join(scheduler: &Address, count: usize, versions: &Value) -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").await?;
        let port = listener.local_addr()?.port();
        tokio::spawn(serve(listener));
        let workers = Self {
            counts: Arc::default(),
        };
        let mut addresses = Vec::with_capacity(count);
        for number in 0..count {
            let address = format!("tcp://127.1.{}.{}:{port}", number / 200, 1 + number % 200);
            let comm = register(scheduler, &address, number, versions).await?;
            tokio::spawn(work(comm.reader, comm.writer, Arc::clone(&workers.counts)));
            addresses.push(address);
        }
        for beater in 0..BEATERS {
            let mine = addresses.iter().skip(beater).step_by(BEATERS);
            let comm = open(scheduler).await?;
            tokio::spawn(beat(comm, mine.cloned().collect()));
        }
        Ok(workers)
    }

    /// Keys that the scheduler had freed.
    pub(crate) fn freed(&self) -> u64 {
        self.counts.freed.load(Ordering::Relaxed)
    }
}

async fn register(
    scheduler: &Address,
    address: &str,
    number: usize,
    versions: &Value,
) -> Result<Comm> {
    let mut comm = open(scheduler).await?;
    let message = Value::map([
        ("op", Value::from("register-worker")),
        ("reply", false.into()),
        ("address", address.into()),
        ("status", "running".into()),
        ("nthreads", 1_u64.into()),
        ("name", format!("fake-{number}").into()),
        ("now", now().into()),
        ("resources", Value::Map(Vec::new())),
        ("memory_limit", (4_u64 << 30).into()),
        ("local_directory", "/tmp".into()),
        ("services", Value::Map(Vec::new())),
        ("nanny", Value::Nil),
        ("pid", u64::from(std::process::id()).into()),
        ("versions", versions.clone()),
        ("metrics", metrics()),
        ("extra", Value::Map(Vec::new())),
        ("stimulus_id", format!("worker-connect-{number}").into()),
        ("server_id", format!("fake-worker-{number}").into()),
    ]);
    comm.writer.send(&message).await?;
    let reply = comm.reader.read().await?.context("a worker is refused")?;
    let reply: Value = decode_one(&reply)?;
    if reply.field("status").and_then(Value::as_str) != Some("OK") {
        bail!("a worker is refused: {reply:?}");
    }
    Ok(comm)
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// What an idle worker measures of itself.
fn metrics() -> Value {
    let zeros = |names: &[&str]| Value::map(names.iter().map(|name| (*name, Value::from(0_u64))));
    let none = || Value::Map(Vec::new());
    Value::map([
        ("task_counts", none()),
        (
            "bandwidth",
            Value::map([
                ("total", 1e8.into()),
                ("workers", none()),
                ("types", none()),
            ]),
        ),
        ("digests_total_since_heartbeat", none()),
        ("managed_bytes", 0_u64.into()),
        ("spilled_bytes", zeros(&["memory", "disk"])),
        (
            "transfer",
            zeros(&[
                "incoming_bytes",
                "incoming_count",
                "incoming_count_total",
                "outgoing_bytes",
                "outgoing_count",
                "outgoing_count_total",
            ]),
        ),
        ("event_loop_interval", 0.02.into()),
        ("cpu", 0.0.into()),
        ("memory", 10_000_000_u64.into()),
        ("time", now().into()),
        (
            "host_net_io",
            Value::map([("read_bps", 0.0.into()), ("write_bps", 0.0.into())]),
        ),
        ("num_fds", 10_u64.into()),
    ])
}

/// Signs of life of some workers, one after the other.
async fn beat(mut comm: Comm, addresses: Vec<String>) {
    let pause = HEARTBEAT / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    for address in addresses.iter().cycle() {
        let message = call(
            "heartbeat_worker",
            [
                ("address", address.as_str().into()),
                ("now", now().into()),
                ("executing", Value::Map(Vec::new())),
                ("extensions", Value::Map(Vec::new())),
                ("metrics", metrics()),
            ],
        );
        // The scheduler is gone: so is the load.
        if comm.request(&message).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// The stream of one worker.
async fn work(mut reader: CommReader, mut writer: CommWriter, counts: Arc<Counts>) {
    while let Ok(Some(frames)) = reader.read().await {
        let Ok(batch) = decode_batch::<ToWorker>(&frames) else {
            return;
        };
        let answers: Vec<FromWorker> = batch
            .into_iter()
            .filter_map(|message| answer(message, &counts))
            .collect();
        if !answers.is_empty() && writer.write(&encode_batch(answers.iter())).await.is_err() {
            return;
        }
    }
}

fn answer(message: ToWorker, counts: &Counts) -> Option<FromWorker> {
    match message {
        ToWorker::ComputeTask(task) => Some(FromWorker::TaskFinished(finished(task))),
        ToWorker::FreeKeys(Keys { keys, .. }) => {
            counts.freed.fetch_add(keys.len() as u64, Ordering::Relaxed);
            None
        }
        ToWorker::StealRequest(KeyStimulus { key, stimulus_id }) => {
            Some(FromWorker::StealResponse(StealResponse {
                key,
                state: None,
                stimulus_id,
            }))
        }
        ToWorker::AcquireReplicas(body) => Some(FromWorker::AddKeys(Keys {
            keys: body.who_has.0.into_iter().map(|(key, _)| key).collect(),
            stimulus_id: body.stimulus_id,
        })),
        _ => None,
    }
}

fn finished(task: ComputeTask) -> TaskFinished {
    let now = now();
    TaskFinished {
        nbytes: Some(size(&task.key) as u64),
        key: task.key,
        run_id: task.run_id,
        status: Omit(Some("OK".to_owned())),
        type_: Some(Bytes::from_static(NONE_TYPE)),
        typename: "NoneType".to_owned(),
        metadata: Value::Map(Vec::new()),
        thread: 1_u64.into(),
        startstops: Some(vec![StartStop {
            action: "compute".to_owned(),
            start: now,
            stop: now,
            source: Omit(None),
        }]),
        stimulus_id: task.stimulus_id,
    }
}

fn size(key: &Key) -> usize {
    let is_large = key.as_str().is_some_and(|text| text.starts_with("large"));
    if is_large { LARGE } else { 28 }
}

/// Gives results away.
async fn serve(listener: TcpListener) {
    let zeros = Bytes::from(vec![0; LARGE]);
    while let Ok((stream, _)) = listener.accept().await {
        let zeros = zeros.clone();
        tokio::spawn(async move {
            let Ok(mut comm) = accept(stream, None, Limits::default(), PATIENCE).await else {
                return;
            };
            while let Ok(Some(frames)) = comm.reader.read().await {
                // The scheduler's thanks for data are no request.
                let Ok(request) = decode_one::<Request<ToWorkerRpc>>(&frames) else {
                    continue;
                };
                let reply = match request.call {
                    ToWorkerRpc::GetData(body) => data(&body.keys.keys, &zeros),
                    _ => Value::from("OK"),
                };
                if comm.writer.send(&reply).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn data(keys: &[Key], zeros: &Bytes) -> Value {
    let value = |key: &Key| Value::Payload(Payload::of_bytes(zeros.slice(..size(key))));
    let data = keys.iter().map(|key| (Value::from(key), value(key)));
    Value::map([
        ("status", Value::from("OK")),
        ("data", Value::Map(data.collect())),
    ])
}
