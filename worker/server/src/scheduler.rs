//! The connection to the scheduler: registration, stream, heartbeats.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use oxidask_protocol::{
    Value,
    comm::{Comm, CommReader, CommWriter},
    message::{
        decode_one,
        worker::{FromWorker, HeartbeatWorker, RegisterWorker, StatusChange},
    },
    msgpack::Writer,
    wire::{Encode, Omit, Pairs},
};
use tokio::sync::oneshot;

use crate::{
    clock::unix,
    input::{Input, Inputs, Query, Request},
    outbox::{Backlog, Outbox, Outgoing, outbox},
    settings::Settings,
    stream,
    transfer::{Peers, chain},
};

/// How often the stream says that it lives. Source: distributed `Worker` "keep-alive".
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How long the scheduler may take to move what only this worker has.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(60);

/// What the scheduler said to the registration.
pub(crate) struct Registered {
    pub(crate) comm: Comm,
    pub(crate) heartbeat_interval: Duration,
    /// Pickled plugins by name.
    pub(crate) plugins: Vec<(String, Bytes)>,
}

/// Encodes a request: a map with `op` first.
pub(crate) fn request(op: &str, fields: &impl Encode) -> Vec<Bytes> {
    let mut w = Writer::new();
    fields.encode(&mut w);
    let mut frames = w.into_frames();
    frames[0] = with_op(op, &frames[0]);
    frames
}

/// Puts `op` into an encoded map.
fn with_op(op: &str, map: &Bytes) -> Bytes {
    let mut reader = oxidask_protocol::msgpack::Reader::new(map, &[]);
    let count = reader.map().unwrap_or_default();
    let rest = map.slice(reader.position()..);
    let mut w = Writer::new();
    w.map(count + 1);
    w.str("op");
    w.str(op);
    w.raw(&rest);
    w.into_document()
}

/// What the scheduler is told first.
pub(crate) fn registration(
    settings: &Settings,
    address: &str,
    versions: &Value,
    services: &Value,
) -> RegisterWorker {
    let zero = || Value::Int(0);
    let metrics = Value::map([
        (
            "bandwidth",
            Value::map([
                ("total", Value::Float(1e8)),
                ("workers", Value::Map(Vec::new())),
                ("types", Value::Map(Vec::new())),
            ]),
        ),
        ("digests_total_since_heartbeat", Value::Map(Vec::new())),
        ("memory", zero()),
        ("managed_bytes", zero()),
        (
            "spilled_bytes",
            Value::map([("memory", zero()), ("disk", zero())]),
        ),
        ("cpu", Value::Float(0.0)),
        (
            "host_net_io",
            Value::map([
                ("read_bps", Value::Float(0.0)),
                ("write_bps", Value::Float(0.0)),
            ]),
        ),
        ("task_counts", Value::Map(Vec::new())),
    ]);
    RegisterWorker {
        reply: false,
        address: address.to_owned(),
        status: "init".to_owned(),
        nthreads: settings.nthreads as u64,
        name: settings.name_or(address),
        now: unix(),
        resources: Pairs(
            settings
                .resources
                .iter()
                .map(|(name, amount)| (name.to_string(), *amount))
                .collect(),
        ),
        memory_limit: settings.memory_limit,
        local_directory: Omit(Some(
            settings.local_directory.to_string_lossy().into_owned(),
        )),
        services: services.clone(),
        nanny: settings.nanny.then(|| address.to_owned()),
        pid: Value::Int(std::process::id().into()),
        versions: versions.clone(),
        metrics,
        extra: Value::Map(Vec::new()),
        stimulus_id: format!("worker-connect-{}", unix()),
        server_id: Omit(Some(settings.server_id.clone())),
    }
}

/// The first message of the stream.
pub(crate) fn running() -> Vec<Bytes> {
    let status = StatusChange {
        status: "running".to_owned(),
        stimulus_id: format!("worker-running-{}", unix()),
    };
    let mut w = Writer::new();
    w.array(1);
    FromWorker::StatusChange(status).encode(&mut w);
    w.into_frames()
}

/// Tell the scheduler that this worker is its own nanny. Gives the pickled nanny plugins by name, and the
/// connection on which it waits to hear that the worker is up.
///
/// # Errors
/// If the scheduler cannot be reached or answers nonsense.
pub(crate) async fn register_nanny(
    peers: &Peers,
    scheduler: &str,
    address: &str,
) -> Result<(Comm, Vec<(String, Bytes)>)> {
    let mut comm = peers.open(scheduler).await?;
    let message = Value::map([
        ("op", Value::Str("register_nanny".into())),
        ("address", Value::Str(address.to_owned())),
    ]);
    let reply: Value = decode_one(&comm.request(&message).await?)?;
    let plugins = reply
        .field("nanny-plugins")
        .and_then(Value::as_map)
        .unwrap_or_default();
    let plugins = plugins.iter().filter_map(|(name, plugin)| match plugin {
        Value::Bin(bytes) => Some((name.as_str()?.to_owned(), bytes.clone())),
        _ => None,
    });
    let plugins = plugins.collect();
    Ok((comm, plugins))
}

/// Ask the scheduler to move what only this worker has. Returns when that is done or cannot be.
pub(crate) async fn retire(peers: &Peers, scheduler: &str, address: &str) {
    let request = Value::map([
        ("op", Value::Str("retire_workers".into())),
        (
            "workers",
            Value::Array(vec![Value::Str(address.to_owned())]),
        ),
        ("close_workers", Value::Bool(false)),
        ("remove", Value::Bool(true)),
        (
            "stimulus_id",
            Value::Str(format!("worker-close-gracefully-{}", unix())),
        ),
    ]);
    match peers.open(scheduler).await {
        Ok(mut comm) => match tokio::time::timeout(RETIRE_TIMEOUT, comm.request(&request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the scheduler did not retire this worker"),
            Err(_) => tracing::warn!("the scheduler did not retire this worker in time"),
        },
        Err(error) => tracing::warn!(%error, "the scheduler cannot be asked to retire this worker"),
    }
}

/// Register, waiting for a scheduler that is not there yet.
///
/// # Errors
/// If the scheduler refuses, or does not answer before `deadline`.
pub(crate) async fn register(
    peers: &Peers,
    scheduler: &str,
    message: impl Fn() -> RegisterWorker,
    deadline: Option<tokio::time::Instant>,
) -> Result<Registered> {
    let mut pause = Duration::from_millis(10);
    let mut comm = loop {
        match peers.open(scheduler).await {
            Ok(comm) => break comm,
            Err(error) => {
                if deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline) {
                    bail!(
                        "failed to reach scheduler {scheduler} in time: {}",
                        chain(&error)
                    );
                }
                tracing::debug!(error = %chain(&error), "waiting for the scheduler");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    };
    comm.writer
        .write(&request("register-worker", &message()))
        .await?;
    let frames = comm
        .reader
        .read()
        .await?
        .context("the scheduler closed the connection at registration")?;
    let reply: Value =
        decode_one(&frames).context("the scheduler's answer to the registration is malformed")?;
    let text = |name: &str| {
        reply
            .field(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if text("status") != "OK" {
        let why = [text("message"), text("exception_text"), text("exception")];
        let why = why
            .into_iter()
            .find(|why| !why.is_empty())
            .unwrap_or_else(|| format!("{reply:?}"));
        bail!("scheduler {scheduler} refuses this worker: {why}");
    }
    for text in [text("warning"), text("error")] {
        if !text.is_empty() {
            tracing::warn!("{text}");
        }
    }
    let interval = reply
        .field("heartbeat-interval")
        .and_then(Value::as_f64)
        .unwrap_or(1.0);
    let plugins = reply
        .field("worker-plugins")
        .and_then(Value::as_map)
        .unwrap_or_default();
    let plugins = plugins.iter().filter_map(|(name, plugin)| match plugin {
        Value::Bin(bytes) => Some((name.as_str()?.to_owned(), bytes.clone())),
        _ => None,
    });
    let plugins = plugins.collect();
    Ok(Registered {
        comm,
        heartbeat_interval: seconds(interval),
        plugins,
    })
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value)
        .unwrap_or(Duration::from_secs(1))
        .max(Duration::from_millis(10))
}

/// Serve the stream in both directions. What is put into the outbox goes to the scheduler.
pub(crate) fn stream(comm: Comm, inputs: Inputs) -> Outbox {
    let (outbox, outgoing) = outbox();
    tokio::spawn(read(comm.reader, outbox.backlog().clone(), inputs.clone()));
    tokio::spawn(write(comm.writer, outgoing, inputs));
    outbox
}

async fn read(mut reader: CommReader, backlog: Backlog, inputs: Inputs) {
    let why = loop {
        // Who does not hear our answers asks no more.
        backlog.short().await;
        match reader.read().await {
            Ok(Some(frames)) => match stream::decode(&frames) {
                Ok(batch) => inputs.send(Input::Scheduler(batch)).await,
                Err(error) => break format!("the scheduler sent a malformed message: {error}"),
            },
            Ok(None) => break "the scheduler closed the connection".to_owned(),
            Err(error) => break chain(&error),
        }
    };
    inputs.send(Input::SchedulerLost(why)).await;
}

async fn write(mut writer: CommWriter, mut outgoing: Outgoing, inputs: Inputs) {
    let mut alive = tokio::time::interval(KEEP_ALIVE);
    alive.tick().await;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            more = outgoing.next(&mut batch) => {
                if !more {
                    let _ = writer.shutdown().await;
                    return;
                }
                let buffers = batch.drain(..).flat_map(|frames| oxidask_protocol::frame::encode(&frames)).collect();
                if let Err(error) = writer.write_buffers(buffers).await {
                    inputs.send(Input::SchedulerLost(chain(&error))).await;
                    return;
                }
            }
            _ = alive.tick() => {
                let keep_alive = Value::Array(vec![Value::map([("op", Value::Str("keep-alive".into()))])]);
                let _ = writer.send(&keep_alive).await;
            }
        }
    }
}

/// Send heartbeats until the scheduler does not know this worker any more.
pub(crate) async fn heartbeats(
    peers: Peers,
    scheduler: String,
    address: String,
    mut interval: Duration,
    inputs: Inputs,
) {
    let mut connection: Option<Comm> = None;
    loop {
        tokio::time::sleep(interval).await;
        let (Some(metrics), Some(executing), Some(extensions)) = (
            ask(&inputs, Query::Metrics { take: true }).await,
            ask(&inputs, Query::Executing).await,
            ask(&inputs, Query::Extensions).await,
        ) else {
            return;
        };
        let executing = executing.as_map().unwrap_or_default().iter();
        let executing = executing.filter_map(|(key, value)| Some((key.to_key()?, value.as_f64()?)));
        let message = HeartbeatWorker {
            address: address.clone(),
            now: unix(),
            metrics,
            executing: Pairs(executing.collect()),
            extensions,
        };
        let comm = match connection.take() {
            Some(comm) => Ok(comm),
            None => peers.open(&scheduler).await,
        };
        let Ok(mut comm) = comm else { continue };
        match beat(&mut comm, &message).await {
            Ok(reply) => {
                connection = Some(comm);
                if reply.field("status").and_then(Value::as_str) == Some("missing") {
                    let reason = "the scheduler does not know this worker any more".to_owned();
                    let stop = Input::Stop {
                        graceful: false,
                        reason,
                    };
                    inputs.send(stop).await;
                    return;
                }
                if let Some(next) = reply.field("heartbeat-interval").and_then(Value::as_f64) {
                    interval = seconds(next);
                }
            }
            Err(error) => tracing::debug!(error = %format!("{error:#}"), "heartbeat failed"),
        }
    }
}

async fn beat(comm: &mut Comm, message: &HeartbeatWorker) -> Result<Value> {
    comm.writer
        .write(&request("heartbeat_worker", message))
        .await?;
    let answer = tokio::time::timeout(Duration::from_secs(30), comm.reader.read()).await??;
    Ok(decode_one(
        &answer.context("the scheduler closed the connection")?,
    )?)
}

/// Ask the driver; none if it has ended.
pub(crate) async fn ask(inputs: &Inputs, query: Query) -> Option<Value> {
    let (reply, answer) = oneshot::channel();
    inputs
        .send(Input::Request(Request::Query { query, reply }))
        .await;
    answer.await.ok()
}
