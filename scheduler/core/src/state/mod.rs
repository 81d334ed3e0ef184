//! What the scheduler knows: tasks, workers, clients, groups.

pub(crate) mod group;
pub(crate) mod queue;
pub(crate) mod set;
pub(crate) mod span;
pub(crate) mod task;
pub(crate) mod worker;

use std::hash::Hash;
use std::sync::Arc;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use crate::ids::TaskId;

/// Elements for which room is kept in a set that gives memory back.
const KEPT: usize = 256;

/// Takes an element out, and gives memory back when little of it is used any more.
pub(crate) fn take_out<T: Eq + Hash>(set: &mut IndexSet<T, FxBuildHasher>, item: &T) {
    set.swap_remove(item);
    if set.capacity() > KEPT && set.len() <= set.capacity() / 8 {
        set.shrink_to(2 * set.len());
    }
}

/// A client, or what wants keys like one.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: Arc<str>,
    /// Keys that it wants. The reverse of `Task::who_wants`.
    pub(crate) wants: IndexSet<TaskId, FxBuildHasher>,
}
