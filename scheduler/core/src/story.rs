//! The log of transitions.

use std::collections::VecDeque;
use std::sync::Arc;

use oxidask_protocol::Key;

use crate::action::{TaskStateName, Transition};
use crate::{Core, Time, WorkerId};

/// The latest transitions of all tasks.
#[derive(Debug)]
pub(crate) struct Story {
    limit: usize,
    /// Transitions ever made.
    count: u64,
    log: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    time: Time,
    key: Key,
    start: TaskStateName,
    finish: TaskStateName,
    stimulus_id: Arc<str>,
}

impl Story {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            count: 0,
            log: VecDeque::new(),
        }
    }

    pub(crate) fn record(
        &mut self,
        time: Time,
        key: &Key,
        start: TaskStateName,
        finish: TaskStateName,
        stimulus_id: &Arc<str>,
    ) {
        self.count += 1;
        if self.limit == 0 {
            return;
        }
        if self.log.len() == self.limit {
            self.log.pop_front();
        }
        self.log.push_back(Entry {
            time,
            key: key.clone(),
            start,
            finish,
            stimulus_id: Arc::clone(stimulus_id),
        });
    }
}

impl Core {
    /// Transitions of keys, or those caused by stimuli, in the order in which they happened.
    pub fn story(&self, keys: &[Key], stimuli: &[String]) -> Vec<(Time, Transition)> {
        let told = |entry: &&Entry| {
            keys.contains(&entry.key)
                || stimuli
                    .iter()
                    .any(|stimulus| **stimulus == *entry.stimulus_id)
        };
        self.story
            .log
            .iter()
            .filter(told)
            .map(|entry| (entry.time, entry.as_transition(None)))
            .collect()
    }

    /// All transitions that are remembered, in the order in which they happened.
    pub fn story_of_all(&self) -> Vec<(Time, Transition)> {
        let log = self.story.log.iter();
        log.map(|entry| (entry.time, entry.as_transition(None)))
            .collect()
    }

    /// Transitions since the start.
    pub fn transition_count(&self) -> u64 {
        self.story.count
    }
}

impl Entry {
    fn as_transition(&self, worker: Option<WorkerId>) -> Transition {
        Transition {
            key: self.key.clone(),
            start: self.start,
            finish: self.finish,
            stimulus_id: Arc::clone(&self.stimulus_id),
            worker,
        }
    }
}
