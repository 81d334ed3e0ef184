//! What requests to the scheduler's extensions carry: data sets, variables, queues, events, semaphores, locks, shuffles.

use crate::wire::{Omit, Seconds};
use crate::{Key, Value};

wire_struct! {
    /// Store data sets under names.
    pub struct PublishPut {
        /// The names; one `name` from clients before 2026.8.
        names: Omit<Vec<Value>>,
        /// Older form of `names`.
        name: Omit<Value>,
        /// Keys of each data set.
        keys: Value,
        /// The pickled collections.
        data: Value,
        /// Replace what is there.
        r#override as "override": bool = false,
        /// The client.
        client: Omit<String>,
        /// Names the flush marker to wait for.
        uid: Omit<String>,
    }
    /// Data sets by name.
    pub struct PublishNames {
        /// The names.
        names: Omit<Vec<Value>>,
        /// Older form of `names`.
        name: Omit<Value>,
        /// The client.
        client: Omit<String>,
        /// Names the flush marker to wait for.
        uid: Omit<String>,
    }
    /// Set a variable.
    pub struct VariableSet {
        /// Its name.
        name: Key,
        /// A future's key.
        key: Option<Key>,
        /// Or a plain value.
        data: Value,
        /// The client.
        client: Omit<String>,
        /// Time to wait for the key to be known.
        timeout: Seconds,
    }
    /// Read a variable.
    pub struct VariableGet {
        /// Its name.
        name: Key,
        /// The client.
        client: Omit<String>,
        /// Time to wait for it to be set.
        timeout: Seconds,
    }
    /// Make a queue.
    pub struct QueueCreate {
        /// Its name.
        name: Key,
        /// Longest length, 0 for none.
        maxsize: u64 = 0,
    }
    /// Append to a queue.
    pub struct QueuePut {
        /// Its name.
        name: Key,
        /// A future's key.
        key: Option<Key>,
        /// Or a plain value.
        data: Value,
        /// Time to wait for room.
        timeout: Seconds,
    }
    /// Take from a queue.
    pub struct QueueGet {
        /// Its name.
        name: Key,
        /// Time to wait for an item.
        timeout: Seconds,
        /// False for one, true for all there are, or a number.
        batch: Value,
    }
    /// Wait for an event.
    pub struct EventWait {
        /// Its name.
        name: Key,
        /// Time to wait.
        timeout: Seconds,
    }
    /// Make a semaphore.
    pub struct SemaphoreRegister {
        /// Its name.
        name: Value,
        /// Leases at once.
        max_leases: u64,
        /// Time after which a lease that is not refreshed ends.
        lease_timeout: Seconds = Seconds(Some(30.0)),
    }
    /// Take a lease.
    pub struct SemaphoreAcquire {
        /// The semaphore.
        name: Value,
        /// Time to wait.
        timeout: Seconds,
        /// Names the lease.
        lease_id: Value,
    }
    /// Give a lease back.
    pub struct SemaphoreRelease {
        /// The semaphore.
        name: Value,
        /// The lease.
        lease_id: Value,
    }
    /// A semaphore by name.
    pub struct SemaphoreName {
        /// The name.
        name: Value,
    }
    /// Keep leases alive.
    pub struct SemaphoreRefresh {
        /// The semaphore.
        name: Value,
        /// The leases.
        lease_ids: Vec<Value>,
    }
    /// Take several locks at once.
    pub struct MultiLockAcquire {
        /// Their names.
        locks: Vec<Value>,
        /// Names the taker.
        id: Value,
        /// Time to wait.
        timeout: Seconds,
        /// How many of them suffice.
        num_locks: Omit<u64>,
    }
    /// Give locks back.
    pub struct MultiLockRelease {
        /// The taker.
        id: Value,
    }
    /// Join a shuffle, begin it if it is new.
    pub struct ShuffleGetOrCreate {
        /// The shuffle.
        shuffle_id: String,
        /// The transfer task that asks.
        key: Key,
        /// Its worker.
        worker: String,
    }
    /// Join a shuffle that exists.
    pub struct ShuffleGet {
        /// The shuffle.
        id: String,
        /// The worker.
        worker: String,
    }
    /// All input of a shuffle has been sent.
    pub struct ShuffleBarrier {
        /// The shuffle.
        id: String,
        /// Its attempt.
        run_id: i64,
        /// Whether all transfers belong to this attempt.
        consistent: bool = true,
    }
    /// Tie an output task to the worker that has its partition.
    pub struct ShuffleRestrictTask {
        /// The shuffle.
        id: String,
        /// Its attempt.
        run_id: i64,
        /// The output task.
        key: Key,
        /// The worker.
        worker: String,
    }
}
