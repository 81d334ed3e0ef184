//! Shrinking a group without losing results.
//!
//! Victims are chosen inside the group and recorded on their Deployments
//! before anything is retired; from then on every look at the group, by this
//! process or the next, goes on with the same ones. The scheduler moves their
//! results and lets their tasks end, for at most the drain timeout. Only then
//! their Deployments are deleted; until then the workers stay connected, so
//! that no pod starts a worker anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Seen;
use super::plan::{Worker, by_deployment, summed, victims};
use crate::api;
use crate::clock::rfc3339;
use crate::context::Context;
use crate::error::Error;
use crate::labels::RETIRING;
use crate::queue::Key;
use crate::scheduler::WorkerInfo;
use crate::views::DeploymentView;

/// Pause between two attempts to reach a scheduler that does not answer.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How long workers have whose drain timeout passed while nobody drained them,
/// because no operator ran or the API server did not answer: their results
/// would be lost for no reason of theirs.
const LATE: Duration = Duration::from_secs(15);

/// How long after its deletion a worker that still shows is retired anew.
const SHOWN: Duration = Duration::from_secs(15);

/// What a retirement needs to know, apart from the group's state.
struct Batch {
    context: Context,
    group: Key,
    cluster: String,
    victims: Vec<Worker>,
    /// When the first of them was chosen.
    since: Timestamp,
    timeout: Duration,
    /// When this process took it up.
    began: Instant,
}

/// Chooses `count` workers, records the choice, and begins to retire them.
pub(super) async fn start(context: &Context, seen: &Seen, count: usize) -> Result<(), Error> {
    let suspended = seen.desired == 0 && is_suspended(seen);
    let unready = seen
        .workers
        .iter()
        .filter(|w| !w.retiring && !w.ready)
        .count();
    // Who is not ready is not connected: nobody needs to be asked.
    let infos = if suspended || (unready >= count && !seen.workers.iter().any(|w| w.outdated)) {
        None
    } else {
        infos(context, seen).await
    };
    let chosen: Vec<Worker> = victims(count, &seen.workers, infos.as_ref())
        .into_iter()
        .cloned()
        .collect();
    let now = context.clock.now();
    for victim in &chosen {
        record(context, &seen.key, &victim.name, now).await?;
    }
    let names: Vec<&str> = chosen.iter().map(|victim| &*victim.name).collect();
    info!(namespace = seen.key.namespace, name = seen.key.name, workers = ?names, "chose workers to retire");
    spawn(context, seen, chosen, now);
    Ok(())
}

/// Goes on with workers that were chosen earlier, by another process or before
/// an error. Gives whether there are any.
pub(super) fn resume(context: &Context, seen: &Seen) -> bool {
    let recorded: Vec<&Worker> = seen
        .workers
        .iter()
        .filter(|worker| worker.retiring)
        .collect();
    let forgotten: Vec<Worker> = recorded
        .iter()
        .filter(|worker| !context.memory.is_retiring(&seen.key, &worker.name))
        .map(|worker| (*worker).clone())
        .collect();
    if !forgotten.is_empty() {
        let since = forgotten
            .iter()
            .filter_map(|worker| since(seen, &worker.name))
            .min();
        spawn(
            context,
            seen,
            forgotten,
            since.unwrap_or_else(|| context.clock.now()),
        );
    }
    !recorded.is_empty()
}

/// Retires workers whose pods somebody else takes away: `kubectl drain`, a
/// notice that their node ends, a plain deletion. The choice is recorded like
/// any other; and their Deployments get no more pods, because a new process of
/// the same name would be refused while the old one is drained. Gives whether
/// there were any.
pub(super) async fn evicted(context: &Context, seen: &Seen) -> Result<bool, Error> {
    let mut chosen: Vec<Worker> = seen
        .workers
        .iter()
        .filter(|worker| worker.evicted && !worker.retiring)
        .cloned()
        .collect();
    if chosen.is_empty() {
        return Ok(false);
    }
    let now = context.clock.now();
    for worker in &mut chosen {
        let patch = json!({
            "metadata": {"annotations": {RETIRING: rfc3339(now)}},
            "spec": {"replicas": 0},
        });
        let (client, namespace) = (&context.client, &seen.key.namespace);
        api::merge::<DeploymentView>(client, namespace, &worker.name, &patch).await?;
        // A pod that is to go is never ready, but its process is as it was.
        worker.ready = true;
    }
    let names: Vec<&str> = chosen.iter().map(|worker| &*worker.name).collect();
    info!(namespace = seen.key.namespace, name = seen.key.name, workers = ?names, "pods of workers are evicted: they are drained first");
    spawn(context, seen, chosen, now);
    Ok(true)
}

/// When a worker was chosen, as recorded on its Deployment.
fn since(seen: &Seen, name: &str) -> Option<Timestamp> {
    let deployment = seen.deployments.iter().find(|d| d.name_any() == name)?;
    deployment.annotations().get(RETIRING)?.parse().ok()
}

fn is_suspended(seen: &Seen) -> bool {
    seen.group.spec.suspend == Some(true) || seen.cluster.spec.suspend == Some(true)
}

async fn infos(context: &Context, seen: &Seen) -> Option<HashMap<String, WorkerInfo>> {
    let endpoint = context.endpoint(&seen.key.namespace, &seen.group.spec.cluster)?;
    match context.scheduler.workers(&endpoint).await {
        Ok(infos) => Some(summed(&by_deployment(&seen.workers, infos))),
        Err(error) => {
            warn!(
                namespace = seen.key.namespace, name = seen.key.name, %error,
                "the scheduler cannot say what its workers have: the youngest are retired"
            );
            None
        }
    }
}

async fn record(context: &Context, group: &Key, name: &str, now: Timestamp) -> Result<(), Error> {
    let patch = json!({"metadata": {"annotations": {RETIRING: rfc3339(now)}}});
    api::merge::<DeploymentView>(&context.client, &group.namespace, name, &patch).await?;
    Ok(())
}

fn spawn(context: &Context, seen: &Seen, workers: Vec<Worker>, since: Timestamp) {
    let names = workers.iter().map(|worker| worker.name.clone());
    let new = context.memory.retiring(&seen.key, names);
    let victims: Vec<Worker> = workers
        .into_iter()
        .filter(|worker| new.contains(&worker.name))
        .collect();
    if victims.is_empty() {
        return;
    }
    let timeout = match seen.group.spec.worker.drain_timeout_seconds {
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        None => context.settings.drain_timeout,
    };
    let batch = Batch {
        began: Instant::now(),
        context: context.clone(),
        group: seen.key.clone(),
        cluster: seen.group.spec.cluster.clone(),
        victims,
        since,
        timeout: if is_suspended(seen) {
            Duration::ZERO
        } else {
            timeout
        },
    };
    let end = context.end.clone();
    tokio::spawn(async move { end.run_until_cancelled(batch.run()).await });
}

impl Batch {
    async fn run(self) {
        let (namespace, name) = (&self.group.namespace, &self.group.name);
        let outcome = self.drain().await;
        if outcome == "deadline" {
            self.give_up().await;
        }
        let mut failed = Vec::new();
        for victim in &self.victims {
            let uid = Some(&*victim.uid).filter(|uid| !uid.is_empty());
            let client = &self.context.client;
            if let Err(error) =
                api::delete::<DeploymentView>(client, namespace, &victim.name, uid).await
            {
                warn!(
                    namespace,
                    worker = victim.name,
                    error = error.sentence(),
                    "a retired worker stays for now"
                );
                failed.push(victim.name.clone());
            }
        }
        self.context.metrics.drained(self.began.elapsed());
        self.context.metrics.retired(outcome, self.victims.len());
        info!(namespace, name, workers = self.victims.len(), outcome, took = ?self.began.elapsed(), "retired workers");
        if failed.is_empty() {
            // Until the watches show that they are gone.
            tokio::time::sleep(SHOWN).await;
        } else {
            tokio::time::sleep(TRY_AGAIN).await;
        }
        let victims: Vec<String> = self
            .victims
            .iter()
            .map(|victim| victim.name.clone())
            .collect();
        self.context.memory.retry_retiring(&self.group, &victims);
        self.context.memory.set_moving(&self.group, (0, 0));
        self.context.queue.add(self.group.clone());
    }

    /// What is left of the drain timeout; of [`LATE`] where that is more.
    fn left(&self) -> Duration {
        let passed = self.context.clock.now().duration_since(self.since);
        let passed = Duration::try_from(passed).unwrap_or(Duration::ZERO);
        let late = LATE.min(self.timeout);
        self.timeout
            .saturating_sub(passed)
            .max(late.saturating_sub(self.began.elapsed()))
    }

    /// Waits until the victims can go without loss, or the time is up.
    async fn drain(&self) -> &'static str {
        let (namespace, name) = (&self.group.namespace, &self.group.name);
        if self.timeout.is_zero() {
            return "suspended";
        }
        loop {
            match self.attempt().await {
                Ok(None) => return "unconnected",
                Ok(Some(left)) if left.is_empty() => return "retired",
                Ok(Some(left)) => {
                    warn!(namespace, name, workers = ?left, "the drain timeout is over: workers go with what they have");
                    self.tell(format!("The drain timeout of {:?} is over; workers were ended with tasks or results: {}", self.timeout, left.join(", "))).await;
                    return "deadline";
                }
                // A pod that is not ready has nothing that one could wait for.
                Err(_) if !self.victims.iter().any(|victim| victim.ready) => return "unconnected",
                Err(error) if self.left().is_zero() => {
                    warn!(
                        namespace,
                        name,
                        error,
                        "workers could not be retired in time: they go with what they have"
                    );
                    self.tell(format!("Workers could not be retired within {:?} and were ended with what they had: {error}", self.timeout)).await;
                    return "deadline";
                }
                Err(error) => {
                    warn!(
                        namespace,
                        name, error, "workers cannot be retired yet, trying again"
                    );
                    tokio::time::sleep(TRY_AGAIN.min(self.left())).await;
                }
            }
        }
    }

    /// Has the scheduler forget workers whose time is over, so that others take
    /// their tasks at once and not when their pods have ended.
    async fn give_up(&self) {
        let Some(endpoint) = self.context.endpoint(&self.group.namespace, &self.cluster) else {
            return;
        };
        let scheduler = &self.context.scheduler;
        let removed = async {
            let infos = scheduler.workers(&endpoint).await?;
            let found = by_deployment(&self.victims, infos).into_values().flatten();
            let left: Vec<String> = found.map(|info| info.address).collect();
            scheduler.remove(&endpoint, &left).await
        };
        if let Err(error) = removed.await {
            warn!(namespace = self.group.namespace, name = self.group.name, %error, "the scheduler cannot be told of workers that end");
        }
    }

    async fn tell(&self, note: String) {
        self.warn("DrainTimeout", note).await;
    }

    async fn warn(&self, reason: &str, note: String) {
        if let Some(group) = self
            .context
            .stores
            .groups
            .get(&self.group.namespace, &self.group.name)
        {
            self.context.events.warning(&*group, reason, note).await;
        }
    }

    /// One attempt: the workers that could not be retired in time, or `None`
    /// if none of the victims is connected.
    async fn attempt(&self) -> Result<Option<Vec<String>>, String> {
        // Without a scheduler pod there is nobody to hold results for; but it
        // may just be starting anew.
        let any_ready = self.victims.iter().any(|victim| victim.ready);
        let Some(endpoint) = self.context.endpoint(&self.group.namespace, &self.cluster) else {
            return if any_ready {
                Err("its pod is not ready".to_owned())
            } else {
                Ok(None)
            };
        };
        let infos = self
            .context
            .scheduler
            .workers(&endpoint)
            .await
            .map_err(|error| error.to_string())?;
        let connected = infos.len();
        let found = by_deployment(&self.victims, infos);
        let infos: Vec<WorkerInfo> = found.into_values().flatten().collect();
        if infos.is_empty() {
            return Ok(None);
        }
        if infos.len() == connected {
            return self.last_ones(infos).await;
        }
        let addresses: Vec<String> = infos.into_iter().map(|info| info.address).collect();
        let mut rest = addresses;
        let (memory, metrics) = (&self.context.memory, &self.context.metrics);
        let before = AtomicU64::new(0);
        let moved = |bytes: u64, total: u64| {
            let last = before.fetch_max(bytes, Ordering::Relaxed);
            metrics.drained_bytes(bytes.saturating_sub(last));
            memory.set_moving(&self.group, (bytes, total));
        };
        loop {
            before.store(0, Ordering::Relaxed);
            let retired = self
                .context
                .scheduler
                .retire(&endpoint, &rest, self.left(), &moved)
                .await
                .map_err(|error| error.to_string())?;
            rest = retired.left;
            if rest.is_empty() || self.left().is_zero() {
                return Ok(Some(rest));
            }
            tokio::time::sleep(TRY_AGAIN.min(self.left())).await;
        }
    }

    /// Whether the cluster has workers that stay: a pod is ready before the
    /// worker in it is connected, and in a roll-out all old ones may be chosen
    /// by then.
    fn others_are_to_come(&self) -> bool {
        let (stores, namespace) = (&self.context.stores, &self.group.namespace);
        let groups = stores.groups.all();
        let of_cluster = groups.iter().filter(|group| {
            group.namespace().as_ref() == Some(namespace) && group.spec.cluster == self.cluster
        });
        of_cluster.into_iter().any(|group| {
            let key = Key::new(self.group.kind, namespace, group.name_any());
            let deployments = stores.deployments.indexed(namespace, &key.name);
            deployments.iter().any(|deployment| {
                deployment.metadata.deletion_timestamp.is_none()
                    && !deployment.annotations().contains_key(RETIRING)
                    && !self
                        .context
                        .memory
                        .is_retiring(&key, &deployment.name_any())
            })
        })
    }

    /// When every worker that is connected is to go, there is nobody to take their
    /// results: whoever asks for no workers gives them up. Tasks may still end.
    async fn last_ones(&self, infos: Vec<WorkerInfo>) -> Result<Option<Vec<String>>, String> {
        let busy: Vec<String> = infos
            .iter()
            .filter(|info| info.processing > 0)
            .map(|info| info.address.clone())
            .collect();
        if busy.is_empty() {
            let results: u64 = infos.iter().map(|info| info.results).sum();
            if results > 0 && self.others_are_to_come() && !self.left().is_zero() {
                return Err("the workers that stay are not connected yet".to_owned());
            }
            if results > 0 {
                let note =
                    format!("The last workers of the cluster end, and {results} results with them");
                self.warn("ResultsDropped", note).await;
            }
            return Ok(Some(Vec::new()));
        }
        if self.left().is_zero() {
            return Ok(Some(busy));
        }
        tokio::time::sleep(TRY_AGAIN.min(self.left())).await;
        Err("its workers still execute tasks".to_owned())
    }
}
