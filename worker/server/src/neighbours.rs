//! The workers of this process, by address: what one asks of another needs no socket, and their values share memory.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::input::CurrentInputs;

/// All workers of this process that listen. Copies are the same table.
#[derive(Clone, Default)]
pub(crate) struct Neighbours(Arc<RwLock<HashMap<Arc<str>, CurrentInputs>>>);

impl Neighbours {
    /// Where the worker of this address is asked, if it runs here.
    pub(crate) fn find(&self, address: &str) -> Option<CurrentInputs> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.get(address).cloned()
    }

    /// Make a worker known until the value that this gives is dropped.
    pub(crate) fn join(&self, address: Arc<str>, inputs: CurrentInputs) -> Membership {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(address.clone(), inputs);
        Membership {
            neighbours: self.clone(),
            address,
        }
    }

    /// How many there are, at least one.
    pub(crate) fn count(&self) -> usize {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.len().max(1)
    }
}

/// A worker's place in the table.
pub(crate) struct Membership {
    neighbours: Neighbours,
    address: Arc<str>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut table = self
            .neighbours
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        table.remove(&self.address);
    }
}
