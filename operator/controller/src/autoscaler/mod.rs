//! DaskAutoscaler: the default group as large as its work asks for.

use std::time::Duration;

use kube::{Resource as _, ResourceExt as _};
use oxidask_operator_api::{DaskAutoscaler, DaskAutoscalerStatus, DaskWorkerGroup};
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
use crate::takeover;

/// How often the scheduler is asked, as upstream does.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long nothing is decided after a change.
const COOLDOWN_SECONDS: f64 = 15.0;
/// Workers go when no demand of this long asked for them.
const WINDOW: Duration = Duration::from_secs(15);

/// Looks at a cluster's demand and scales its default group.
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
        tell(context, &autoscaler, None, "ClusterNotFound", message).await?;
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
    let Some(group) = context
        .stores
        .groups
        .get(namespace, &names::default_group(cluster_name))
    else {
        return Ok(Action::After(INTERVAL));
    };
    if cluster.spec.suspend == Some(true) {
        tell(
            context,
            &autoscaler,
            None,
            "Suspended",
            "the cluster is suspended".to_owned(),
        )
        .await?;
        return Ok(Action::AwaitChange);
    }
    let Some(endpoint) = context.endpoint(namespace, cluster_name) else {
        debug!(
            namespace,
            name = key.name,
            "Scheduler not ready, skipping autoscaling"
        );
        let message = "the scheduler is not ready".to_owned();
        tell(context, &autoscaler, None, "SchedulerNotReady", message).await?;
        return Ok(Action::After(INTERVAL));
    };
    let demand = match context.scheduler.desired_workers(&endpoint).await {
        Ok(demand) => demand.max(0),
        Err(error) => {
            warn!(namespace, name = key.name, %error, "Unable to get desired number of workers from scheduler.");
            tell(
                context,
                &autoscaler,
                None,
                "SchedulerUnreachable",
                error.to_string(),
            )
            .await?;
            return Ok(Action::After(INTERVAL));
        }
    };
    let recent = context.memory.largest_demand(key, demand, WINDOW);
    let current = group.spec.worker.replicas;
    let limits = Limits::new(autoscaler.spec.minimum, autoscaler.spec.maximum);
    let decision = decide(current, demand, recent, limits);
    scale(context, &autoscaler, &group, &decision).await?;
    let message = format!("{demand} workers are asked for, {}", decision.sentence);
    context
        .metrics
        .autoscaled(namespace, &key.name, decision.target, decision.reason);
    tell(
        context,
        &autoscaler,
        Some((demand, decision.target)),
        decision.reason,
        message,
    )
    .await?;
    Ok(Action::After(INTERVAL))
}

/// How many workers there may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    minimum: i64,
    maximum: i64,
}

impl Limits {
    fn new(minimum: Option<i64>, maximum: Option<i64>) -> Self {
        Self {
            minimum: minimum.unwrap_or(0).max(0),
            maximum: maximum.unwrap_or(i64::MAX).max(0),
        }
    }
}

/// A decision and why.
#[derive(Clone, Debug, PartialEq)]
struct Decision {
    target: i64,
    reason: &'static str,
    sentence: String,
}

/// How many workers there should be, of `current` ones, when `demand` are asked
/// for now and at most `recent` were lately.
///
/// Upwards at once. Downwards to what was asked for lately, and by at most a
/// quarter (but one) at a time, as upstream does.
fn decide(current: i64, demand: i64, recent: i64, limits: Limits) -> Decision {
    // As upstream: the maximum wins over the minimum.
    let clamp = |n: i64| n.max(limits.minimum).min(limits.maximum);
    let decision = |target: i64, reason, sentence: String| Decision {
        target,
        reason,
        sentence,
    };
    let wanted = clamp(demand);
    if wanted > current {
        let reason = if demand > limits.maximum {
            "LimitedByMaximum"
        } else {
            "ScaledUp"
        };
        return decision(
            wanted,
            reason,
            format!("scaled up from {current} to {wanted}"),
        );
    }
    let lately = clamp(recent.max(demand));
    if lately >= current {
        let reason = match () {
            () if demand > limits.maximum => "LimitedByMaximum",
            () if wanted < current => "Stabilising",
            () if demand < limits.minimum => "LimitedByMinimum",
            () => "AsWanted",
        };
        return decision(current, reason, format!("{current} stay"));
    }
    let step = (current / 4).max(1);
    let target = lately.max(current - step);
    let reason = if target > lately {
        "LimitedByStep"
    } else {
        "ScaledDown"
    };
    decision(
        target,
        reason,
        format!("scaled down from {current} to {target}"),
    )
}

async fn scale(
    context: &Context,
    autoscaler: &DaskAutoscaler,
    group: &DaskWorkerGroup,
    decision: &Decision,
) -> Result<(), Error> {
    let current = group.spec.worker.replicas;
    if decision.target == current {
        return Ok(());
    }
    let (client, namespace) = (&context.client, autoscaler.namespace().unwrap_or_default());
    // The cooldown first: should the next write fail or never happen, the
    // worst is a decision that comes 15 s late, not one taken twice.
    let until = context.clock.seconds() + COOLDOWN_SECONDS;
    let patch = json!({"metadata": {"annotations": {COOLDOWN: format!("{until:.6}")}}});
    api::merge::<DaskAutoscaler>(client, &namespace, &autoscaler.name_any(), &patch).await?;
    let patch = json!({"spec": {"worker": {"replicas": decision.target}}});
    api::merge::<DaskWorkerGroup>(client, &namespace, &group.name_any(), &patch).await?;
    let note = format!(
        "Autoscaler updated {} worker count from {current} to {}",
        autoscaler.spec.cluster, decision.target
    );
    context
        .events
        .normal(autoscaler, decision.reason, note)
        .await;
    Ok(())
}

/// Writes the status, if it changed.
async fn tell(
    context: &Context,
    autoscaler: &DaskAutoscaler,
    numbers: Option<(i64, i64)>,
    reason: &str,
    message: String,
) -> Result<(), Error> {
    // Upstream's schema drops everything of this status.
    if !context.can().autoscaler_status {
        return Ok(());
    }
    let old = autoscaler.status.clone().unwrap_or_default();
    let generation = autoscaler.metadata.generation;
    let finding = Finding::new("Active", numbers.is_some(), reason, message);
    let status = DaskAutoscalerStatus {
        desired: numbers.map(|(demand, _)| demand).or(old.desired),
        target: numbers.map(|(_, target)| target).or(old.target),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn target(current: i64, demand: i64, recent: i64, limits: (i64, i64)) -> (i64, &'static str) {
        let limits = Limits::new(Some(limits.0), Some(limits.1));
        let decision = decide(current, demand, recent, limits);
        (decision.target, decision.reason)
    }

    #[test]
    fn up_goes_at_once_and_to_the_maximum_at_most() {
        assert_eq!(target(0, 7, 7, (0, 10)), (7, "ScaledUp"));
        assert_eq!(target(4, 70, 70, (0, 10)), (10, "LimitedByMaximum"));
        assert_eq!(target(10, 70, 70, (0, 10)), (10, "LimitedByMaximum"));
    }

    #[test]
    fn down_goes_by_a_quarter_and_to_the_minimum_at_most() {
        assert_eq!(target(20, 0, 0, (0, 50)), (15, "LimitedByStep"));
        assert_eq!(target(2, 0, 0, (0, 50)), (1, "LimitedByStep"));
        assert_eq!(target(1, 0, 0, (0, 50)), (0, "ScaledDown"));
        assert_eq!(target(2, 0, 0, (2, 50)), (2, "LimitedByMinimum"));
        // A maximum below what is there drains at the same pace.
        assert_eq!(target(20, 20, 20, (0, 4)), (15, "LimitedByStep"));
    }

    #[test]
    fn a_dip_of_the_demand_is_waited_out() {
        assert_eq!(target(8, 1, 8, (0, 50)), (8, "Stabilising"));
        assert_eq!(target(8, 1, 7, (0, 50)), (7, "ScaledDown"));
    }

    #[test]
    fn without_limits_the_demand_counts() {
        let decision = decide(3, 500, 500, Limits::new(None, None));
        assert_eq!(decision.target, 500);
    }
}
