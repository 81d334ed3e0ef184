//! What peers, clients and the scheduler ask over connections of their own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use oxidask_protocol::{
    DecodeError, Key, Payload, Value,
    comm::{Comm, Tls, accept},
    frame::Limits,
    message::peek_op,
    msgpack::{Reader, Writer},
    wire::{Decode, Encode, Pairs},
};
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    families,
    input::{CurrentInputs, GetDataReply, Input, Query, Request},
    scheduler::ask,
    shared::{self, Proof, Shared},
    transfer::{Peers, TransferOutcome, chain},
};

/// How long a peer may take to say hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a connection needs to answer.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) inputs: CurrentInputs,
    pub(crate) peers: Peers,
    pub(crate) versions: Arc<std::sync::OnceLock<Value>>,
    pub(crate) address: Arc<str>,
    /// For workers on this host that want to share memory.
    pub(crate) proof: Option<Arc<Proof>>,
}

/// Accept connections for ever.
pub(crate) async fn listen(listener: TcpListener, tls: Option<Tls>, context: Context) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (tls, context) = (tls.clone(), context.clone());
                tokio::spawn(async move {
                    match accept(stream, tls.as_ref(), Limits::default(), HANDSHAKE_TIMEOUT).await {
                        Ok(comm) => {
                            let peer = comm.reader.peer().to_owned();
                            if let Err(text) = serve(comm, context).await {
                                tracing::warn!(%peer, "connection closed: {text}");
                            }
                        }
                        Err(error) => {
                            tracing::debug!(error = %chain(&error), "no connection came about")
                        }
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: those that end soon free some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A request's own fields of control.
struct Envelope {
    op: String,
    reply: bool,
    close: bool,
}

fn envelope(frames: &[Bytes]) -> Result<Envelope, DecodeError> {
    let mut r = Reader::of_message(frames)?;
    let op = peek_op(&r)?.to_owned();
    let mut envelope = Envelope {
        op,
        reply: true,
        close: false,
    };
    for _ in 0..r.map()? {
        match r.str_or_skip()? {
            Some("reply") => envelope.reply = r.bool()?,
            Some("close") => envelope.close = r.bool()?,
            _ => r.skip()?,
        }
    }
    Ok(envelope)
}

/// Answer requests one after the other until the peer closes the connection.
async fn serve(mut comm: Comm, context: Context) -> Result<(), String> {
    while let Some(frames) = comm.reader.read().await.map_err(|error| chain(&error))? {
        let envelope = envelope(&frames).map_err(|error| error.to_string())?;
        if envelope.op == "get_data" || envelope.op == shared::GET_DATA {
            get_data(
                &mut comm,
                &context,
                &frames,
                envelope.op == shared::GET_DATA,
            )
            .await?;
            continue;
        }
        let answer = match answer(&envelope.op, frames, &context).await {
            Ok(answer) => answer,
            Err(text) => failure(&format!("op {:?}: {text}", envelope.op)),
        };
        if envelope.reply {
            comm.writer
                .write(&answer)
                .await
                .map_err(|error| chain(&error))?;
        }
        if envelope.close || envelope.op == "close" {
            return Ok(());
        }
    }
    Ok(())
}

fn value(value: &impl Encode) -> Vec<Bytes> {
    oxidask_protocol::message::encode_one(value)
}

/// An error as every caller understands it.
fn failure(text: &str) -> Vec<Bytes> {
    value(&Value::map([
        ("status", Value::Str("uncaught-error".into())),
        ("exception", Value::Str(text.into())),
        ("traceback", Value::Nil),
        ("exception_text", Value::Str(text.into())),
        ("traceback_text", Value::Str(String::new())),
    ]))
}

/// One field of a request, or its default.
fn field<T: Decode>(frames: &[Bytes], name: &str) -> Result<Option<T>, String> {
    let read = || -> Result<Option<T>, DecodeError> {
        let mut r = Reader::of_message(frames)?;
        for _ in 0..r.map()? {
            if r.str_or_skip()? == Some(name) {
                return Option::<T>::decode(&mut r);
            }
            r.skip()?;
        }
        Ok(None)
    };
    read().map_err(|error| format!("field {name:?}: {error}"))
}

fn required<T: Decode>(frames: &[Bytes], name: &str) -> Result<T, String> {
    field(frames, name)?.ok_or_else(|| format!("field {name:?} is missing"))
}

const GONE: &str = "the worker is shutting down";

async fn answer(op: &str, frames: Vec<Bytes>, context: &Context) -> Result<Vec<Bytes>, String> {
    match op {
        "update_data" => update_data(&frames, context).await,
        "gather" => gather(&frames, context).await,
        "free_keys" => {
            let keys = required(&frames, "keys")?;
            let stimulus_id = field(&frames, "stimulus_id")?.unwrap_or_default();
            context
                .inputs
                .get()
                .send(Input::Request(Request::FreeKeys { keys, stimulus_id }))
                .await;
            Ok(value(&Value::Nil))
        }
        shared::HELLO => Ok(value(
            &context
                .proof
                .as_ref()
                .map_or(Value::Nil, |proof| proof.answer()),
        )),
        "close" => Ok(value(&Value::Str("OK".into()))),
        "ping" => Ok(value(&Value::Bin(Bytes::from_static(b"pong")))),
        "echo" => Ok(value(&field::<Value>(&frames, "data")?.unwrap_or_default())),
        "versions" => Ok(value(&context.versions.get().cloned().unwrap_or_default())),
        "identity" => query(context, Query::Identity).await,
        "keys" => query(context, Query::Keys).await,
        "get_story" => {
            let keys: Vec<Value> = field(&frames, "keys_or_stimuli")?.unwrap_or_default();
            query(
                context,
                Query::Story(keys.iter().filter_map(Value::to_key).collect()),
            )
            .await
        }
        "dump_state" => query(context, Query::State).await,
        "oxidask_work" => query(context, Query::Work).await,
        "get_monitor_info" => query(context, Query::Metrics { take: false }).await,
        "kill" | "restart" | "instantiate" => {
            if op != "instantiate" {
                context.inputs.get().send(Input::Restart).await;
            }
            // Nannies answer nothing to the first and "OK" to the second.
            Ok(value(&if op == "kill" {
                Value::Nil
            } else {
                Value::Str("OK".into())
            }))
        }
        "close_gracefully" => {
            let reason = field(&frames, "reason")?.unwrap_or_else(|| "asked to close".to_owned());
            let stop = Input::Stop {
                graceful: true,
                reason,
            };
            context.inputs.get().send(stop).await;
            Ok(value(&Value::Nil))
        }
        "terminate" => {
            let reason =
                field(&frames, "reason")?.unwrap_or_else(|| "asked to terminate".to_owned());
            let stop = Input::Stop {
                graceful: false,
                reason,
            };
            context.inputs.get().send(stop).await;
            Ok(value(&Value::Str("OK".into())))
        }
        op => relay(op, frames, context).await,
    }
}

/// Has a request answered by Python.
async fn relay(op: &str, frames: Vec<Bytes>, context: &Context) -> Result<Vec<Bytes>, String> {
    let (reply, answer) = oneshot::channel();
    let relay = Request::Relay {
        op: op.to_owned(),
        frames,
        reply,
    };
    context.inputs.get().send(Input::Request(relay)).await;
    answer.await.map_err(|_| GONE.to_owned())?
}

async fn query(context: &Context, query: Query) -> Result<Vec<Bytes>, String> {
    ask(&context.inputs.get(), query)
        .await
        .map(|answer| value(&answer))
        .ok_or_else(|| GONE.to_owned())
}

/// `get_data`: the values, then the peer's "OK", which belongs to this exchange. A peer may say which serialisation
/// families it takes.
async fn get_data(
    comm: &mut Comm,
    context: &Context,
    frames: &[Bytes],
    share: bool,
) -> Result<(), String> {
    let keys = required(frames, "keys")?;
    let families: Option<Vec<Value>> = field(frames, "serializers")?;
    let (reply, answer) = oneshot::channel();
    context
        .inputs
        .get()
        .send(Input::Request(Request::GetData { keys, reply }))
        .await;
    match answer.await.map_err(|_| GONE.to_owned())? {
        GetDataReply::Busy => {
            let busy = value(&Value::map([("status", Value::Str("busy".into()))]));
            comm.writer
                .write(&busy)
                .await
                .map_err(|error| chain(&error))
        }
        GetDataReply::Data(data, guard) => {
            let reply = match families {
                Some(families) if !share => in_families(&data, &families, context).await,
                _ => values(&data, share),
            };
            comm.writer
                .write(&reply)
                .await
                .map_err(|error| chain(&error))?;
            // Memory files stay open until the peer has them, or has had time enough to say so.
            comm.reader
                .read_steadily(context.peers.stall_timeout)
                .await
                .map_err(|error| chain(&error))?;
            drop(data);
            drop(guard);
            Ok(())
        }
    }
}

/// The reply to `get_data` for a peer that takes these serialisation families only.
async fn in_families(data: &[Shared], families: &[Value], context: &Context) -> Vec<Bytes> {
    let Some(request) = families::request(data, families) else {
        return values(data, false);
    };
    let answer = relay("oxidask_serialise", request, context).await;
    match answer.and_then(|answer| families::replace(data, &answer)) {
        Ok(again) => {
            let again: Vec<Shared> = again.into_iter().map(|(k, p)| (k, p, None)).collect();
            values(&again, false)
        }
        Err(text) => {
            // The peer refuses what it does not take.
            tracing::warn!("values go out as they are: {text}");
            values(data, false)
        }
    }
}

/// The reply to `get_data`; with `share`, values in memory files are named and not sent.
fn values(data: &[Shared], share: bool) -> Vec<Bytes> {
    let (named, sent): (Vec<_>, Vec<_>) = data
        .iter()
        .partition(|(_, _, file)| share && file.is_some());
    let mut w = Writer::new();
    w.map(if share { 3 } else { 2 });
    w.str("status");
    w.str("OK");
    w.str("data");
    w.map(sent.len());
    for (key, payload, _) in sent {
        w.raw(key.wire());
        w.payload(payload);
    }
    if share {
        w.str("files");
        w.map(named.len());
        for (key, payload, file) in named {
            w.raw(key.wire());
            match file {
                Some(file) => shared::name(payload, file).encode(&mut w),
                None => w.nil(),
            }
        }
    }
    w.into_frames()
}

async fn update_data(frames: &[Bytes], context: &Context) -> Result<Vec<Bytes>, String> {
    let data: Pairs<Key, Value> = required(frames, "data")?;
    let stimulus_id = field(frames, "stimulus_id")?.unwrap_or_else(|| "update-data".to_owned());
    let data = data
        .0
        .into_iter()
        .map(|(key, value)| Ok((key, to_payload(value)?)))
        .collect::<Result<_, String>>()?;
    let nbytes = store(data, stimulus_id, context).await?;
    let nbytes = nbytes.into_iter().collect::<Pairs<Key, u64>>();
    let mut w = Writer::new();
    w.map(2);
    w.str("status");
    w.str("OK");
    w.str("nbytes");
    nbytes.encode(&mut w);
    Ok(w.into_frames())
}

/// A value that msgpack carries in the document is kept as a payload of family msgpack.
fn to_payload(value: Value) -> Result<Payload, String> {
    match value {
        Value::Payload(payload) => Ok(payload),
        other => {
            let mut w = Writer::new();
            other.encode(&mut w);
            let frame = w.into_document();
            let header = Value::map([
                ("serializer", Value::Str("msgpack".into())),
                ("num-sub-frames", Value::Int(1)),
                ("split-num-sub-frames", Value::Array(vec![Value::Int(1)])),
                ("split-offsets", Value::Array(vec![Value::Int(0)])),
            ]);
            let mut w = Writer::new();
            header.encode(&mut w);
            Ok(Payload::serialized(w.into_document(), vec![frame]))
        }
    }
}

async fn store(
    data: Vec<(Key, Payload)>,
    stimulus_id: String,
    context: &Context,
) -> Result<Vec<(Key, u64)>, String> {
    let (reply, answer) = oneshot::channel();
    context
        .inputs
        .get()
        .send(Input::Request(Request::UpdateData {
            data,
            stimulus_id,
            reply,
        }))
        .await;
    answer.await.map_err(|_| GONE.to_owned())
}

/// `gather`: fetch values from others, for `Client.replicate`. One holder after the other is tried.
async fn gather(frames: &[Bytes], context: &Context) -> Result<Vec<Bytes>, String> {
    let who_has: Pairs<Key, Vec<String>> = required(frames, "who_has")?;
    let mut wanted: Vec<(Key, Vec<String>)> = who_has.0;
    let mut failed = Vec::new();
    while !wanted.is_empty() {
        let mut by_worker: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        for (key, holders) in &wanted {
            match holders.first() {
                Some(worker) => by_worker
                    .entry(worker.clone())
                    .or_default()
                    .push(key.clone()),
                None => failed.push(key.clone()),
            }
        }
        wanted.retain(|(_, holders)| !holders.is_empty());
        for (worker, keys) in by_worker {
            match context
                .peers
                .get_data(&worker, &keys, &context.address, 0)
                .await
            {
                TransferOutcome::Data { data, .. } => {
                    let data: Vec<_> = data
                        .into_iter()
                        .map(|(key, payload, _)| (key, payload))
                        .collect();
                    wanted.retain(|(key, _)| !data.iter().any(|(came, _)| came == key));
                    store(data, "gather".to_owned(), context).await?;
                    forget_holder(&mut wanted, &worker, &keys);
                }
                TransferOutcome::Busy => tokio::time::sleep(Duration::from_millis(150)).await,
                TransferOutcome::Failed(text) => {
                    tracing::warn!(worker, "gather failed: {text}");
                    forget_holder(&mut wanted, &worker, &keys);
                }
            }
        }
    }
    let status = if failed.is_empty() {
        "OK"
    } else {
        "partial-fail"
    };
    let mut w = Writer::new();
    w.map(if failed.is_empty() { 1 } else { 2 });
    w.str("status");
    w.str(status);
    if !failed.is_empty() {
        w.str("keys");
        failed.encode(&mut w);
    }
    Ok(w.into_frames())
}

fn forget_holder(wanted: &mut [(Key, Vec<String>)], worker: &str, keys: &[Key]) {
    for (key, holders) in wanted {
        if keys.contains(key) {
            holders.retain(|holder| holder != worker);
        }
    }
}
