//! The workers that are registered, found by number, address or name.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_protocol::Value;
use oxidask_protocol::msgpack::Writer;
use oxidask_scheduler_core::WorkerId;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Memory, PeerName};
use crate::conn::outbox::Outbox;

/// What is known about a worker beside what the core knows.
#[derive(Debug)]
pub struct WorkerPeer {
    /// Its number in the core.
    pub id: WorkerId,
    /// Its address, its identity on the wire.
    pub address: Arc<str>,
    /// The address as a msgpack str.
    pub address_wire: Bytes,
    /// Its name as it gave it.
    pub name: Value,
    /// Host part of its address.
    pub host: Arc<str>,
    /// Tasks that it runs at once.
    pub nthreads: u64,
    /// Unit: bytes; 0 without limit.
    pub memory_limit: u64,
    /// Amounts of its resources.
    pub resources: Vec<(String, f64)>,
    /// Folder for its files.
    pub local_directory: String,
    /// Ports of its HTTP services.
    pub services: Value,
    /// Address of its nanny.
    pub nanny: Option<String>,
    /// Its process id.
    pub pid: Value,
    /// Versions of its packages.
    pub versions: Value,
    /// Its last measurements.
    pub metrics: Value,
    /// Its memory as it reports it.
    pub memory: Memory,
    /// What its plugins add to its identity.
    pub extra: Value,
    /// Names its process.
    pub server_id: String,
    /// Last sign of life. Unit: Unix seconds.
    pub last_seen: f64,
    /// Its clock behind ours. Unit: seconds.
    pub time_delay: f64,
    /// It is of distributed up to 2024.12, whose `compute-task` has a `duration`.
    pub takes_duration: bool,
    /// Its stream.
    pub outbox: Arc<Outbox>,
}

/// All registered workers in the order in which they came.
#[derive(Debug, Default)]
pub struct Workers {
    peers: FxHashMap<WorkerId, WorkerPeer>,
    /// Registration order.
    order: Vec<WorkerId>,
    by_address: FxHashMap<Arc<str>, WorkerId>,
    by_name: FxHashMap<PeerName, WorkerId>,
    next: u32,
    /// Names under which nobody may register any more, as text.
    barred: FxHashSet<String>,
    /// Workers taken in and taken out since the start.
    pub totals: (u64, u64),
}

impl Workers {
    /// A number for the next worker.
    pub fn next_id(&mut self) -> WorkerId {
        self.next += 1;
        WorkerId(self.next)
    }

    /// Refuses workers of these names from now on.
    pub fn bar(&mut self, names: impl IntoIterator<Item = String>) {
        self.barred.extend(names);
    }

    /// Whether workers of this name are refused.
    pub fn is_barred(&self, name: &PeerName) -> bool {
        !self.barred.is_empty() && self.barred.contains(&name.text())
    }

    /// Takes a worker in. Address and name must be free.
    pub fn insert(&mut self, peer: WorkerPeer) {
        self.totals.0 += 1;
        self.by_address.insert(Arc::clone(&peer.address), peer.id);
        if let Some(name) = PeerName::from_value(&peer.name) {
            self.by_name.insert(name, peer.id);
        }
        self.order.push(peer.id);
        self.peers.insert(peer.id, peer);
    }

    /// Takes a worker out.
    pub fn remove(&mut self, id: WorkerId) -> Option<WorkerPeer> {
        let peer = self.peers.remove(&id)?;
        self.totals.1 += 1;
        self.order.retain(|other| *other != id);
        self.by_address.remove(&peer.address);
        if let Some(name) = PeerName::from_value(&peer.name) {
            self.by_name.remove(&name);
        }
        Some(peer)
    }

    /// A worker by its number.
    pub fn get(&self, id: WorkerId) -> Option<&WorkerPeer> {
        self.peers.get(&id)
    }

    /// A worker by its number.
    pub fn get_mut(&mut self, id: WorkerId) -> Option<&mut WorkerPeer> {
        self.peers.get_mut(&id)
    }

    /// A worker by its address.
    pub fn by_address(&self, address: &str) -> Option<&WorkerPeer> {
        self.by_address
            .get(address)
            .and_then(|id| self.peers.get(id))
    }

    /// A worker by its name, with the type of the name.
    pub fn by_name(&self, name: &PeerName) -> Option<&WorkerPeer> {
        self.by_name.get(name).and_then(|id| self.peers.get(id))
    }

    /// A worker as users name one: by name, address, or `host:port`.
    pub fn find(&self, name: &Value) -> Option<&WorkerPeer> {
        if let Some(peer) = PeerName::from_value(name).and_then(|name| self.by_name(&name)) {
            return Some(peer);
        }
        let text = name.as_str()?;
        self.by_address(text)
            .or_else(|| self.by_address(&normalise_address(text)))
    }

    /// All workers in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &WorkerPeer> {
        self.order.iter().filter_map(|id| self.peers.get(id))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

/// `tcp://` is put before an address without scheme, and `localhost` is the loopback address.
pub fn normalise_address(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("tcp", address));
    match rest.strip_prefix("localhost:") {
        Some(port) => format!("{scheme}://127.0.0.1:{port}"),
        None => format!("{scheme}://{rest}"),
    }
}

/// Host part of an address.
pub fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Text as msgpack.
pub fn wire_str(text: &str) -> Bytes {
    let mut w = Writer::new();
    w.str(text);
    w.into_document()
}

/// Whether a version of distributed (`2024.12.1`) expects `duration` in `compute-task`.
pub fn takes_duration(version: Option<&str>) -> bool {
    let Some(version) = version else { return false };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(year), Some(month)) => (year, month) < (2025, 1),
        _ => false,
    }
}

/// The version of distributed in a `versions` map.
pub fn distributed_version(versions: &Value) -> Option<&str> {
    versions.field("packages")?.field("distributed")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_one_form() {
        assert_eq!(normalise_address("localhost:1"), "tcp://127.0.0.1:1");
        assert_eq!(normalise_address("tls://10.0.0.1:2"), "tls://10.0.0.1:2");
        assert_eq!(host_of("tcp://10.0.0.1:2"), "10.0.0.1");
        assert_eq!(host_of("tcp://[::1]:2"), "::1");
    }

    #[test]
    fn duration_is_for_workers_up_to_2024() {
        assert!(takes_duration(Some("2024.12.1")));
        assert!(!takes_duration(Some("2025.2.0")));
        assert!(!takes_duration(Some("2026.8.0+3.gabc")));
        assert!(!takes_duration(None));
    }
}
