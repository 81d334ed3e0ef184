//! Sets of locks taken at once, so that two takers cannot block each other.

use std::collections::VecDeque;

use oxidask_protocol::Key;
use oxidask_protocol::wire::Seconds;
use oxidask_scheduler_core::Time;
use rustc_hash::FxHashMap;

use super::waiters::{Waiters, Waiting, deadline};
use super::{Output, Raised};

/// All multi-locks.
#[derive(Debug)]
pub struct MultiLocks<W> {
    /// Those who asked for each lock, in order; the first holds it. No list is empty.
    locks: FxHashMap<Key, VecDeque<Key>>,
    /// What each taker asked for and has not given back.
    requests: FxHashMap<Key, Request>,
    /// Takers that do not have enough locks yet, by their id.
    waiters: Waiters<(), W>,
}

#[derive(Debug)]
struct Request {
    /// Locks in whose list the taker stands, each once.
    locks: Vec<Key>,
    /// Locks that it still needs.
    left: u64,
}

impl<W> Default for MultiLocks<W> {
    fn default() -> Self {
        Self {
            locks: FxHashMap::default(),
            requests: FxHashMap::default(),
            waiters: Waiters::default(),
        }
    }
}

impl<W: PartialEq> MultiLocks<W> {
    /// Takes `num_locks` of `locks`, all if it is absent: `True`, or `False` when `timeout` is over.
    #[expect(
        clippy::too_many_arguments,
        reason = "the request's fields, and the three that every request has"
    )]
    pub fn acquire(
        &mut self,
        now: Time,
        locks: Vec<Key>,
        id: Key,
        num_locks: Option<u64>,
        timeout: Seconds,
        waiter: W,
        out: &mut Output<W>,
    ) {
        let mut distinct: Vec<Key> = Vec::with_capacity(locks.len());
        let mut seen = rustc_hash::FxHashSet::default();
        for lock in locks {
            if seen.insert(lock.clone()) {
                distinct.push(lock);
            }
        }
        let needed = num_locks.unwrap_or(distinct.len() as u64);
        if self.requests.contains_key(&id) {
            out.raise(
                waiter,
                Raised::builtin(
                    "AssertionError",
                    format!("multi-lock {id} is held or asked for already"),
                ),
            );
            return;
        }
        if needed == 0 || needed > distinct.len() as u64 {
            let text = format!("cannot take {needed} of {} locks", distinct.len());
            out.raise(waiter, Raised::builtin("AssertionError", text));
            return;
        }
        if self.request(distinct, &id, needed) {
            out.reply(waiter, true);
            return;
        }
        let deadline = deadline(now, timeout);
        if deadline.is_some_and(|at| at <= now) {
            self.withdraw(&id, out);
            out.reply(waiter, false);
            return;
        }
        self.waiters.push(Waiting {
            name: id,
            data: (),
            waiter,
            deadline,
        });
    }

    /// Gives all locks of a taker back.
    ///
    /// # Errors
    /// `KeyError` if it has none.
    pub fn release(&mut self, id: &Key, out: &mut Output<W>) -> Result<(), Raised> {
        if !self.requests.contains_key(id) {
            return Err(Raised::key_error(id.to_string()));
        }
        self.withdraw(id, out);
        while let Some(waiting) = self.waiters.pop(id) {
            out.reply(waiting.waiter, false);
        }
        Ok(())
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.waiters.next_deadline()
    }

    pub(super) fn expire(&mut self, now: Time, out: &mut Output<W>) {
        while let Some(waiting) = self.waiters.pop_expired(now) {
            self.withdraw(&waiting.name, out);
            out.reply(waiting.waiter, false);
        }
    }

    pub(super) fn cancel(&mut self, waiter: &W, out: &mut Output<W>) {
        while let Some(waiting) = self.waiters.take_if(|w| w.waiter == *waiter) {
            self.withdraw(&waiting.name, out);
        }
    }

    /// Joins the lists of the locks, the shortest first. True if that gave enough locks at once.
    fn request(&mut self, mut locks: Vec<Key>, id: &Key, needed: u64) -> bool {
        locks.sort_by_key(|lock| self.locks.get(lock).map_or(0, VecDeque::len));
        let mut left = needed;
        let mut joined = 0;
        for lock in &locks {
            let list = self.locks.entry(lock.clone()).or_default();
            list.push_back(id.clone());
            joined += 1;
            if list.len() == 1 {
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        locks.truncate(joined);
        self.requests.insert(id.clone(), Request { locks, left });
        left == 0
    }

    /// Leaves all lists. Those who are now first in enough of them go on.
    fn withdraw(&mut self, id: &Key, out: &mut Output<W>) {
        let Some(request) = self.requests.remove(id) else {
            return;
        };
        let mut ready = Vec::new();
        for lock in request.locks {
            let Some(list) = self.locks.get_mut(&lock) else {
                continue;
            };
            let held = list.front() == Some(id);
            list.retain(|other| other != id);
            let Some(first) = list.front().cloned() else {
                self.locks.remove(&lock);
                continue;
            };
            if held && let Some(next) = self.requests.get_mut(&first) {
                next.left = next.left.saturating_sub(1);
                if next.left == 0 {
                    ready.push(first);
                }
            }
        }
        for taker in ready {
            while let Some(waiting) = self.waiters.pop(&taker) {
                out.reply(waiting.waiter, true);
            }
        }
    }
}
