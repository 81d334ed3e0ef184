//! The executors behind this worker's address: who runs and holds what.
//!
//! The first one is what a stock worker's only process is: it answers the operations of plugins and of
//! `Client.run`, and actors live there. A worker has that one alone, unless it was told otherwise (`--executors`).

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use indexmap::IndexMap;
use oxidask_protocol::{Key, message::worker::StartStop};

use super::{Driver, leases::Leases, placement};
use crate::{
    executor::{Handle, wire::Run},
    store::Entry,
};

/// A run handed to an executor.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) key: Key,
    /// When it was handed over. Unix seconds.
    pub(super) since: f64,
    /// It gave up its slot, so it has surely started.
    pub(super) seceded: bool,
    pub(super) actor: bool,
    pub(super) span: Option<Arc<str>>,
    /// How its dependencies came from peers.
    pub(super) transfers: Vec<StartStop>,
}

/// One executor, or the place of one that is being started.
#[derive(Debug, Default)]
pub(super) struct Executor {
    /// None before it has started and after it has died.
    pub(super) handle: Option<Handle>,
    /// Tells what it says from what one before it has said. No two executors have had the same.
    pub(super) generation: u64,
    /// Tasks at once.
    pub(super) threads: usize,
    /// Plugins that it has not set up yet: no task runs before.
    pub(super) plugins_pending: HashSet<String>,
    /// Tasks for the next message to it.
    pub(super) runs: Vec<Run>,
    /// Values that it is to forget, with the next message.
    pub(super) drops: Vec<u64>,
    /// By number of the run, in the order in which they were handed over.
    pub(super) running: IndexMap<u64, Running>,
    /// Segments that it maps.
    pub(super) leases: Leases,
    /// It is being killed to be replaced.
    pub(super) replaced: bool,
    /// Why it was killed, for the error of its tasks.
    pub(super) kill_reason: Option<String>,
    /// It has something to say with the next heartbeat: extensions, or what tasks measured.
    pub(super) has_news: bool,
}

impl Executor {
    pub(super) fn is_ready(&self) -> bool {
        self.handle.is_some() && self.plugins_pending.is_empty()
    }

    /// Tasks that it has and that count as a slot.
    pub(super) fn busy(&self) -> usize {
        // Few have seceded, and few wait: counting is quicker than keeping a count in step.
        self.running.values().filter(|run| !run.seceded).count()
    }
}

impl Driver {
    pub(super) fn new_executors(nthreads: usize, count: usize) -> Vec<Executor> {
        let place = |number| Executor {
            threads: placement::threads(nthreads, count, number),
            ..Executor::default()
        };
        (0..count).map(place).collect()
    }

    /// The executor of this generation, if it lives.
    pub(super) fn executor_of(&self, generation: u64) -> Option<usize> {
        self.executors
            .iter()
            .position(|executor| executor.generation == generation && executor.handle.is_some())
    }

    /// How to send to an executor; none if it does not live.
    pub(super) fn handle(&self, executor: usize) -> Option<&Handle> {
        self.executors[executor].handle.as_ref()
    }

    /// How to send to each executor that lives.
    pub(super) fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.executors
            .iter()
            .filter_map(|executor| executor.handle.as_ref())
    }

    /// Executors have no use for a value any more.
    pub(super) fn drop_from_executors(&mut self, entry: &Entry) {
        for executor in entry.holders.iter() {
            self.executors[executor].drops.push(entry.id);
        }
    }

    /// All runs that executors have, with their keys and since when.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Running> {
        self.executors
            .iter()
            .flat_map(|executor| executor.running.values())
    }
}

/// Prefixes of keys whose tasks need the first executor, as one of them found out.
pub(super) type PrimaryPrefixes = HashSet<String>;

/// Tasks that wait for values which another executor has, by number.
pub(super) type AwaitingInputs = HashMap<u64, super::Start>;
