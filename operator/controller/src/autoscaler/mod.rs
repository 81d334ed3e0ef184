//! DaskAutoscaler: groups as large as their work asks for.

mod decide;
mod demand;

pub(crate) use demand::Watches;

use std::sync::Arc;
use std::time::Duration;

use kube::{Resource as _, ResourceExt as _};
use oxidask_operator_api::{DaskAutoscaler, DaskAutoscalerStatus, DaskWorkerGroup, GroupTarget};
use serde_json::json;
use tracing::{debug, info, warn};

use crate::api;
use crate::build;
use crate::conditions::{Finding, merged};
use crate::context::{Action, Context};
use crate::error::Error;
use crate::labels::COOLDOWN;
use crate::names;
use crate::owners;
use crate::queue::Key;
use crate::scheduler::{Demand, GroupOffer};
use crate::takeover;

use self::decide::{Decision, Limits, decide, limits_of, shares};

/// How often the scheduler is asked, as upstream does.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long nothing is decided after a change.
const COOLDOWN_SECONDS: f64 = 15.0;
/// Workers go when no demand of this long asked for them.
const WINDOW: Duration = Duration::from_secs(15);

/// Looks at a cluster's demand and scales its groups.
pub(crate) async fn reconcile(context: &Context, key: &Key) -> Result<Action, Error> {
    let Some(autoscaler) = context.stores.autoscalers.get(&key.namespace, &key.name) else {
        context.metrics.autoscaler_gone(&key.namespace, &key.name);
        context.memory.forget(key);
        return Ok(Action::AwaitChange);
    };
    takeover::unmark(&context.client, &*autoscaler).await?;
    if autoscaler.meta().deletion_timestamp.is_some() {
        return Ok(Action::AwaitChange);
    }
    let (namespace, cluster_name) = (&key.namespace, &autoscaler.spec.cluster);
    let Some(cluster) = context.stores.clusters.get(namespace, cluster_name) else {
        let message = format!("there is no DaskCluster {cluster_name} in this namespace");
        tell(context, &autoscaler, &[], "ClusterNotFound", message).await?;
        return Ok(Action::AwaitChange);
    };
    if owners::controller_uid(autoscaler.meta()) != cluster.uid().as_deref() {
        let patch = json!({"metadata": {"ownerReferences": [build::owner(&*cluster)]}});
        api::merge::<DaskAutoscaler>(&context.client, namespace, &key.name, &patch).await?;
        info!(
            namespace,
            name = key.name,
            cluster = cluster_name,
            "autoscaler adopted by its cluster"
        );
    }
    let now = context.clock.seconds();
    let cooldown_until: f64 = autoscaler
        .annotations()
        .get(COOLDOWN)
        .and_then(|until| until.parse().ok())
        .unwrap_or(0.0);
    if now < cooldown_until {
        let left = Duration::from_secs_f64((cooldown_until - now).clamp(0.05, 60.0));
        return Ok(Action::After(left.min(INTERVAL)));
    }
    let groups = groups(context, &autoscaler);
    if groups.is_empty() {
        return Ok(Action::After(INTERVAL));
    }
    if cluster.spec.suspend == Some(true) {
        let message = "the cluster is suspended".to_owned();
        tell(context, &autoscaler, &[], "Suspended", message).await?;
        return Ok(Action::AwaitChange);
    }
    let Some(endpoint) = context.endpoint(namespace, cluster_name) else {
        debug!(
            namespace,
            name = key.name,
            "Scheduler not ready, skipping autoscaling"
        );
        let message = "the scheduler is not ready".to_owned();
        tell(context, &autoscaler, &[], "SchedulerNotReady", message).await?;
        return Ok(Action::After(INTERVAL));
    };
    let offers: Vec<GroupOffer> = groups
        .iter()
        .map(|(group, _)| offer(context, group))
        .collect();
    let demand = match demand::demand(context, key, &endpoint, &offers).await {
        Ok(demand) => demand,
        Err(error) => {
            warn!(namespace, name = key.name, %error, "Unable to get desired number of workers from scheduler.");
            let message = error.to_string();
            tell(context, &autoscaler, &[], "SchedulerUnreachable", message).await?;
            return Ok(Action::After(INTERVAL));
        }
    };
    let decisions = decisions(context, key, &demand, groups);
    scale(context, &autoscaler, &decisions).await?;
    tell_decisions(context, key, &autoscaler, &demand, &decisions).await?;
    Ok(Action::After(INTERVAL))
}

/// The groups that are scaled, the default one first, with their limits.
fn groups(context: &Context, autoscaler: &DaskAutoscaler) -> Vec<(Arc<DaskWorkerGroup>, Limits)> {
    let namespace = autoscaler.namespace().unwrap_or_default();
    let spec = &autoscaler.spec;
    let default = names::default_group(&spec.cluster);
    let further = spec.groups.iter().filter(|bounds| bounds.name != default);
    let named = further.map(|bounds| (bounds.name.clone(), limits_of(bounds)));
    let limits = Limits::new(spec.minimum, spec.maximum);
    std::iter::once((default.clone(), limits))
        .chain(named)
        .filter_map(|(name, limits)| {
            let group = context.stores.groups.get(&namespace, &name)?;
            (group.spec.cluster == spec.cluster).then_some((group, limits))
        })
        .collect()
}

fn offer(context: &Context, group: &DaskWorkerGroup) -> GroupOffer {
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let workers = context.stores.deployments.indexed(&namespace, &name);
    let mut deployments: Vec<String> = workers.iter().map(|worker| worker.name_any()).collect();
    deployments.sort_unstable();
    GroupOffer {
        nthreads: group
            .spec
            .worker
            .nthreads
            .and_then(|nthreads| u32::try_from(nthreads).ok())
            .unwrap_or(0),
        deployments,
        name,
    }
}

/// A decision for one group.
struct Decided {
    group: Arc<DaskWorkerGroup>,
    /// Workers that are asked for.
    share: i64,
    decision: Decision,
}

fn decisions(
    context: &Context,
    key: &Key,
    demand: &Demand,
    groups: Vec<(Arc<DaskWorkerGroup>, Limits)>,
) -> Vec<Decided> {
    let names: Vec<(String, Limits)> = groups
        .iter()
        .map(|(group, limits)| (group.name_any(), *limits))
        .collect();
    let named: Vec<(&str, Limits)> = names.iter().map(|(name, l)| (&**name, *l)).collect();
    let shares = shares(demand, &named);
    groups
        .into_iter()
        .zip(shares)
        .map(|((group, limits), share)| {
            let of = Key::new(
                key.kind,
                &key.namespace,
                format!("{}/{}", key.name, group.name_any()),
            );
            let recent = context.memory.largest_demand(&of, share, WINDOW);
            let decision = decide(group.spec.worker.replicas, share, recent, limits);
            Decided {
                group,
                share,
                decision,
            }
        })
        .collect()
}

async fn scale(
    context: &Context,
    autoscaler: &DaskAutoscaler,
    decisions: &[Decided],
) -> Result<(), Error> {
    let changes = decisions
        .iter()
        .filter(|of| of.decision.target != of.group.spec.worker.replicas);
    let changes: Vec<&Decided> = changes.collect();
    if changes.is_empty() {
        return Ok(());
    }
    let (client, namespace) = (&context.client, autoscaler.namespace().unwrap_or_default());
    // The cooldown first: should the next write fail or never happen, the
    // worst is a decision that comes 15 s late, not one taken twice.
    let until = context.clock.seconds() + COOLDOWN_SECONDS;
    let patch = json!({"metadata": {"annotations": {COOLDOWN: format!("{until:.6}")}}});
    api::merge::<DaskAutoscaler>(client, &namespace, &autoscaler.name_any(), &patch).await?;
    for Decided {
        group, decision, ..
    } in changes
    {
        let (current, name) = (group.spec.worker.replicas, group.name_any());
        let patch = json!({"spec": {"worker": {"replicas": decision.target}}});
        api::merge::<DaskWorkerGroup>(client, &namespace, &name, &patch).await?;
        let note = format!(
            "Autoscaler updated {} worker count of {name} from {current} to {}",
            autoscaler.spec.cluster, decision.target
        );
        context
            .events
            .normal(autoscaler, decision.reason, note)
            .await;
    }
    Ok(())
}

async fn tell_decisions(
    context: &Context,
    key: &Key,
    autoscaler: &DaskAutoscaler,
    demand: &Demand,
    decisions: &[Decided],
) -> Result<(), Error> {
    let Some(first) = decisions.first() else {
        return Ok(());
    };
    for Decided {
        group, decision, ..
    } in decisions
    {
        context.metrics.autoscaled(
            &key.namespace,
            &key.name,
            &group.name_any(),
            decision.target,
            decision.reason,
        );
    }
    let mut message = format!(
        "{} workers are asked for, {}",
        demand.total, first.decision.sentence
    );
    for of in &decisions[1..] {
        let (name, sentence) = (of.group.name_any(), &of.decision.sentence);
        message.push_str(&format!("; {name}: {} are asked for, {sentence}", of.share));
    }
    tell(
        context,
        autoscaler,
        decisions,
        first.decision.reason,
        message,
    )
    .await
}

/// Writes the status, if it changed.
async fn tell(
    context: &Context,
    autoscaler: &DaskAutoscaler,
    decisions: &[Decided],
    reason: &str,
    message: String,
) -> Result<(), Error> {
    // Upstream's schema drops everything of this status.
    if !context.can().autoscaler_status {
        return Ok(());
    }
    let old = autoscaler.status.clone().unwrap_or_default();
    let generation = autoscaler.metadata.generation;
    let finding = Finding::new("Active", !decisions.is_empty(), reason, message);
    let first = decisions.first();
    let further = decisions.iter().skip(1).map(|of| GroupTarget {
        name: of.group.name_any(),
        target: of.decision.target,
        reason: of.decision.reason.to_owned(),
    });
    let status = DaskAutoscalerStatus {
        desired: first.map(|of| of.share).or(old.desired),
        target: first.map(|of| of.decision.target).or(old.target),
        groups: match first {
            Some(_) => further.collect(),
            None => old.groups.clone(),
        },
        conditions: merged(&old.conditions, &[finding], generation, context.clock.now()),
        observed_generation: generation,
    };
    if status == old {
        return Ok(());
    }
    let (namespace, name) = (
        autoscaler.namespace().unwrap_or_default(),
        autoscaler.name_any(),
    );
    api::merge_status::<DaskAutoscaler>(&context.client, &namespace, &name, true, &json!(status))
        .await
}
