//! Fetching values from peers: one request per transfer over a pooled connection.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use oxidask_protocol::{
    Key, Value,
    address::{Address, Scheme},
    comm::{Comm, CommError, Tls, connect},
    frame::Limits,
    msgpack::{Reader, Writer},
    wire::Decode,
};
use tokio::sync::{Mutex, oneshot};

use crate::{
    input::{GetDataReply, Input, Inputs, Request},
    neighbours::Neighbours,
    shared::{self, Shared},
    store::Segments,
};

/// Connections kept open to one peer.
const KEEP: usize = 2;

/// How long a peer may take to say whether it shares memory.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How a transfer ended.
#[derive(Debug)]
pub(crate) enum TransferOutcome {
    /// What came; keys that did not come are not there.
    Data { data: Vec<Shared>, seconds: f64 },
    /// The peer serves too many others.
    Busy,
    /// The peer cannot be reached, broke off, stalled or sent nonsense.
    Failed(String),
}

/// Opens and keeps connections to peers.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) tls: Option<Tls>,
    pub(crate) connect_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    neighbours: Neighbours,
    /// Where values are received.
    pub(crate) segments: Segments,
    idle: Arc<Mutex<HashMap<String, Vec<Comm>>>>,
    /// By address: the process whose memory can be shared, or none if it cannot.
    sharing: Arc<Mutex<HashMap<String, Option<u32>>>>,
}

impl Peers {
    pub(crate) fn new(
        tls: Option<Tls>,
        connect_timeout: Duration,
        stall_timeout: Duration,
        neighbours: Neighbours,
    ) -> Self {
        Self {
            tls,
            connect_timeout,
            stall_timeout,
            neighbours,
            segments: Segments::default(),
            idle: Arc::default(),
            sharing: Arc::default(),
        }
    }

    /// A connection to `address`, kept or new, and whether it was kept.
    pub(crate) async fn take(&self, address: &str) -> Result<(Comm, bool), CommError> {
        if let Some(comm) = self.idle.lock().await.get_mut(address).and_then(Vec::pop) {
            return Ok((comm, true));
        }
        Ok((self.open(address).await?, false))
    }

    /// A new connection to `address`.
    pub(crate) async fn open(&self, address: &str) -> Result<Comm, CommError> {
        let parsed = Address::parse(address, Scheme::Tcp, None)
            .map_err(|error| CommError::Closed(error.to_string()))?;
        connect(
            &parsed,
            self.tls.as_ref(),
            Limits::default(),
            self.connect_timeout,
        )
        .await
    }

    /// Keep a connection on which nothing is under way.
    pub(crate) async fn give_back(&self, address: &str, comm: Comm) {
        let mut idle = self.idle.lock().await;
        let comms = idle.entry(address.to_owned()).or_default();
        if comms.len() < KEEP {
            comms.push(comm);
        }
    }

    /// Forget connections to a worker that left.
    pub(crate) async fn forget(&self, address: &str) {
        self.idle.lock().await.remove(address);
        self.sharing.lock().await.remove(address);
    }

    /// Ask `worker` for values that are about `nbytes` large.
    pub(crate) async fn get_data(
        &self,
        worker: &str,
        keys: &[Key],
        who: &str,
        nbytes: u64,
    ) -> TransferOutcome {
        let start = std::time::Instant::now();
        if let Some(inputs) = self.neighbours.find(worker) {
            return self.get_data_here(&inputs.get(), keys, start).await;
        }
        let share = if nbytes >= shared::SHARE_BYTES {
            self.shares_with(worker, who).await
        } else {
            None
        };
        let mut result = self.get_data_once(worker, keys, who, true, share).await;
        if matches!(result, Err((_, true))) {
            // The peer may have closed a connection that lay idle.
            result = self.get_data_once(worker, keys, who, false, share).await;
        }
        match result {
            Ok(Some(data)) => TransferOutcome::Data {
                data,
                seconds: start.elapsed().as_secs_f64(),
            },
            Ok(None) => TransferOutcome::Busy,
            Err((text, _)) => TransferOutcome::Failed(text),
        }
    }

    /// As [`get_data`](Self::get_data) from a worker in this process: both then hold the same bytes.
    async fn get_data_here(
        &self,
        inputs: &Inputs,
        keys: &[Key],
        start: std::time::Instant,
    ) -> TransferOutcome {
        let (reply, answer) = oneshot::channel();
        let keys = keys.to_vec();
        inputs
            .send(Input::Request(Request::GetData { keys, reply }))
            .await;
        match tokio::time::timeout(self.stall_timeout, answer).await {
            Ok(Ok(GetDataReply::Data(data, _))) => TransferOutcome::Data {
                data,
                seconds: start.elapsed().as_secs_f64(),
            },
            Ok(Ok(GetDataReply::Busy)) => TransferOutcome::Busy,
            Ok(Err(_)) => TransferOutcome::Failed("it has ended".to_owned()),
            Err(_) => TransferOutcome::Failed("its executor serialises nothing".to_owned()),
        }
    }

    /// The process of `worker` if it runs on this host and its memory can be shared. It is asked once.
    async fn shares_with(&self, worker: &str, own: &str) -> Option<u32> {
        if host(worker) != host(own) {
            return None;
        }
        if let Some(known) = self.sharing.lock().await.get(worker) {
            return *known;
        }
        let question = Value::map([
            ("op", Value::Str(shared::HELLO.into())),
            ("reply", Value::Bool(true)),
        ]);
        let answer = async {
            let (mut comm, _) = self.take(worker).await.ok()?;
            let answer = tokio::time::timeout(HELLO_TIMEOUT, comm.request(&question))
                .await
                .ok()?
                .ok()?;
            self.give_back(worker, comm).await;
            Some(answer)
        };
        let shares = answer.await.and_then(|answer| shared::check(&answer));
        tracing::debug!(
            worker,
            shares = shares.is_some(),
            "asked whether memory can be shared"
        );
        self.sharing.lock().await.insert(worker.to_owned(), shares);
        shares
    }

    async fn get_data_once(
        &self,
        worker: &str,
        keys: &[Key],
        who: &str,
        pooled: bool,
        share: Option<u32>,
    ) -> Result<Option<Vec<Shared>>, (String, bool)> {
        let (mut comm, kept) = if pooled {
            self.take(worker)
                .await
                .map_err(|error| (chain(&error), false))?
        } else {
            (
                self.open(worker)
                    .await
                    .map_err(|error| (chain(&error), false))?,
                false,
            )
        };
        let fail = |error: CommError| (chain(&error), kept);
        comm.reader.set_memory(Arc::new(self.segments.clone()));
        comm.writer
            .write(&request(keys, who, share.is_some()))
            .await
            .map_err(fail)?;
        let frames = match comm.reader.read_steadily(self.stall_timeout).await {
            Ok(Some(frames)) => frames,
            Ok(None) => return Err((format!("{worker} closed the connection"), kept)),
            Err(CommError::Timeout { seconds, .. }) => {
                return Err((format!("{worker} sent nothing for {seconds} s"), false));
            }
            Err(error) => return Err(fail(error)),
        };
        let Some(data) =
            reply(&frames, keys, share).map_err(|text| (format!("{worker}: {text}"), false))?
        else {
            self.give_back(worker, comm).await;
            return Ok(None);
        };
        let mut w = Writer::new();
        w.str("OK");
        comm.writer
            .write(&w.into_frames())
            .await
            .map_err(|error| (chain(&error), false))?;
        self.give_back(worker, comm).await;
        Ok(Some(data))
    }
}

fn request(keys: &[Key], who: &str, share: bool) -> Vec<Bytes> {
    let mut w = Writer::new();
    w.map(4);
    w.str("op");
    w.str(if share { shared::GET_DATA } else { "get_data" });
    w.str("keys");
    w.set(keys.len());
    for key in keys {
        w.raw(key.wire());
    }
    w.str("who");
    w.str(who);
    w.str("reply");
    w.bool(true);
    w.into_frames()
}

/// The values of a reply, only those asked for; none if the peer is busy.
fn reply(
    frames: &[Bytes],
    keys: &[Key],
    share: Option<u32>,
) -> Result<Option<Vec<Shared>>, String> {
    let mut files = Vec::new();
    let mut r = Reader::of_message(frames).map_err(|error| error.to_string())?;
    let mut status = String::new();
    let mut data = None;
    let mut read = || {
        for _ in 0..r.map()? {
            match r.str()? {
                "status" => status = r.str()?.to_owned(),
                "data" => {
                    let count = r.map()?;
                    let mut values = Vec::with_capacity(count.min(keys.len()));
                    for _ in 0..count {
                        let key = Key::read(&mut r)?;
                        let value = Value::decode(&mut r)?;
                        if let Value::Payload(payload) = value
                            && keys.contains(&key)
                        {
                            values.push((key, payload, None));
                        }
                    }
                    data = Some(values);
                }
                "files" => {
                    for _ in 0..r.map()? {
                        let key = Key::read(&mut r)?;
                        files.push((key, Value::decode(&mut r)?));
                    }
                }
                _ => r.skip()?,
            }
        }
        Ok::<_, oxidask_protocol::DecodeError>(())
    };
    read().map_err(|error| error.to_string())?;
    match (status.as_str(), data) {
        ("OK", Some(mut data)) => {
            for (key, name) in files.iter().filter(|(key, _)| keys.contains(key)) {
                let opened = share.and_then(|pid| shared::open(pid, name));
                let (payload, file) = opened.ok_or("a memory file of the peer cannot be opened")?;
                data.push((key.clone(), payload, Some(file)));
            }
            Ok(Some(data))
        }
        ("busy", _) => Ok(None),
        (status, _) => Err(format!("get_data ended with status {status:?}")),
    }
}

/// The host of `scheme://host:port`.
fn host(address: &str) -> Option<&str> {
    address
        .split_once("://")?
        .1
        .rsplit_once(':')
        .map(|(host, _)| host)
}

/// An error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
