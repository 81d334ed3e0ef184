//! DaskWorkerGroup: as many workers as wanted, each with a Deployment.

mod plan;
mod retire;
mod status;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use oxidask_operator_api::{DaskCluster, DaskWorkerGroup};
use serde_json::json;
use std::sync::Arc;
use tracing::info;

use crate::api;
use crate::build::{self, WorkerParent};
use crate::context::{Action, Context};
use crate::error::Error;
use crate::guards;
use crate::labels::{RETIRING, SPEC_HASH};
use crate::names;
use crate::queue::Key;
use crate::stores::pods_of;
use crate::takeover;
use crate::views::{DeploymentView, PodView};
use crate::{labels, owners};

use self::plan::{Plan, Worker, plan};

/// Creations under way at a time, for one group.
const CREATING: usize = 8;
/// Most workers created before other resources get their turn.
const TURN: usize = 100;

/// What was seen of a group and of what it depends on.
struct Seen {
    key: Key,
    group: Arc<DaskWorkerGroup>,
    cluster: Arc<DaskCluster>,
    deployments: Vec<Arc<DeploymentView>>,
    pods: Vec<Arc<PodView>>,
    workers: Vec<Worker>,
    desired: usize,
    /// Name of the Secret whose certificates the scheduler was started with.
    tls: Option<String>,
}

impl Seen {
    fn parent(&self) -> WorkerParent<'_> {
        WorkerParent {
            group: &self.group,
            cluster: &self.cluster,
            tls: self.tls.as_deref(),
        }
    }
}

/// Brings a group one step nearer to what is wanted.
pub(crate) async fn reconcile(context: &Context, key: &Key) -> Result<Action, Error> {
    // First of all, because the marks hold Deployments back even when their
    // group is gone.
    for deployment in context
        .stores
        .deployments
        .indexed(&key.namespace, &key.name)
    {
        takeover::unmark(&context.client, &*deployment).await?;
    }
    let Some(group) = context.stores.groups.get(&key.namespace, &key.name) else {
        context.metrics.group_gone(&key.namespace, &key.name);
        context.memory.forget(key);
        return Ok(Action::AwaitChange);
    };
    takeover::unmark(&context.client, &*group).await?;
    if group.meta().deletion_timestamp.is_some() {
        return Ok(Action::AwaitChange);
    }
    let Some(cluster) = context
        .stores
        .clusters
        .get(&key.namespace, &group.spec.cluster)
    else {
        status::without_cluster(context, &group).await?;
        return Ok(Action::AwaitChange);
    };
    if cluster.meta().deletion_timestamp.is_some()
        || names::validate_cluster(&cluster.name_any()).is_err()
    {
        return Ok(Action::AwaitChange);
    }
    if owners::controller_uid(group.meta()) != cluster.uid().as_deref() {
        adopt(context, &group, &cluster).await?;
    }
    let mut seen = dereference(context, key.clone(), group, cluster);
    adopt_workers(context, &seen).await?;
    if retire::evicted(context, &seen).await? {
        seen = dereference(context, seen.key, seen.group, seen.cluster);
    }
    let outcome = match act(context, &seen).await {
        Ok(action) => guard(context, &seen).await.map(|later| action.or(later)),
        Err(error) => Err(error),
    };
    let seen = dereference(context, seen.key, seen.group, seen.cluster);
    status::write(context, &seen, outcome.as_ref().err()).await?;
    outcome
}

/// The budget of the group's workers.
async fn guard(context: &Context, seen: &Seen) -> Result<Action, Error> {
    let wanted = build::group_budget(&seen.group, &seen.cluster);
    let wanted = wanted.into_iter().collect();
    let again = guards::keep(context, &seen.key, &*seen.group, wanted).await?;
    Ok(again.map_or(Action::AwaitChange, Action::After))
}

/// Makes the group a child of its cluster, so that it goes when that goes.
async fn adopt(
    context: &Context,
    group: &DaskWorkerGroup,
    cluster: &DaskCluster,
) -> Result<(), Error> {
    let patch = json!({"metadata": {"ownerReferences": [build::owner(cluster)]}});
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    api::merge::<DaskWorkerGroup>(&context.client, &namespace, &name, &patch).await?;
    info!(
        namespace,
        name,
        cluster = cluster.name_any(),
        "worker group adopted by its cluster"
    );
    Ok(())
}

fn dereference(
    context: &Context,
    key: Key,
    group: Arc<DaskWorkerGroup>,
    cluster: Arc<DaskCluster>,
) -> Seen {
    let deployments = context
        .stores
        .deployments
        .indexed(&key.namespace, &key.name);
    let pods = context
        .stores
        .pods
        .indexed(&key.namespace, &pods_of(labels::WORKER, &key.name));
    let tls = scheduler_tls(context, &key.namespace, &cluster);
    let hash = build::worker_hash(WorkerParent {
        group: &group,
        cluster: &cluster,
        tls: tls.as_deref(),
    });
    let there = names_of(&deployments);
    context
        .memory
        .keep_retiring(&key, |name| there.contains(name));
    // By their Deployment: a group may have thousands of both.
    let mut pods_by: HashMap<&str, Vec<&Arc<PodView>>> = HashMap::new();
    for pod in &pods {
        if let Some(deployment) = pod.deployment() {
            pods_by.entry(deployment).or_default().push(pod);
        }
    }
    let workers = deployments
        .iter()
        .filter(|deployment| deployment.metadata.deletion_timestamp.is_none())
        .map(|deployment| {
            let name = deployment.name_any();
            let annotations = deployment.annotations();
            let of = pods_by.get(&*name).map_or(&[][..], Vec::as_slice);
            let held = of.iter().find(|pod| pod.is_drained_first());
            let stays = |pod: &&&Arc<PodView>| pod.metadata.deletion_timestamp.is_none();
            let pod = held.or_else(|| of.iter().find(stays));
            Worker {
                uid: deployment.uid().unwrap_or_default(),
                created: deployment
                    .creation_timestamp()
                    .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
                ready: deployment.is_ready(),
                retiring: annotations.contains_key(RETIRING)
                    || context.memory.is_retiring(&key, &name),
                outdated: annotations
                    .get(SPEC_HASH)
                    .is_some_and(|made_from| *made_from != hash),
                evicted: held.is_some(),
                pod_ip: pod.and_then(|pod| pod.status.pod_ip.clone()),
                name,
            }
        })
        .collect();
    let suspended = group.spec.suspend == Some(true) || cluster.spec.suspend == Some(true);
    let desired = if suspended {
        0
    } else {
        usize::try_from(group.spec.worker.replicas).unwrap_or(0)
    };
    Seen {
        key,
        group,
        cluster,
        deployments,
        pods,
        workers,
        desired,
        tls,
    }
}

fn names_of(deployments: &[Arc<DeploymentView>]) -> HashSet<String> {
    deployments.iter().map(|one| one.name_any()).collect()
}

/// The certificates of the scheduler that runs; those of the cluster's spec
/// where none was made yet.
fn scheduler_tls(context: &Context, namespace: &str, cluster: &DaskCluster) -> Option<String> {
    let name = cluster.name_any();
    let scheduler = names::scheduler(&name);
    match context.stores.deployments.get(namespace, &scheduler) {
        Some(_) => context.scheduler_tls(namespace, &name),
        None => build::secret_name(cluster),
    }
}

/// Takes over Deployments that the stock operator made: the present spec counts
/// as the one that they were made from, whatever it was. So nobody's workers restart because the operator changed.
async fn adopt_workers(context: &Context, seen: &Seen) -> Result<(), Error> {
    for deployment in &seen.deployments {
        let (namespace, name) = (&seen.key.namespace, deployment.name_any());
        if !deployment.annotations().contains_key(SPEC_HASH) {
            let patch = json!({"metadata": {"annotations": {SPEC_HASH: build::worker_hash(seen.parent())}}});
            api::merge::<DeploymentView>(&context.client, namespace, &name, &patch).await?;
        }
    }
    Ok(())
}

async fn act(context: &Context, seen: &Seen) -> Result<Action, Error> {
    let resumed = retire::resume(context, seen);
    let there = names_of(&seen.deployments);
    let unseen = context
        .memory
        .unseen(&seen.key, |name| there.contains(name));
    let Plan { create, retire } = plan(seen.desired, &seen.workers, unseen);
    if create > 0 {
        return scale_up(context, seen, create).await;
    }
    if retire > 0 {
        retire::start(context, seen, retire).await?;
    } else if resumed {
        return Ok(Action::After(Duration::from_secs(5)));
    }
    Ok(Action::AwaitChange)
}

async fn scale_up(context: &Context, seen: &Seen, missing: usize) -> Result<Action, Error> {
    if let Some(pause) = context.memory.pause(&seen.key) {
        return Ok(Action::After(pause));
    }
    let is_new = seen.group.status.is_none() && seen.deployments.is_empty();
    if !is_new {
        // When a group is deleted its workers may be seen to go first.
        let (namespace, name) = (&seen.key.namespace, &seen.key.name);
        let current = api::get::<DaskWorkerGroup>(&context.client, namespace, name).await?;
        if !owners::is_same(current.as_ref(), &*seen.group) {
            return Ok(Action::AwaitChange);
        }
    }
    let batch = context
        .settings
        .batch_size
        .unwrap_or(missing)
        .clamp(1, missing);
    let now = batch.min(TURN);
    let created: Vec<()> =
        futures::stream::iter((0..now).map(|_| create(context, &seen.key, seen.parent())))
            .buffer_unordered(CREATING)
            .try_collect()
            .await?;
    let (namespace, name) = (&seen.key.namespace, &seen.key.name);
    info!(
        namespace,
        name,
        workers = created.len(),
        missing,
        "created workers"
    );
    if seen.workers.is_empty() || missing > 1 {
        let note = format!("Scaled worker group {name} up to {} workers.", seen.desired);
        context.events.normal(&*seen.group, "ScaledUp", note).await;
    }
    if now == missing {
        return Ok(Action::AwaitChange);
    }
    let pause = if now < batch {
        Duration::ZERO
    } else {
        context.settings.batch_delay
    };
    context.memory.set_pause(&seen.key, pause);
    Ok(Action::After(pause))
}

async fn create(context: &Context, group: &Key, parent: WorkerParent<'_>) -> Result<(), Error> {
    let manifest = build::worker_deployment(parent, &fresh_id(), &context.site());
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    api::apply::<DeploymentView>(&context.client, &group.namespace, &manifest).await?;
    context.memory.created(group, name.to_owned());
    context.metrics.worker_created();
    Ok(())
}

/// Ten hexadecimal digits that no other worker has.
fn fresh_id() -> String {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    // Each state has random keys of its own, so its hash of nothing is random.
    let random = RandomState::new().build_hasher().finish();
    format!("{:010x}", random & 0xff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::fresh_id;

    #[test]
    fn ids_have_ten_digits_and_differ() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| fresh_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(
            ids.iter()
                .all(|id| id.len() == 10 && id.chars().all(|c| c.is_ascii_hexdigit()))
        );
    }
}
