//! What every reconciliation has at hand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use kube::{Client, ResourceExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::autoscaler::Watches;
use crate::build::Site;
use crate::clock::Clock;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::queue::{Key, Queue};
use crate::scheduler::{Endpoint, SchedulerApi};
use crate::stores::{Stores, pods_of};
use crate::{labels, names};

/// What the user set for the whole operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most workers of one group that are created in one go; all if `None`.
    pub batch_size: Option<usize>,
    /// Pause between two such batches.
    pub batch_delay: Duration,
    /// How long a worker may take to hand over its work, where the resource
    /// does not say.
    pub drain_timeout: Duration,
    /// Resources that are reconciled at a time.
    pub concurrency: usize,
    /// The image that brings our programs into others.
    pub programs_image: String,
    /// The namespace that this process runs in.
    pub namespace: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_size: None,
            batch_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(60),
            concurrency: 16,
            programs_image: "oxidask-binaries".to_owned(),
            namespace: "default".to_owned(),
        }
    }
}

/// Which kinds have a status subresource. Upstream's CRDs have it for jobs
/// only, and their schemas drop all of a status but the phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// DaskCluster has it, and with it our whole status.
    pub cluster_status: bool,
    /// DaskWorkerGroup has it.
    pub group_status: bool,
    /// DaskAutoscaler has it.
    pub autoscaler_status: bool,
    /// The resource type ScalingExperiment is installed at all.
    pub experiments: bool,
}

/// What every reconciliation has at hand.
#[derive(Clone)]
pub struct Context {
    /// To the API server.
    pub client: Client,
    /// What the watches have seen.
    pub stores: Stores,
    /// What is to be reconciled.
    pub queue: Arc<Queue>,
    /// The operator's metrics.
    pub metrics: Metrics,
    /// Kubernetes Events.
    pub events: Events,
    /// How schedulers are asked.
    pub scheduler: Arc<dyn SchedulerApi>,
    /// The user's settings.
    pub settings: Settings,
    /// What the installed CRDs can do.
    pub capabilities: Arc<RwLock<Capabilities>>,
    /// The time.
    pub clock: Clock,
    /// What this process did that the watches may not have seen yet.
    pub(crate) memory: Arc<Memory>,
    /// Cancelled when the operator ends: retirements under way stop with it.
    /// They are recorded, so the next process goes on with them.
    pub(crate) end: CancellationToken,
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing to do before something changes.
    AwaitChange,
    /// Look again after so long, changes or not.
    After(Duration),
}

impl Action {
    /// The earlier of both.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::AwaitChange, action) | (action, Self::AwaitChange) => action,
            (Self::After(one), Self::After(two)) => Self::After(one.min(two)),
        }
    }
}

impl Context {
    pub(crate) fn can(&self) -> Capabilities {
        *self
            .capabilities
            .read()
            .expect("no holder of this lock panics")
    }

    /// What the builders have to know.
    pub(crate) fn site(&self) -> Site {
        Site {
            programs_image: self.settings.programs_image.clone(),
        }
    }

    /// Where the scheduler of a cluster listens, if its pod is ready.
    pub(crate) fn endpoint(&self, namespace: &str, cluster: &str) -> Option<Endpoint> {
        let service = self
            .stores
            .services
            .get(namespace, &names::scheduler(cluster));
        let pods = self
            .stores
            .pods
            .indexed(namespace, &pods_of(labels::SCHEDULER, cluster));
        let tls = self.scheduler_tls(namespace, cluster);
        let found = pods
            .iter()
            .find_map(|pod| Endpoint::of(pod, service.as_deref()))?;
        Some(Endpoint {
            secret: tls.map(|name| (namespace.to_owned(), name)),
            ..found
        })
    }

    /// Name of the Secret whose certificates a cluster's scheduler was started
    /// with, if it was started with any.
    pub(crate) fn scheduler_tls(&self, namespace: &str, cluster: &str) -> Option<String> {
        let name = names::scheduler(cluster);
        let deployment = self.stores.deployments.get(namespace, &name)?;
        deployment.annotations().get(labels::TLS).cloned()
    }
}

/// How long a creation is believed before the watches show it.
const BELIEVED: Duration = Duration::from_secs(15);

/// What this process did that the watches may not have seen yet. Without it a
/// look at old state would create a worker twice, or retire one too many.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// By group: Deployments created and not yet seen, with when.
    created: Mutex<HashMap<Key, BTreeMap<String, Instant>>>,
    /// By group: when its next batch of workers may be created.
    pauses: Mutex<HashMap<Key, Instant>>,
    /// By group: Deployments being retired, until they are gone.
    retiring: Mutex<HashMap<Key, BTreeSet<String>>>,
    /// By group: bytes of results moved away from retiring workers, and in all.
    moving: Mutex<HashMap<Key, (u64, u64)>>,
    /// By key: reason of the last error, so that each is told once.
    errors: Mutex<HashMap<Key, String>>,
    /// By key: errors since the last success.
    failures: Mutex<HashMap<Key, u32>>,
    /// By resource: hash of the guards that this process applied, and when.
    guarded: Mutex<HashMap<Key, (String, Instant)>>,
    /// Schedulers that tell their demand.
    pub(crate) watches: Watches,
    /// By autoscaler and group: demands of the last while, with when.
    demands: Mutex<HashMap<Key, Vec<(Instant, i64)>>>,
}

impl Memory {
    /// Notes a Deployment as created.
    pub(crate) fn created(&self, group: &Key, name: String) {
        let mut created = self.created.lock().expect("no holder of this lock panics");
        created
            .entry(group.clone())
            .or_default()
            .insert(name, Instant::now());
    }

    /// How many created Deployments of a group are not among those seen.
    pub(crate) fn unseen(&self, group: &Key, seen: impl Fn(&str) -> bool) -> usize {
        let mut created = self.created.lock().expect("no holder of this lock panics");
        let Some(names) = created.get_mut(group) else {
            return 0;
        };
        names.retain(|name, since| !seen(name) && since.elapsed() < BELIEVED);
        let unseen = names.len();
        if unseen == 0 {
            created.remove(group);
        }
        unseen
    }

    /// How long no worker of a group is to be created yet.
    pub(crate) fn pause(&self, group: &Key) -> Option<Duration> {
        let mut pauses = self.pauses.lock().expect("no holder of this lock panics");
        let left = pauses.get(group)?.saturating_duration_since(Instant::now());
        if left.is_zero() {
            pauses.remove(group);
            return None;
        }
        Some(left)
    }

    /// Lets no worker of a group be created for so long.
    pub(crate) fn set_pause(&self, group: &Key, pause: Duration) {
        let mut pauses = self.pauses.lock().expect("no holder of this lock panics");
        pauses.insert(group.clone(), Instant::now() + pause);
    }

    /// Notes Deployments as being retired; gives those that were not yet.
    pub(crate) fn retiring(
        &self,
        group: &Key,
        names: impl IntoIterator<Item = String>,
    ) -> Vec<String> {
        let mut retiring = self.retiring.lock().expect("no holder of this lock panics");
        let known = retiring.entry(group.clone()).or_default();
        names
            .into_iter()
            .filter(|name| known.insert(name.clone()))
            .collect()
    }

    /// Whether a Deployment is being retired by this process.
    pub(crate) fn is_retiring(&self, group: &Key, name: &str) -> bool {
        let retiring = self.retiring.lock().expect("no holder of this lock panics");
        retiring
            .get(group)
            .is_some_and(|names| names.contains(name))
    }

    /// Forgets retired Deployments that are gone.
    pub(crate) fn keep_retiring(&self, group: &Key, exists: impl Fn(&str) -> bool) {
        let mut retiring = self.retiring.lock().expect("no holder of this lock panics");
        if let Some(names) = retiring.get_mut(group) {
            names.retain(|name| exists(name));
            if names.is_empty() {
                retiring.remove(group);
            }
        }
    }

    /// Forgets that Deployments are being retired, so that it is tried again.
    pub(crate) fn retry_retiring(&self, group: &Key, names: &[String]) {
        let mut retiring = self.retiring.lock().expect("no holder of this lock panics");
        if let Some(known) = retiring.get_mut(group) {
            known.retain(|name| !names.contains(name));
        }
    }

    /// Notes how far the retirement of workers of a group is: bytes moved, and
    /// in all; zeros when there is none.
    pub(crate) fn set_moving(&self, group: &Key, bytes: (u64, u64)) {
        let mut moving = self.moving.lock().expect("no holder of this lock panics");
        if bytes.1 == 0 {
            moving.remove(group);
        } else {
            moving.insert(group.clone(), bytes);
        }
    }

    /// How far the retirement of workers of a group is, where that is known.
    pub(crate) fn moving(&self, group: &Key) -> Option<(u64, u64)> {
        let moving = self.moving.lock().expect("no holder of this lock panics");
        moving.get(group).copied()
    }

    /// How long ago a Deployment was created that is seen for the first time.
    pub(crate) fn lag(&self, group: &Key, name: &str) -> Option<Duration> {
        let created = self.created.lock().expect("no holder of this lock panics");
        Some(created.get(group)?.get(name)?.elapsed())
    }

    /// Notes an error; gives whether its reason is another than before.
    pub(crate) fn is_new_error(&self, key: &Key, reason: Option<&str>) -> bool {
        let mut errors = self.errors.lock().expect("no holder of this lock panics");
        match reason {
            None => {
                self.failures
                    .lock()
                    .expect("no holder of this lock panics")
                    .remove(key);
                errors.remove(key).is_some()
            }
            Some(reason) => {
                errors.insert(key.clone(), reason.to_owned()).as_deref() != Some(reason)
            }
        }
    }

    /// How long the guards of a resource need no look, if those of this hash
    /// were applied less than `again` ago.
    pub(crate) fn guarded(&self, key: &Key, hash: &str, again: Duration) -> Option<Duration> {
        let guarded = self.guarded.lock().expect("no holder of this lock panics");
        let (known, since) = guarded.get(key)?;
        let left = again.saturating_sub(since.elapsed());
        (known == hash && !left.is_zero()).then_some(left)
    }

    /// Notes the guards of a resource as applied.
    pub(crate) fn set_guarded(&self, key: &Key, hash: String) {
        let mut guarded = self.guarded.lock().expect("no holder of this lock panics");
        guarded.insert(key.clone(), (hash, Instant::now()));
    }

    /// Counts an error; gives how many there were before it since the last
    /// success.
    pub(crate) fn failures(&self, key: &Key) -> u32 {
        let mut failures = self.failures.lock().expect("no holder of this lock panics");
        let count = failures.entry(key.clone()).or_default();
        *count += 1;
        *count - 1
    }

    /// Notes a demand; gives the largest of the last `window`.
    pub(crate) fn largest_demand(&self, autoscaler: &Key, demand: i64, window: Duration) -> i64 {
        let mut demands = self.demands.lock().expect("no holder of this lock panics");
        let of = demands.entry(autoscaler.clone()).or_default();
        of.retain(|(when, _)| when.elapsed() <= window);
        of.push((Instant::now(), demand));
        of.iter().map(|(_, demand)| *demand).max().unwrap_or(demand)
    }

    /// Forgets all of a resource that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        fn remove<V>(map: &Mutex<HashMap<Key, V>>, key: &Key) {
            map.lock()
                .expect("no holder of this lock panics")
                .remove(key);
        }
        remove(&self.created, key);
        remove(&self.pauses, key);
        remove(&self.retiring, key);
        remove(&self.moving, key);
        remove(&self.errors, key);
        remove(&self.failures, key);
        self.watches.forget(key);
        let of_groups = format!("{}/", key.name);
        let mut demands = self.demands.lock().expect("no holder of this lock panics");
        demands.retain(|of, _| {
            (of.kind, &of.namespace) != (key.kind, &key.namespace)
                || !of.name.starts_with(&of_groups)
        });
        drop(demands);
        remove(&self.guarded, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Kind;

    #[tokio::test(start_paused = true)]
    async fn a_creation_counts_until_it_is_seen_or_too_old() {
        let memory = Memory::default();
        let group = Key::new(Kind::WorkerGroup, "ns", "g");
        memory.created(&group, "a".to_owned());
        memory.created(&group, "b".to_owned());
        assert_eq!(memory.unseen(&group, |name| name == "a"), 1);
        tokio::time::advance(BELIEVED).await;
        assert_eq!(memory.unseen(&group, |_| false), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_demand_of_the_window_counts() {
        let memory = Memory::default();
        let key = Key::new(Kind::Autoscaler, "ns", "a");
        let window = Duration::from_secs(15);
        assert_eq!(memory.largest_demand(&key, 8, window), 8);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(memory.largest_demand(&key, 2, window), 8);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(memory.largest_demand(&key, 2, window), 2);
    }
}
