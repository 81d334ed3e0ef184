//! Semaphores with leases that end unless they are refreshed; a lock is a semaphore of one lease.

use std::time::Duration;

use indexmap::IndexMap;
use oxidask_protocol::Key;
use oxidask_protocol::wire::Seconds;
use oxidask_scheduler_core::Time;
use rustc_hash::FxHashMap;
use tracing::{debug, error, warn};

use super::waiters::{Waiters, Waiting, deadline};
use super::{Output, Raised};

/// All semaphores.
#[derive(Debug)]
pub struct Semaphores<W> {
    semaphores: FxHashMap<Key, Semaphore>,
    /// Takers in line, with the id of the lease that they ask for, and since when.
    waiters: Waiters<(Key, Time), W>,
    validation_interval: Duration,
    /// When leases are looked through next; set while there is a lease.
    next_validation: Option<Time>,
}

/// A semaphore as metrics show it.
#[derive(Clone, Debug, PartialEq)]
pub struct SemaphoreView {
    /// Its name.
    pub name: Key,
    /// Leases at once.
    pub max_leases: u64,
    /// Leases held.
    pub active: usize,
    /// Takers in line.
    pub pending: usize,
    /// Leases given.
    pub acquired_total: u64,
    /// Leases given back or timed out.
    pub released_total: u64,
    /// Mean wait for a lease, new waits counting half. Unit: seconds.
    pub average_wait: f64,
}

#[derive(Debug)]
struct Semaphore {
    max_leases: u64,
    /// `None`: leases never end by themselves.
    lease_timeout: Option<Duration>,
    /// Lease id → when it was last taken or refreshed.
    leases: IndexMap<Key, Time>,
    acquired_total: u64,
    released_total: u64,
    /// Mean wait for a lease, new waits counting half. Unit: seconds.
    average_wait: f64,
}

impl<W: PartialEq> Semaphores<W> {
    pub(super) fn new(validation_interval: Duration) -> Self {
        Self {
            semaphores: FxHashMap::default(),
            waiters: Waiters::default(),
            validation_interval: validation_interval.max(Duration::from_millis(1)),
            next_validation: None,
        }
    }

    /// Makes a semaphore, or checks that it is as it was made.
    ///
    /// # Errors
    /// `ValueError` if it exists with another number of leases.
    pub fn register(
        &mut self,
        name: Key,
        max_leases: u64,
        lease_timeout: Seconds,
    ) -> Result<(), Raised> {
        let lease_timeout = lease_timeout
            .0
            .filter(|seconds| *seconds > 0.0)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let known = self.semaphores.entry(name).or_insert(Semaphore {
            max_leases,
            lease_timeout,
            leases: IndexMap::new(),
            acquired_total: 0,
            released_total: 0,
            average_wait: 0.0,
        });
        if known.max_leases != max_leases {
            return Err(Raised::builtin(
                "ValueError",
                format!(
                    "Inconsistent max leases: {max_leases}, expected: {}",
                    known.max_leases
                ),
            ));
        }
        Ok(())
    }

    /// Takes a lease: `True` at once or when one becomes free, `False` when `timeout` is over.
    ///
    /// Asking again for a lease that is held gives it again, so a request may be repeated.
    pub fn acquire(
        &mut self,
        now: Time,
        name: Key,
        lease: Key,
        timeout: Seconds,
        waiter: W,
        out: &mut Output<W>,
    ) {
        if !self.semaphores.contains_key(&name) {
            out.raise(
                waiter,
                Raised::builtin(
                    "RuntimeError",
                    format!("Semaphore or Lock `{name}` not known."),
                ),
            );
            return;
        }
        if self.take(now, &name, &lease) {
            self.waited(&name, 0.0);
            out.reply(waiter, true);
            return;
        }
        let deadline = deadline(now, timeout);
        if deadline.is_some_and(|at| at <= now) {
            self.waited(&name, 0.0);
            out.reply(waiter, false);
            return;
        }
        self.waiters.push(Waiting {
            name,
            data: (lease, now),
            waiter,
            deadline,
        });
    }

    /// Gives a lease back. Unknown ones are only logged: they may have timed out before.
    pub fn release(&mut self, now: Time, name: &Key, lease: &Key, out: &mut Output<W>) {
        let held = self.semaphores.get_mut(name).and_then(|semaphore| {
            semaphore.leases.shift_remove(lease)?;
            Some(semaphore)
        });
        if let Some(semaphore) = held {
            semaphore.released_total += 1;
            self.serve(now, name, out);
        } else {
            warn!(name = %name, lease = %lease, "release of a lock or semaphore that is not held; it may have timed out before");
        }
    }

    /// Tells that the holders of leases are alive.
    pub fn refresh(&mut self, now: Time, name: &Key, leases: Vec<Key>) {
        let Some(semaphore) = self.semaphores.get_mut(name) else {
            return;
        };
        for lease in leases {
            if semaphore.leases.insert(lease.clone(), now).is_none() {
                error!(name = %name, lease = %lease, "refresh of an unknown lease: it timed out before, so the semaphore may now be overbooked");
            }
        }
        self.next_validation
            .get_or_insert(now + self.validation_interval);
    }

    /// Leases that are held.
    pub fn value(&self, name: &Key) -> usize {
        self.semaphores
            .get(name)
            .map_or(0, |semaphore| semaphore.leases.len())
    }

    /// Forgets a semaphore whatever its holders do. Those in line get a `RuntimeError`.
    pub fn close(&mut self, name: &Key, out: &mut Output<W>) {
        let Some(semaphore) = self.semaphores.remove(name) else {
            return;
        };
        if !semaphore.leases.is_empty() {
            warn!(name = %name, leases = semaphore.leases.len(), "semaphore closed with unreleased leases");
        }
        while let Some(waiting) = self.waiters.pop(name) {
            out.raise(
                waiting.waiter,
                Raised::builtin(
                    "RuntimeError",
                    format!("Semaphore or Lock `{name}` was closed."),
                ),
            );
        }
    }

    /// All semaphores, sorted by name.
    pub fn view(&self) -> Vec<SemaphoreView> {
        let mut views: Vec<SemaphoreView> = self
            .semaphores
            .iter()
            .map(|(name, semaphore)| SemaphoreView {
                name: name.clone(),
                max_leases: semaphore.max_leases,
                active: semaphore.leases.len(),
                pending: self.waiters.len(name),
                acquired_total: semaphore.acquired_total,
                released_total: semaphore.released_total,
                average_wait: semaphore.average_wait,
            })
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        [self.waiters.next_deadline(), self.next_validation]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn expire(&mut self, now: Time, out: &mut Output<W>) {
        if self.next_validation.is_some_and(|at| at <= now) {
            self.next_validation = None;
            self.end_stale_leases(now, out);
            let needed = self
                .semaphores
                .values()
                .any(|s| s.lease_timeout.is_some() && !s.leases.is_empty());
            if needed {
                self.next_validation
                    .get_or_insert(now + self.validation_interval);
            }
        }
        while let Some(waiting) = self.waiters.pop_expired(now) {
            self.waited(&waiting.name, (now - waiting.data.1).as_secs_f64());
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

    fn end_stale_leases(&mut self, now: Time, out: &mut Output<W>) {
        let mut freed = Vec::new();
        for (name, semaphore) in &mut self.semaphores {
            let Some(timeout) = semaphore.lease_timeout else {
                continue;
            };
            let before = semaphore.leases.len();
            semaphore.leases.retain(|_, seen| now - *seen <= timeout);
            let ended = before - semaphore.leases.len();
            if ended > 0 {
                debug!(name = %name, ended, "leases timed out");
                semaphore.released_total += ended as u64;
                freed.push(name.clone());
            }
        }
        freed.sort_unstable();
        for name in freed {
            self.serve(now, &name, out);
        }
    }

    fn take(&mut self, now: Time, name: &Key, lease: &Key) -> bool {
        let Some(semaphore) = self.semaphores.get_mut(name) else {
            return false;
        };
        let free = (semaphore.leases.len() as u64) < semaphore.max_leases;
        if !free && !semaphore.leases.contains_key(lease) {
            return false;
        }
        semaphore.leases.insert(lease.clone(), now);
        semaphore.acquired_total += 1;
        if semaphore.lease_timeout.is_some() {
            self.next_validation
                .get_or_insert(now + self.validation_interval);
        }
        true
    }

    /// Gives free leases to those in line.
    fn serve(&mut self, now: Time, name: &Key, out: &mut Output<W>) {
        while let Some(first) = self.waiters.first_mut(name) {
            let (lease, since) = first.data.clone();
            if !self.take(now, name, &lease) {
                return;
            }
            self.waited(name, (now - since).as_secs_f64());
            if let Some(waiting) = self.waiters.pop(name) {
                out.reply(waiting.waiter, true);
            }
        }
    }

    /// A taker was served or gave up after so many seconds.
    fn waited(&mut self, name: &Key, seconds: f64) {
        if let Some(semaphore) = self.semaphores.get_mut(name) {
            semaphore.average_wait = (semaphore.average_wait + seconds) / 2.0;
        }
    }
}
