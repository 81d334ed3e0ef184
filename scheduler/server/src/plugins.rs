//! Pickled plugins that workers and nannies get when they come.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

/// What new workers and nannies are to run, in the order of registration.
#[derive(Debug)]
pub struct Plugins {
    /// For workers.
    pub worker: PluginList,
    /// For nannies.
    pub nanny: PluginList,
    /// Addresses of nannies that got their plugins and whose worker is not up yet.
    pub starting_nannies: Vec<String>,
    /// Told when one of them is done.
    pub nanny_started: Arc<Notify>,
}

/// Pickles by name.
#[derive(Clone, Debug, Default)]
pub struct PluginList(Vec<(String, Bytes)>);

/// `ShuffleWorkerPlugin()` of distributed, as a pickle of protocol 2 with the call at its end: workers of all
/// supported versions exchange the partitions of P2P shuffles through it.
const SHUFFLE_PLUGIN: &[u8] = b"cdistributed.shuffle._worker_plugin\nShuffleWorkerPlugin\n)\x81.";

impl Default for Plugins {
    fn default() -> Self {
        Self {
            worker: PluginList(vec![(
                "shuffle".to_owned(),
                Bytes::from_static(SHUFFLE_PLUGIN),
            )]),
            nanny: PluginList::default(),
            starting_nannies: Vec::new(),
            nanny_started: Arc::default(),
        }
    }
}

impl PluginList {
    /// Whether there is one of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// Puts one in, replacing that of the same name.
    pub fn set(&mut self, name: &str, plugin: Bytes) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = plugin,
            None => self.0.push((name.to_owned(), plugin)),
        }
    }

    /// Takes one out; false if there was none.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(known, _)| known != name);
        self.0.len() < before
    }

    /// All of them.
    pub fn to_pairs(&self) -> Vec<(String, Bytes)> {
        self.0.clone()
    }
}
