//! What clients coordinate through the scheduler: locks, queues, variables, events, data sets, topics, metadata.
//!
//! Every extension is a state machine without clock and socket. A request comes with an opaque waiter `W` (whoever
//! is owed the reply); what follows is collected in an [`Output`]: replies, at once or later, and [`Effect`]s on
//! keys and clients. Waits end at deadlines that [`Extensions::next_deadline`] names and [`Extensions::expire`]
//! carries out, so nothing hangs.
//!
//! Semantics are those of distributed 2026.8: `semaphore.py`, `event.py`, `queues.py`, `variable.py`,
//! `multi_lock.py`, `publish.py`, `broker.py`, `diagnostics/task_stream.py`.

mod dispatch;
mod event;
mod item;
mod metadata;
mod multi_lock;
mod publish;
mod queue;
mod raised;
mod semaphore;
mod task_stream;
#[cfg(test)]
mod tests;
mod topics;
mod variable;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::Time;
use oxidask_scheduler_core::event::TaskError;

pub use dispatch::{Clocks, topics};
pub use event::Events;
pub use metadata::Metadata;
pub use multi_lock::MultiLocks;
pub use publish::{Call, Datasets, NewDataset};
pub use queue::Queues;
pub use raised::Raised;
pub use semaphore::{SemaphoreView, Semaphores};
pub use task_stream::{Selection, TaskStream};
pub use topics::Topics;
pub use variable::Variables;

/// What extensions may ask about the scheduler.
pub trait View {
    /// The state of a task, and its error if it erred; `None` for unknown keys.
    fn task(&self, key: &Key) -> Option<TaskReport>;
    /// Whether a client or worker of this name is connected.
    fn is_connected(&self, name: &str) -> bool;
}

/// A task as far as extensions report it.
#[derive(Clone, Debug)]
pub struct TaskReport {
    /// Dask's word for its state.
    pub state: &'static str,
    /// The error of the task that is to blame, if it erred.
    pub error: Option<Arc<TaskError>>,
}

/// A reply: a value, or an exception that the caller raises.
pub type Answer = Result<Value, Raised>;

/// What is to be done besides replying.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A client, often a pseudo client such as `queue-x`, wants keys. It is created if it is unknown.
    DesireKeys {
        /// The client.
        client: String,
        /// The keys.
        keys: Vec<Key>,
    },
    /// A client no longer wants keys.
    ReleaseKeys {
        /// The client.
        client: String,
        /// The keys.
        keys: Vec<Key>,
    },
    /// A pseudo client is gone, with its interest in keys.
    RemoveClient {
        /// The client.
        client: String,
    },
    /// Send an event of a topic to a client that subscribed to it.
    Event {
        /// The client.
        client: String,
        /// The topic.
        topic: String,
        /// Unix time of the event.
        at: f64,
        /// What happened.
        message: Value,
    },
}

/// What came out of a stimulus.
#[derive(Debug)]
pub struct Output<W> {
    /// Replies, in order.
    pub replies: Vec<(W, Answer)>,
    /// Effects, in order; to be carried out before the replies are sent.
    pub effects: Vec<Effect>,
}

impl<W> Default for Output<W> {
    fn default() -> Self {
        Self {
            replies: Vec::new(),
            effects: Vec::new(),
        }
    }
}

impl<W> Output<W> {
    fn reply(&mut self, waiter: W, value: impl Into<Value>) {
        self.replies.push((waiter, Ok(value.into())));
    }

    fn raise(&mut self, waiter: W, raised: Raised) {
        self.replies.push((waiter, Err(raised)));
    }

    fn desire(&mut self, client: impl Into<String>, keys: Vec<Key>) {
        let client = client.into();
        self.effects.push(Effect::DesireKeys { client, keys });
    }

    fn release(&mut self, client: impl Into<String>, keys: Vec<Key>) {
        if !keys.is_empty() {
            let client = client.into();
            self.effects.push(Effect::ReleaseKeys { client, keys });
        }
    }
}

/// Limits and intervals of the extensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// How often leases are looked through for stale ones
    /// (`distributed.scheduler.locks.lease-validation-interval`).
    pub lease_validation_interval: Duration,
    /// Events kept of each topic (`distributed.admin.low-level-log-length`).
    pub events_per_topic: usize,
    /// Time after which the events of a client or worker that left are dropped
    /// (`distributed.scheduler.events-cleanup-delay`).
    pub events_cleanup_delay: Duration,
    /// Finished tasks kept for the task stream.
    pub task_stream_length: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease_validation_interval: Duration::from_secs(10),
            events_per_topic: 1000,
            events_cleanup_delay: Duration::from_secs(3600),
            task_stream_length: 100_000,
        }
    }
}

/// All extensions of a scheduler.
#[derive(Debug)]
pub struct Extensions<W> {
    /// Semaphores, and locks, which are semaphores of one lease.
    pub semaphores: Semaphores<W>,
    /// Events.
    pub events: Events<W>,
    /// Queues.
    pub queues: Queues<W>,
    /// Variables.
    pub variables: Variables<W>,
    /// Sets of locks taken at once.
    pub multi_locks: MultiLocks<W>,
    /// Published data sets.
    pub datasets: Datasets<W>,
    /// The event log by topic.
    pub topics: Topics,
    /// The metadata tree.
    pub metadata: Metadata,
    /// Tasks that finished.
    pub task_stream: TaskStream,
}

impl<W: PartialEq> Extensions<W> {
    /// Nothing taken, nothing stored.
    pub fn new(limits: &Limits) -> Self {
        Self {
            semaphores: Semaphores::new(limits.lease_validation_interval),
            events: Events::default(),
            queues: Queues::default(),
            variables: Variables::default(),
            multi_locks: MultiLocks::default(),
            datasets: Datasets::default(),
            topics: Topics::new(limits.events_per_topic, limits.events_cleanup_delay),
            metadata: Metadata::default(),
            task_stream: TaskStream::new(limits.task_stream_length),
        }
    }

    /// When [`expire`](Self::expire) is due.
    pub fn next_deadline(&self) -> Option<Time> {
        [
            self.semaphores.next_deadline(),
            self.events.next_deadline(),
            self.queues.next_deadline(),
            self.variables.next_deadline(),
            self.multi_locks.next_deadline(),
            self.datasets.next_deadline(),
            self.topics.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ends the waits and leases whose time is over.
    pub fn expire(&mut self, now: Time, view: &impl View, out: &mut Output<W>) {
        self.semaphores.expire(now, out);
        self.events.expire(now, out);
        self.queues.expire(now, view, out);
        self.variables.expire(now, out);
        self.multi_locks.expire(now, out);
        self.datasets.expire(now, view, out);
        self.topics.expire(now, view);
    }

    /// Whether somebody waits for a key to become known, so that [`keys_changed`](Self::keys_changed) is worth a call.
    pub fn awaits_keys(&self) -> bool {
        self.queues.awaits_keys() || self.variables.awaits_keys()
    }

    /// Looks again at the keys that are waited for; to be called after tasks were created.
    pub fn keys_changed(&mut self, now: Time, view: &impl View, out: &mut Output<W>) {
        self.queues.keys_changed(now, view, out);
        self.variables.keys_changed(view, out);
    }

    /// The connection that a reply would have gone to is closed: whatever it waited for goes to the next.
    pub fn cancel(&mut self, waiter: &W, view: &impl View, out: &mut Output<W>) {
        self.semaphores.cancel(waiter);
        self.events.cancel(waiter);
        self.queues.cancel(waiter, view, out);
        self.variables.cancel(waiter);
        self.multi_locks.cancel(waiter, out);
        self.datasets.cancel(waiter);
    }

    /// A client left.
    pub fn client_left(&mut self, now: Time, client: &str, out: &mut Output<W>) {
        self.variables.client_left(client, out);
        self.datasets.client_left(client, out);
        self.topics.left(now, client);
    }

    /// A worker left.
    pub fn worker_left(&mut self, now: Time, address: &str) {
        self.topics.left(now, address);
    }
}
