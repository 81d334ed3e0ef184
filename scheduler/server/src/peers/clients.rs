//! The clients that are connected, and what wants keys like one.

use std::sync::Arc;

use oxidask_protocol::Value;
use oxidask_scheduler_core::ClientId;
use rustc_hash::FxHashMap;

use super::Held;
use crate::conn::outbox::Outbox;

/// A client, or a variable, queue, data set … that holds keys.
#[derive(Debug)]
pub struct ClientPeer {
    /// Its number in the core.
    pub id: ClientId,
    /// Its name, `Client-…`.
    pub name: Arc<str>,
    /// Its stream; `None` for what only holds keys.
    pub outbox: Option<Arc<Outbox>>,
    /// Versions of its packages.
    pub versions: Value,
    /// Last sign of life. Unit: Unix seconds.
    pub last_seen: f64,
    /// What it is not told yet because of graphs that it sent before.
    pub held: Held,
}

/// All clients, found by number or name.
#[derive(Debug, Default)]
pub struct Clients {
    peers: FxHashMap<ClientId, ClientPeer>,
    by_name: FxHashMap<Arc<str>, ClientId>,
    next: u32,
    /// Clients with a stream taken in and taken out since the start.
    pub totals: (u64, u64),
}

impl Clients {
    /// A number for the next client.
    pub fn next_id(&mut self) -> ClientId {
        self.next += 1;
        ClientId(self.next)
    }

    /// Takes a client in. A later one takes the name over.
    pub fn insert(&mut self, peer: ClientPeer) {
        self.totals.0 += u64::from(peer.outbox.is_some());
        self.by_name.insert(Arc::clone(&peer.name), peer.id);
        self.peers.insert(peer.id, peer);
    }

    /// Takes a client out.
    pub fn remove(&mut self, id: ClientId) -> Option<ClientPeer> {
        let peer = self.peers.remove(&id)?;
        self.totals.1 += u64::from(peer.outbox.is_some());
        if self.by_name.get(&peer.name) == Some(&id) {
            self.by_name.remove(&peer.name);
        }
        Some(peer)
    }

    /// A client by its number.
    pub fn get(&self, id: ClientId) -> Option<&ClientPeer> {
        self.peers.get(&id)
    }

    /// A client by its number.
    pub fn get_mut(&mut self, id: ClientId) -> Option<&mut ClientPeer> {
        self.peers.get_mut(&id)
    }

    /// A client by its name.
    pub fn by_name(&self, name: &str) -> Option<&ClientPeer> {
        self.by_name.get(name).and_then(|id| self.peers.get(id))
    }

    /// All clients, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &ClientPeer> {
        self.peers.values()
    }

    /// All clients, in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut ClientPeer> {
        self.peers.values_mut()
    }

    /// Clients that have a stream.
    pub fn connected(&self) -> impl Iterator<Item = (&ClientPeer, &Arc<Outbox>)> {
        self.peers
            .values()
            .filter_map(|peer| Some((peer, peer.outbox.as_ref()?)))
    }
}
