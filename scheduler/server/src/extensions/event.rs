//! Events: flags that clients set, clear and wait for.

use oxidask_protocol::Key;
use oxidask_protocol::wire::Seconds;
use oxidask_scheduler_core::Time;
use rustc_hash::FxHashSet;

use super::Output;
use super::waiters::{Waiters, Waiting, deadline};

/// All events. A name that is not set costs nothing.
#[derive(Debug)]
pub struct Events<W> {
    set: FxHashSet<Key>,
    /// Those who wait for an event that is not set.
    waiters: Waiters<(), W>,
}

impl<W> Default for Events<W> {
    fn default() -> Self {
        Self {
            set: FxHashSet::default(),
            waiters: Waiters::default(),
        }
    }
}

impl<W: PartialEq> Events<W> {
    /// Waits until the event is set: `True`, or `False` when `timeout` is over.
    pub fn wait(&mut self, now: Time, name: Key, timeout: Seconds, waiter: W, out: &mut Output<W>) {
        if self.set.contains(&name) {
            out.reply(waiter, true);
            return;
        }
        let deadline = deadline(now, timeout);
        if deadline.is_some_and(|at| at <= now) {
            out.reply(waiter, false);
            return;
        }
        self.waiters.push(Waiting {
            name,
            data: (),
            waiter,
            deadline,
        });
    }

    /// Sets the event: everybody who waits goes on.
    pub fn set(&mut self, name: Key, out: &mut Output<W>) {
        while let Some(waiting) = self.waiters.pop(&name) {
            out.reply(waiting.waiter, true);
        }
        self.set.insert(name);
    }

    /// Clears the event.
    pub fn clear(&mut self, name: &Key) {
        self.set.remove(name);
    }

    /// Whether the event is set.
    pub fn is_set(&self, name: &Key) -> bool {
        self.set.contains(name)
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.waiters.next_deadline()
    }

    pub(super) fn expire(&mut self, now: Time, out: &mut Output<W>) {
        while let Some(waiting) = self.waiters.pop_expired(now) {
            out.reply(waiting.waiter, false);
        }
    }

    pub(super) fn cancel(&mut self, waiter: &W) {
        while self
            .waiters
            .take_if(|waiting| waiting.waiter == *waiter)
            .is_some()
        {}
    }
}
