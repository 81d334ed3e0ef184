//! DaskCluster: a scheduler, its Service, and a default group of workers.

mod certificates;
mod children;
mod idle;
mod status;

use std::sync::Arc;
use std::time::Duration;

use kube::{Resource as _, ResourceExt as _};
use oxidask_operator_api::{DaskCluster, DaskWorkerGroup};

use crate::context::{Action, Context};
use crate::error::Error;
use crate::names;
use crate::queue::Key;
use crate::stores::pods_of;
use crate::views::{DeploymentView, PodView, ServiceView};
use crate::{build, guards, labels, takeover};

/// How often an idle scheduler is looked for, as upstream does.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);

/// What was seen of a cluster's children.
struct Seen {
    cluster: Arc<DaskCluster>,
    namespace: String,
    name: String,
    deployment: Option<Arc<DeploymentView>>,
    service: Option<Arc<ServiceView>>,
    group: Option<Arc<DaskWorkerGroup>>,
    scheduler_pods: Vec<Arc<PodView>>,
}

/// Brings a cluster one step nearer to what is wanted.
pub(crate) async fn reconcile(context: &Context, key: &Key) -> Result<Action, Error> {
    unmark_children(context, key).await?;
    let Some(cluster) = context.stores.clusters.get(&key.namespace, &key.name) else {
        context.memory.forget(key);
        return Ok(Action::AwaitChange);
    };
    takeover::unmark(&context.client, &*cluster).await?;
    if cluster.meta().deletion_timestamp.is_some() {
        return Ok(Action::AwaitChange);
    }
    if let Err(fault) = names::validate_cluster(&key.name) {
        status::invalid(context, &cluster, fault).await?;
        return Ok(Action::AwaitChange);
    }
    let mut seen = dereference(context, cluster);
    let outcome = match children::apply(context, &mut seen).await {
        Ok(()) => guard(context, key, &seen).await,
        Err(error) => Err(error),
    };
    status::write(context, &seen, outcome.as_ref().err()).await?;
    let action = outcome?;
    if seen.cluster.spec.idle_timeout > 0 {
        idle::check(context, &seen).await?;
        return Ok(action.or(Action::After(IDLE_INTERVAL)));
    }
    Ok(action)
}

/// The NetworkPolicies of the cluster and the budget of its scheduler.
async fn guard(context: &Context, key: &Key, seen: &Seen) -> Result<Action, Error> {
    let mut wanted = build::network_policies(&seen.cluster, &context.settings.namespace);
    wanted.extend(build::scheduler_budget(&seen.cluster));
    let again = guards::keep(context, key, &*seen.cluster, wanted).await?;
    Ok(again.map_or(Action::AwaitChange, Action::After))
}

fn dereference(context: &Context, cluster: Arc<DaskCluster>) -> Seen {
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let scheduler = names::scheduler(&name);
    let stores = &context.stores;
    Seen {
        deployment: stores.deployments.get(&namespace, &scheduler),
        service: stores.services.get(&namespace, &scheduler),
        group: stores.groups.get(&namespace, &names::default_group(&name)),
        scheduler_pods: stores
            .pods
            .indexed(&namespace, &pods_of(labels::SCHEDULER, &name)),
        cluster,
        namespace,
        name,
    }
}

/// The stock operator also marked Services and Deployments; the marks hold
/// them back even when their cluster is gone.
async fn unmark_children(context: &Context, key: &Key) -> Result<(), Error> {
    let name = names::scheduler(&key.name);
    if let Some(deployment) = context.stores.deployments.get(&key.namespace, &name) {
        takeover::unmark(&context.client, &*deployment).await?;
    }
    if let Some(service) = context.stores.services.get(&key.namespace, &name) {
        takeover::unmark(&context.client, &*service).await?;
    }
    Ok(())
}
