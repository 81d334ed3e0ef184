//! `gather`: results from workers to a client, through the scheduler, unopened.
//!
//! Workers are asked first, and of each answer only the beginning is read: which keys it brings and how long its
//! frames are. Small answers are taken in; large ones stay in their connections until the client has been told the
//! lengths of everything, and are then passed on piece by piece ([`mod@relay`]).

mod part;
mod relay;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use oxidask_protocol::comm::{Comm, CommError};
use oxidask_protocol::message::encode_one;
use oxidask_protocol::message::rpc::{Gather, GetData, ToWorkerRpc};
use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::wire::{KeySet, Omit};
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::{Event, WorkerId};
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::{debug, warn};

use super::Answer;
use super::data::Named;
use crate::conn::pool::CallError;
use crate::coordinate;
use crate::server::Server;
use part::{Body, Head, Part};
pub(crate) use relay::relay;

/// How long a worker that has too many readers is left alone.
const BUSY: Duration = Duration::from_millis(150);

/// Bytes of results that one `gather` takes in before it knows that all can be had.
pub(crate) const ROOM: usize = 64 << 20;

/// What came of a `gather`.
pub(crate) enum Gathered {
    /// Everything is there, or waits in connections to workers.
    Parts {
        parts: Vec<Part>,
        /// Serialisation families that the client allows.
        serializers: Omit<Value>,
    },
    /// Keys that nobody has.
    Failed(Vec<Key>),
}

impl Gathered {
    /// The answer as a whole message. All parts must have been taken in.
    pub(crate) fn into_answer(self) -> Answer {
        match self {
            Self::Failed(keys) => Answer::message(vec![refusal(&keys)]),
            Self::Parts { parts, .. } => Answer::message(part::whole(parts)),
        }
    }
}

/// `{"status": "error", "keys": …}`
fn refusal(keys: &[Key]) -> Bytes {
    let mut w = Writer::new();
    w.map(2);
    w.str("status");
    w.str("error");
    w.str("keys");
    w.array(keys.len());
    keys.iter().for_each(|key| w.raw(key.wire()));
    w.into_document()
}

/// Asks workers for results. Answers of up to `room` bytes in all are taken in, others wait in their connections.
pub(crate) async fn gather(server: &Arc<Server>, body: Gather, room: usize) -> Gathered {
    let Gather { keys, serializers } = body;
    let room = AtomicUsize::new(room);
    let mut parts: Vec<Part> = Vec::new();
    let event = Value::map([
        ("action", Value::from("gather")),
        ("count", keys.len().into()),
    ]);
    coordinate::log_event(server, &mut server.driver(), &["all"], &event);
    let mut seen = FxHashSet::default();
    let mut wanted: Vec<Key> = keys
        .into_iter()
        .filter(|key| seen.insert(key.clone()))
        .collect();
    let mut failed = Vec::new();
    // Pairs that did not deliver; each pair is asked once.
    let mut tried: FxHashSet<(Key, WorkerId)> = FxHashSet::default();
    while !wanted.is_empty() {
        let by_worker = assign(server, std::mem::take(&mut wanted), &tried, &mut failed);
        let (room, serializers) = (&room, &serializers);
        let fetches = by_worker
            .into_iter()
            .map(|((id, address), keys)| async move {
                let part = fetch(server, &address, &keys, serializers, room).await;
                ((id, address), keys, part)
            });
        let mut missing = Vec::new();
        for ((id, address), keys, part) in join_all(fetches).await {
            let answered = part.is_ok();
            let part = part
                .inspect_err(|error| {
                    warn!(worker = %address, keys = keys.len(), %error, "worker failed to deliver results");
                })
                .ok();
            let entries = part.as_ref().map_or(&[][..], |part| &part.entries);
            let got: FxHashSet<&Key> = entries.iter().map(|(key, _)| key).collect();
            for key in &keys {
                if !got.contains(key) {
                    tried.insert((key.clone(), id));
                    wanted.push(key.clone());
                    if answered {
                        missing.push((key.clone(), id));
                    }
                }
            }
            parts.extend(part.filter(|part| !part.entries.is_empty()));
        }
        if !missing.is_empty() {
            debug!(
                keys = missing.len(),
                "workers do not have keys that they should have"
            );
            server.driver().handle(Event::ReplicasMissing { missing });
        }
    }
    if failed.is_empty() {
        Gathered::Parts { parts, serializers }
    } else {
        Gathered::Failed(failed)
    }
}

/// Which worker is asked for which keys. Keys without a holder that was not tried are put into `failed`.
fn assign(
    server: &Server,
    wanted: Vec<Key>,
    tried: &FxHashSet<(Key, WorkerId)>,
    failed: &mut Vec<Key>,
) -> Vec<(Named, Vec<Key>)> {
    let mut by_worker: Vec<(Named, Vec<Key>)> = Vec::new();
    let mut place: FxHashMap<WorkerId, usize> = FxHashMap::default();
    let driver = server.driver();
    for key in wanted {
        let holders = driver.core().who_has(&key);
        let holder = holders
            .iter()
            .filter(|holder| !tried.contains(&(key.clone(), **holder)))
            .filter_map(|holder| driver.workers.get(*holder))
            // Among several, one that is asked anyway; else another for each key.
            .max_by_key(|peer| (place.contains_key(&peer.id), spread(&key, peer.id)));
        match holder {
            None => failed.push(key),
            Some(peer) => {
                let at = *place.entry(peer.id).or_insert_with(|| {
                    by_worker.push(((peer.id, Arc::clone(&peer.address)), Vec::new()));
                    by_worker.len() - 1
                });
                by_worker[at].1.push(key);
            }
        }
    }
    by_worker
}

/// An order of holders that differs from key to key.
fn spread(key: &Key, worker: WorkerId) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = rustc_hash::FxHasher::default();
    (key, worker).hash(&mut hasher);
    hasher.finish()
}

/// Asks one worker for keys; those that it does not have are left out. `serializers`: what the values may be serialised
/// with; the worker writes an error in the place of one that cannot be.
///
/// # Errors
/// If it cannot be reached or answers nonsense.
async fn fetch(
    server: &Arc<Server>,
    address: &Arc<str>,
    keys: &[Key],
    serializers: &Omit<Value>,
    room: &AtomicUsize,
) -> Result<Part, CallError> {
    let request = encode_one(&ToWorkerRpc::GetData(GetData {
        keys: KeySet {
            keys: keys.to_vec(),
            is_set: false,
        },
        who: None,
        serializers: serializers.clone(),
    }));
    loop {
        let mut comm = server.pool.take(address).await?;
        comm.writer.write(&request).await?;
        let head = comm.reader.read_head().await?;
        let head = head.ok_or_else(|| CommError::Closed(address.to_string()))?;
        let head = Head::read(head).map_err(|source| CommError::Decode {
            peer: address.to_string(),
            source,
        })?;
        let size = comm.reader.body_left();
        let has_room = room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| {
                room.checked_sub(size)
            })
            .is_ok();
        let Head {
            status,
            entries,
            lengths,
        } = head;
        if !has_room && !entries.is_empty() {
            let body = Body::Waiting(Box::new(comm), Arc::clone(address));
            return Ok(Part {
                entries,
                lengths,
                body,
            });
        }
        let mut pieces = Vec::new();
        while let Some(piece) = comm.reader.read_body().await? {
            pieces.push(piece);
        }
        if status == "OK" {
            // Only a worker that has sent data waits for a word, and the client waits longer for the answer.
            tokio::spawn(acknowledge(Arc::clone(server), comm, Arc::clone(address)));
        } else {
            server.pool.give(address, comm);
        }
        if status != "busy" {
            return Ok(Part {
                entries,
                lengths,
                body: Body::Held(pieces),
            });
        }
        tokio::time::sleep(BUSY).await;
    }
}

/// Tells a worker that its data have come, and keeps the connection.
async fn acknowledge(server: Arc<Server>, mut comm: Comm, address: Arc<str>) {
    // A worker that dies now has delivered all the same.
    if comm.writer.send(&"OK".to_owned()).await.is_ok() {
        server.pool.give(&address, comm);
    }
}
