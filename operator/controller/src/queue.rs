//! What is to be reconciled, and when.
//!
//! A key is never reconciled twice at a time; adding it while it is being
//! reconciled makes it come again afterwards. Keys that are due come in the
//! order in which they became due, so a resource that changes all the time
//! cannot keep others waiting.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The kinds that are reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// DaskCluster.
    Cluster,
    /// DaskWorkerGroup.
    WorkerGroup,
    /// DaskJob.
    Job,
    /// DaskAutoscaler.
    Autoscaler,
    /// ScalingExperiment.
    Experiment,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::WorkerGroup,
        Self::Job,
        Self::Autoscaler,
        Self::Experiment,
    ];

    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "DaskCluster",
            Self::WorkerGroup => "DaskWorkerGroup",
            Self::Job => "DaskJob",
            Self::Autoscaler => "DaskAutoscaler",
            Self::Experiment => "ScalingExperiment",
        }
    }
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// The queue. All methods may be called from any task.
#[derive(Debug, Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// All waiting keys, ordered by when they are due, then by arrival.
    by_time: BTreeSet<(Instant, u64, Key)>,
    /// The same keys with their place in `by_time`.
    waiting: HashMap<Key, (Instant, u64)>,
    /// Keys being reconciled, with when that began.
    running: HashMap<Key, Instant>,
    /// Keys of `running` that were added since.
    again: HashSet<Key>,
    arrivals: u64,
}

/// How full the queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Depth {
    /// Keys that are due and not yet taken.
    pub due: usize,
    /// How long the oldest of them has been due.
    pub oldest: Duration,
    /// Keys being reconciled.
    pub running: usize,
    /// How long the longest of them has been running.
    pub longest: Duration,
}

impl Queue {
    /// Makes a key due now.
    pub fn add(&self, key: Key) {
        self.add_after(key, Duration::ZERO);
    }

    /// Makes a key due after a delay, or earlier if it already is.
    pub fn add_after(&self, key: Key, delay: Duration) {
        let due = Instant::now() + delay;
        {
            let mut inner = self.lock();
            if inner.running.contains_key(&key) && delay.is_zero() {
                inner.again.insert(key);
                return;
            }
            inner.schedule(key, due);
        }
        self.changed.notify_one();
    }

    /// Waits for the next key that is due. [`done`](Self::done) must be called
    /// with it afterwards.
    pub async fn next(&self) -> Key {
        loop {
            let wait = {
                let mut inner = self.lock();
                let now = Instant::now();
                match inner.take(now) {
                    Ok(key) => {
                        let more = inner.next_due().is_some_and(|due| due <= now);
                        drop(inner);
                        if more {
                            self.changed.notify_one();
                        }
                        return key;
                    }
                    Err(due) => due,
                }
            };
            match wait {
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Ends the reconciliation of a key.
    pub fn done(&self, key: &Key) {
        {
            let mut inner = self.lock();
            inner.running.remove(key);
            if inner.again.remove(key) {
                inner.schedule(key.clone(), Instant::now());
            }
        }
        self.changed.notify_one();
    }

    /// Takes a key out, for a resource that is gone.
    pub fn forget(&self, key: &Key) {
        let mut inner = self.lock();
        if let Some((due, arrival)) = inner.waiting.remove(key) {
            inner.by_time.remove(&(due, arrival, key.clone()));
        }
    }

    /// How full the queue is at this moment.
    pub fn depth(&self) -> Depth {
        let inner = self.lock();
        let now = Instant::now();
        let due = inner.by_time.iter().take_while(|(due, _, _)| *due <= now);
        let since = |start: &Instant| now.saturating_duration_since(*start);
        Depth {
            due: due
                .clone()
                .filter(|(_, _, key)| !inner.running.contains_key(key))
                .count(),
            oldest: due
                .clone()
                .find(|(_, _, key)| !inner.running.contains_key(key))
                .map(|(due, _, _)| since(due))
                .unwrap_or_default(),
            running: inner.running.len(),
            longest: inner.running.values().map(since).max().unwrap_or_default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

impl Inner {
    fn schedule(&mut self, key: Key, due: Instant) {
        if let Some(&(earlier, arrival)) = self.waiting.get(&key) {
            if earlier <= due {
                return;
            }
            self.by_time.remove(&(earlier, arrival, key.clone()));
        }
        self.arrivals += 1;
        self.waiting.insert(key.clone(), (due, self.arrivals));
        self.by_time.insert((due, self.arrivals, key));
    }

    /// The first key that is due and not running, or when to look again.
    fn take(&mut self, now: Instant) -> Result<Key, Option<Instant>> {
        let found = self
            .by_time
            .iter()
            .take_while(|(due, _, _)| *due <= now)
            .find(|(_, _, key)| !self.running.contains_key(key))
            .cloned();
        let Some(entry) = found else {
            return Err(self
                .by_time
                .iter()
                .map(|(due, _, _)| *due)
                .find(|due| *due > now));
        };
        self.by_time.remove(&entry);
        let key = entry.2;
        self.waiting.remove(&key);
        self.running.insert(key.clone(), now);
        Ok(key)
    }

    fn next_due(&self) -> Option<Instant> {
        let mut free = self
            .by_time
            .iter()
            .filter(|(_, _, key)| !self.running.contains_key(key));
        free.next().map(|(due, _, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(Kind::Cluster, "ns", name)
    }

    #[tokio::test(start_paused = true)]
    async fn keys_come_once_and_in_order() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("b"));
        queue.add(key("a"));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(queue.next().await, key("b"));
        assert_eq!(queue.depth().due, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_runs_comes_again_afterwards() {
        let queue = Queue::default();
        queue.add(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!(queue.next().await, key("b"));
        let none = tokio::time::timeout(Duration::from_secs(9), queue.next()).await;
        assert!(none.is_err(), "it came while it was running");
        queue.done(&key("a"));
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_counts() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(30));
        queue.add_after(key("a"), Duration::from_secs(5));
        queue.add_after(key("a"), Duration::from_secs(60));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn depth_tells_the_age_of_what_waits() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add_after(key("b"), Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(3)).await;
        let depth = queue.depth();
        assert_eq!((depth.due, depth.oldest), (1, Duration::from_secs(3)));
    }
}
