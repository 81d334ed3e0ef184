//! What became of each key: a bounded log of state changes.

use std::{collections::VecDeque, sync::Arc};

use oxidask_protocol::Key;

use crate::time::Time;

/// One state change.
#[derive(Clone, Debug, PartialEq)]
pub struct StoryEntry {
    /// The task.
    pub key: Key,
    /// Its state before.
    pub from: &'static str,
    /// Its state after; "forgotten" is the last.
    pub to: &'static str,
    /// The cause.
    pub stimulus_id: Arc<str>,
    /// When.
    pub time: Time,
}

#[derive(Debug)]
pub(crate) struct Story {
    entries: VecDeque<StoryEntry>,
    length: usize,
}

impl Story {
    pub(crate) fn new(length: usize) -> Self {
        Self {
            entries: VecDeque::with_capacity(length.min(1024)),
            length,
        }
    }

    pub(crate) fn push(&mut self, entry: StoryEntry) {
        if self.length == 0 {
            return;
        }
        if self.entries.len() == self.length {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(crate) fn of<'a>(&'a self, key: Option<&'a Key>) -> impl Iterator<Item = &'a StoryEntry> {
        self.entries
            .iter()
            .filter(move |entry| key.is_none_or(|key| entry.key == *key))
    }
}
