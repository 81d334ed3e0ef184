//! The event log: what happened, by topic, and who wants to hear of it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};
use oxidask_protocol::Value;
use oxidask_scheduler_core::Time;

use super::{Effect, Output, View};

/// Topics kept; beyond it, the oldest quarter goes, subscribed ones excepted. A peer names topics as it likes.
const MAX_TOPICS: usize = 10_000;

/// All topics.
#[derive(Debug)]
pub struct Topics {
    topics: IndexMap<String, Topic>,
    events_per_topic: usize,
    cleanup_delay: Duration,
    /// Clients and workers that left, with the time at which the events under their name go.
    left: BTreeSet<(Time, String)>,
}

#[derive(Debug, Default)]
struct Topic {
    /// Unix time and message, at most [`Topics::events_per_topic`].
    events: VecDeque<(f64, Value)>,
    /// Events ever logged.
    count: u64,
    subscribers: IndexSet<String>,
}

impl Topics {
    pub(super) fn new(events_per_topic: usize, cleanup_delay: Duration) -> Self {
        Self {
            topics: IndexMap::new(),
            events_per_topic,
            cleanup_delay,
            left: BTreeSet::new(),
        }
    }

    /// Logs an event under topics and tells their subscribers. `at` is Unix time.
    pub fn log<W>(
        &mut self,
        at: f64,
        topics: impl IntoIterator<Item = impl AsRef<str>>,
        message: &Value,
        out: &mut Output<W>,
    ) {
        for name in topics {
            let limit = self.events_per_topic;
            let topic = self.topic(name.as_ref());
            topic.count += 1;
            topic.events.push_back((at, message.detached()));
            while topic.events.len() > limit {
                topic.events.pop_front();
            }
            for client in &topic.subscribers {
                out.effects.push(Effect::Event {
                    client: client.clone(),
                    topic: name.as_ref().to_owned(),
                    at,
                    message: message.clone(),
                });
            }
        }
    }

    /// A client wants the events of a topic.
    pub fn subscribe(&mut self, topic: &str, client: &str) {
        self.topic(topic).subscribers.insert(client.to_owned());
    }

    /// A client no longer wants the events of a topic.
    pub fn unsubscribe(&mut self, topic: &str, client: &str) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.subscribers.shift_remove(client);
        }
    }

    /// The events of a topic, `[[time, message], …]`.
    pub fn of_topic(&self, topic: &str) -> Value {
        self.topics
            .get(topic)
            .map_or_else(|| Value::Array(Vec::new()), Topic::events)
    }

    /// The events of all topics that have some, `{topic: [[time, message], …]}`.
    pub fn all(&self) -> Value {
        Value::map(
            self.topics
                .iter()
                .filter(|(_, topic)| !topic.events.is_empty())
                .map(|(name, topic)| (name.as_str(), topic.events())),
        )
    }

    /// Topics and the number of events ever logged under each.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.topics
            .iter()
            .map(|(name, topic)| (name.as_str(), topic.count))
    }

    pub(super) fn left(&mut self, now: Time, name: &str) {
        for topic in self.topics.values_mut() {
            topic.subscribers.shift_remove(name);
        }
        if self.topics.contains_key(name) {
            self.left
                .insert((now + self.cleanup_delay, name.to_owned()));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.left.first().map(|(at, _)| *at)
    }

    pub(super) fn expire(&mut self, now: Time, view: &impl View) {
        while self.left.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.left.pop_first() else {
                return;
            };
            if !view.is_connected(&name)
                && let Some(topic) = self.topics.get(&name)
                && topic.subscribers.is_empty()
            {
                self.topics.shift_remove(&name);
            }
        }
    }

    fn topic(&mut self, name: &str) -> &mut Topic {
        if !self.topics.contains_key(name) && self.topics.len() >= MAX_TOPICS {
            let mut left = MAX_TOPICS / 4;
            self.topics.retain(|_, topic| {
                let drop = left > 0 && topic.subscribers.is_empty();
                left -= usize::from(drop);
                !drop
            });
        }
        self.topics.entry(name.to_owned()).or_default()
    }
}

impl Topic {
    fn events(&self) -> Value {
        Value::Array(
            self.events
                .iter()
                .map(|(at, message)| Value::Array(vec![(*at).into(), message.clone()]))
                .collect(),
        )
    }
}
