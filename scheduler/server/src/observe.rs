//! What looks on at events without changing anything: those who watch workers come and go.

use std::sync::Arc;

use oxidask_protocol::Value;
use oxidask_protocol::wire::Encode;

use crate::conn::outbox::Outbox;
use crate::task_metadata::TaskMetadata;

/// All that looks on.
#[derive(Debug, Default)]
pub struct Observers {
    /// Recordings of what tasks say about themselves.
    pub task_metadata: TaskMetadata,
    /// Those who subscribed to worker status.
    pub watchers: Vec<Arc<Outbox>>,
}

impl Observers {
    /// Tells those who watch that a worker came.
    pub fn worker_added(&self, address: &str, identity: &Value) {
        for watcher in &self.watchers {
            watcher.send(|w| {
                w.array(2);
                w.str("add");
                w.map(1);
                w.str("workers");
                w.map(1);
                w.str(address);
                identity.encode(w);
            });
        }
    }

    /// Tells those who watch that a worker went.
    pub fn worker_removed(&self, address: &str) {
        for watcher in &self.watchers {
            watcher.send(|w| {
                w.array(2);
                w.str("remove");
                w.str(address);
            });
        }
    }
}
