//! Another worker: what it holds and what we want of it.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::{
    event::Address,
    ids::{PeerId, TaskId},
    priority::Priority,
    state::TaskSet,
    time::Time,
};

/// A running transfer. At most one per peer.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Tasks asked for.
    pub(crate) tasks: Vec<TaskId>,
    /// Sum of the sizes announced.
    pub(crate) nbytes: u64,
}

/// Another worker.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: Address,
    /// It runs on the host of this worker, judged by the addresses.
    pub(crate) local: bool,
    /// Tasks whose values it holds; the inverse of `Task::who_has`.
    pub(crate) has_what: TaskSet,
    /// Its tasks in state fetch, by priority. All and only those.
    pub(crate) needed: BTreeSet<(Priority, TaskId)>,
    pub(crate) in_flight: Option<Flight>,
    /// It said it was busy; not asked before this time.
    pub(crate) busy_until: Option<Time>,
}

/// All peers ever named, by address.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_address: HashMap<Address, PeerId>,
    peers: Vec<Peer>,
    own_address: Option<Address>,
}

impl Peers {
    pub(crate) fn set_own_address(&mut self, address: Address) {
        for peer in &mut self.peers {
            peer.local = host(&peer.address) == host(&address);
        }
        self.own_address = Some(address);
    }

    /// Is this the address of this worker?
    pub(crate) fn is_own(&self, address: &str) -> bool {
        self.own_address.as_deref() == Some(address)
    }

    pub(crate) fn intern(&mut self, address: &Address) -> PeerId {
        if let Some(id) = self.by_address.get(address) {
            return *id;
        }
        let id =
            PeerId(u32::try_from(self.peers.len()).expect("fewer than 2^32 peers fit in memory"));
        let local = self
            .own_address
            .as_deref()
            .is_some_and(|own| host(own) == host(address));
        self.peers.push(Peer {
            address: address.clone(),
            local,
            has_what: TaskSet::default(),
            needed: BTreeSet::new(),
            in_flight: None,
            busy_until: None,
        });
        self.by_address.insert(address.clone(), id);
        id
    }

    pub(crate) fn find(&self, address: &str) -> Option<PeerId> {
        self.by_address.get(address).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.peers
            .iter()
            .enumerate()
            .map(|(index, peer)| (PeerId(index as u32), peer))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.iter_mut()
    }
}

impl std::ops::Index<PeerId> for Peers {
    type Output = Peer;

    fn index(&self, id: PeerId) -> &Peer {
        &self.peers[id.0 as usize]
    }
}

impl std::ops::IndexMut<PeerId> for Peers {
    fn index_mut(&mut self, id: PeerId) -> &mut Peer {
        &mut self.peers[id.0 as usize]
    }
}

/// The host of `scheme://host:port`.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.rsplit_once(':').map_or(rest, |(host, _)| host)
}
