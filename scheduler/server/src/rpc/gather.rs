//! `gather`: results from workers to a client, through the scheduler, unopened and uncopied.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use oxidask_protocol::comm::CommError;
use oxidask_protocol::message::rpc::{GetData, ToWorkerRpc};
use oxidask_protocol::message::{decode_one, encode_one};
use oxidask_protocol::msgpack::Reader;
use oxidask_protocol::wire::{Decode, KeySet, Pairs};
use oxidask_protocol::{DecodeError, Key, Payload};
use oxidask_scheduler_core::{Event, WorkerId};
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::{debug, warn};

use super::data::Named;
use super::{Answer, Outcome};
use crate::conn::pool::CallError;
use crate::server::Server;

/// How long a worker that has too many readers is left alone.
const BUSY: Duration = Duration::from_millis(150);

/// `gather`: `{"status": "OK", "data": …}`, or `{"status": "error", "keys": …}` with the keys that nobody has.
pub(super) async fn gather(server: &Arc<Server>, keys: Vec<Key>) -> Outcome {
    let mut data: Vec<(Key, Payload)> = Vec::with_capacity(keys.len());
    let mut seen = FxHashSet::default();
    let mut wanted: Vec<Key> = keys
        .into_iter()
        .filter(|key| seen.insert(key.clone()))
        .collect();
    let mut failed = Vec::new();
    // Pairs that did not deliver; each pair is asked once.
    let mut tried: FxHashSet<(Key, WorkerId)> = FxHashSet::default();
    while !wanted.is_empty() {
        let mut by_worker: Vec<(Named, Vec<Key>)> = Vec::new();
        let mut place: FxHashMap<WorkerId, usize> = FxHashMap::default();
        {
            let driver = server.driver();
            for key in std::mem::take(&mut wanted) {
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
        }
        let fetches = by_worker
            .into_iter()
            .map(|((id, address), keys)| async move {
                let values = fetch(server, &address, &keys).await;
                ((id, address), keys, values)
            });
        let mut missing = Vec::new();
        for ((id, address), keys, values) in join_all(fetches).await {
            let answered = values.is_ok();
            let values = values.unwrap_or_else(|error| {
                warn!(worker = %address, keys = keys.len(), %error, "worker failed to deliver results");
                Vec::new()
            });
            let got: FxHashSet<&Key> = values.iter().map(|(key, _)| key).collect();
            for key in &keys {
                if !got.contains(key) {
                    tried.insert((key.clone(), id));
                    wanted.push(key.clone());
                    if answered {
                        missing.push((key.clone(), id));
                    }
                }
            }
            data.extend(values);
        }
        if !missing.is_empty() {
            debug!(
                keys = missing.len(),
                "workers do not have keys that they should have"
            );
            server.driver().handle(Event::ReplicasMissing { missing });
        }
    }
    Answer::write(|w| {
        w.map(2);
        w.str("status");
        if failed.is_empty() {
            w.str("OK");
            w.str("data");
            w.map(data.len());
            for (key, value) in &data {
                w.raw(key.wire());
                w.payload(value);
            }
        } else {
            w.str("error");
            w.str("keys");
            w.array(failed.len());
            failed.iter().for_each(|key| w.raw(key.wire()));
        }
    })
}

/// An order of holders that differs from key to key.
fn spread(key: &Key, worker: WorkerId) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = rustc_hash::FxHasher::default();
    (key, worker).hash(&mut hasher);
    hasher.finish()
}

/// Fetches keys from one worker; those that it does not have are left out.
///
/// # Errors
/// If it cannot be reached or answers nonsense.
async fn fetch(
    server: &Server,
    address: &str,
    keys: &[Key],
) -> Result<Vec<(Key, Payload)>, CallError> {
    let request = encode_one(&ToWorkerRpc::GetData(GetData {
        keys: KeySet {
            keys: keys.to_vec(),
            is_set: false,
        },
        who: None,
    }));
    loop {
        let frames = server
            .pool
            .exchange(address, &request, Some(acknowledge))
            .await?;
        let answer = decode_one::<DataReply>(&frames).map_err(|source| CommError::Decode {
            peer: address.to_owned(),
            source,
        })?;
        if answer.status != "busy" {
            return Ok(answer.data.0);
        }
        tokio::time::sleep(BUSY).await;
    }
}

/// The answer to `get_data`.
#[derive(Default)]
struct DataReply {
    status: String,
    data: Pairs<Key, Payload>,
}

impl Decode for DataReply {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut reply = Self::default();
        for _ in 0..r.map()? {
            match r.str_or_skip()? {
                Some("status") => reply.status = Decode::decode(r)?,
                Some("data") => reply.data = Decode::decode(r)?,
                _ => r.skip()?,
            }
        }
        Ok(reply)
    }
}

/// A worker that has sent data waits for a bare `"OK"`; one that is busy or failed does not.
fn acknowledge(frames: &[Bytes]) -> Option<Vec<Bytes>> {
    // Only the document is looked at, as far as the status, which comes first.
    let status = || -> Result<bool, DecodeError> {
        let mut r = Reader::of_message(frames)?;
        for _ in 0..r.map()? {
            match r.str_or_skip()? {
                Some("status") => return Ok(r.str()? == "OK"),
                _ => r.skip()?,
            }
        }
        Ok(false)
    };
    status()
        .is_ok_and(|ok| ok)
        .then(|| encode_one(&"OK".to_owned()))
}
