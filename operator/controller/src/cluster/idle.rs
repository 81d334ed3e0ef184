//! What happens to a cluster that nobody uses.

use oxidask_operator_api::{DaskCluster, DaskWorkerGroup, IdleAction};
use serde_json::json;
use tracing::{debug, warn};

use kube::ResourceExt as _;

use super::Seen;
use crate::api;
use crate::context::Context;
use crate::error::Error;

/// Takes the cluster's idle action if its scheduler has been idle for longer
/// than the cluster's timeout. A scheduler that cannot be asked is not idle.
pub(super) async fn check(context: &Context, seen: &Seen) -> Result<(), Error> {
    let cluster = &seen.cluster;
    let (namespace, name) = (&seen.namespace, &seen.name);
    if cluster.spec.suspend == Some(true) {
        return Ok(());
    }
    let Some(endpoint) = context.endpoint(namespace, name) else {
        debug!(
            namespace,
            name, "the scheduler is not ready, no look at its idleness"
        );
        return Ok(());
    };
    let idle_since = match context.scheduler.idle_since(&endpoint).await {
        Ok(idle_since) => idle_since,
        Err(error) => {
            warn!(namespace, name, %error, "Unable to connect to scheduler, skipping autoshutdown check.");
            return Ok(());
        }
    };
    if is_over(
        idle_since,
        cluster.spec.idle_timeout,
        context.clock.seconds(),
    ) {
        act(context, seen).await?;
    }
    Ok(())
}

fn is_over(idle_since: Option<f64>, timeout_seconds: i64, now: f64) -> bool {
    // A scheduler that was never busy says 0 in some versions: not known.
    idle_since.is_some_and(|since| since > 0.0 && now > since + timeout_seconds as f64)
}

async fn act(context: &Context, seen: &Seen) -> Result<(), Error> {
    let cluster = &seen.cluster;
    let (client, namespace, name) = (&context.client, &seen.namespace, &seen.name);
    let action = cluster.spec.idle_action.unwrap_or(IdleAction::Delete);
    let note = format!(
        "Idle for more than {} s: idleAction is taken.",
        cluster.spec.idle_timeout
    );
    match action {
        IdleAction::Delete => {
            context.events.normal(&**cluster, "IdleTimeout", note).await;
            api::delete::<DaskCluster>(client, namespace, name, cluster.metadata.uid.as_deref())
                .await
        }
        IdleAction::Suspend => {
            context.events.normal(&**cluster, "IdleTimeout", note).await;
            let patch = json!({"spec": {"suspend": true}});
            api::merge::<DaskCluster>(client, namespace, name, &patch)
                .await
                .map(drop)
        }
        IdleAction::ScaleToZero => {
            let mut running = context.stores.groups.indexed(namespace, name);
            running.retain(|group| group.spec.worker.replicas > 0);
            if !running.is_empty() {
                context.events.normal(&**cluster, "IdleTimeout", note).await;
            }
            for group in running {
                let patch = json!({"spec": {"worker": {"replicas": 0}}});
                api::merge::<DaskWorkerGroup>(client, namespace, &group.name_any(), &patch).await?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_over;

    #[test]
    fn a_busy_scheduler_is_not_idle_however_long_ago() {
        assert!(!is_over(None, 1, 1e9));
        assert!(!is_over(Some(0.0), 1, 1e9));
        assert!(!is_over(Some(1000.0), 60, 1060.0));
        assert!(is_over(Some(1000.0), 60, 1061.0));
    }
}
