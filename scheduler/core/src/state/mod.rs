//! What the scheduler knows: tasks, workers, clients, groups.

pub(crate) mod group;
pub(crate) mod set;
pub(crate) mod span;
pub(crate) mod task;
pub(crate) mod worker;

use std::sync::Arc;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

use crate::ids::TaskId;

/// A client, or what wants keys like one.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: Arc<str>,
    /// Keys that it wants. The reverse of `Task::who_wants`.
    pub(crate) wants: IndexSet<TaskId, FxBuildHasher>,
}
