//! Pending replies in order of arrival, each with its deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use oxidask_protocol::Key;
use oxidask_protocol::wire::Seconds;
use oxidask_scheduler_core::Time;
use rustc_hash::FxHashMap;

/// Waits longer than this count as unlimited. Unit: seconds (about 30 years).
const FOREVER: f64 = 1e9;

/// When a wait of `timeout` that begins at `now` ends; `None` if it never does.
pub(super) fn deadline(now: Time, timeout: Seconds) -> Option<Time> {
    let seconds = timeout.0.filter(|s| *s < FOREVER)?;
    Some(now + std::time::Duration::from_secs_f64(seconds.max(0.0)))
}

/// One pending reply.
#[derive(Debug)]
pub(super) struct Waiting<T, W> {
    /// What it waits for.
    pub name: Key,
    /// What the extension remembers about it.
    pub data: T,
    /// To whom the reply goes.
    pub waiter: W,
    /// When it is given up.
    pub deadline: Option<Time>,
}

/// Pending replies, first come first served under each name.
#[derive(Debug)]
pub(super) struct Waiters<T, W> {
    next_id: u64,
    /// All pending replies; ids grow in the order of arrival.
    entries: BTreeMap<u64, Waiting<T, W>>,
    /// Ids under each name in order of arrival; no name without ids.
    by_name: FxHashMap<Key, VecDeque<u64>>,
    /// The entries that have a deadline.
    deadlines: BTreeSet<(Time, u64)>,
}

impl<T, W> Default for Waiters<T, W> {
    fn default() -> Self {
        Self {
            next_id: 0,
            entries: BTreeMap::new(),
            by_name: FxHashMap::default(),
            deadlines: BTreeSet::new(),
        }
    }
}

impl<T, W> Waiters<T, W> {
    /// Appends one to the end of its name's line.
    pub(super) fn push(&mut self, waiting: Waiting<T, W>) {
        let id = self.next_id;
        self.next_id += 1;
        self.by_name
            .entry(waiting.name.clone())
            .or_default()
            .push_back(id);
        if let Some(at) = waiting.deadline {
            self.deadlines.insert((at, id));
        }
        self.entries.insert(id, waiting);
    }

    /// The first in the line of a name.
    pub(super) fn first_mut(&mut self, name: &Key) -> Option<&mut Waiting<T, W>> {
        let id = self.by_name.get(name)?.front()?;
        self.entries.get_mut(id)
    }

    /// Takes the first in the line of a name.
    pub(super) fn pop(&mut self, name: &Key) -> Option<Waiting<T, W>> {
        let id = *self.by_name.get(name)?.front()?;
        self.remove(id)
    }

    /// How many wait under a name.
    pub(super) fn len(&self, name: &Key) -> usize {
        self.by_name.get(name).map_or(0, VecDeque::len)
    }

    /// The names that somebody waits under.
    pub(super) fn names(&self) -> Vec<Key> {
        let mut names: Vec<Key> = self.by_name.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the first wait ends.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes one whose time is over.
    pub(super) fn pop_expired(&mut self, now: Time) -> Option<Waiting<T, W>> {
        let (at, id) = *self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.remove(id)
    }

    /// Takes the first that the condition holds for.
    pub(super) fn take_if(
        &mut self,
        condition: impl Fn(&Waiting<T, W>) -> bool,
    ) -> Option<Waiting<T, W>> {
        let id = self
            .entries
            .iter()
            .find(|(_, waiting)| condition(waiting))
            .map(|(id, _)| *id)?;
        self.remove(id)
    }

    fn remove(&mut self, id: u64) -> Option<Waiting<T, W>> {
        let waiting = self.entries.remove(&id)?;
        if let Some(at) = waiting.deadline {
            self.deadlines.remove(&(at, id));
        }
        if let Some(line) = self.by_name.get_mut(&waiting.name) {
            line.retain(|other| *other != id);
            if line.is_empty() {
                self.by_name.remove(&waiting.name);
            }
        }
        Some(waiting)
    }
}
