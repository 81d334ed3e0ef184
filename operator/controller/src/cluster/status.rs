//! What is said of a cluster in its status.

use std::time::Duration;

use kube::ResourceExt as _;
use oxidask_operator_api::{DaskCluster, DaskClusterStatus, Phase};
use serde_json::json;

use super::Seen;
use super::children::scheduler_is_outdated;
use crate::api;
use crate::conditions::{Finding, merged, news};
use crate::context::Context;
use crate::error::Error;
use crate::labels;
use crate::names;
use crate::validate::{self, COMMAND_RECOGNISED};
use crate::views::ServiceView;

/// Says that the cluster's name cannot be used. Nothing is made.
pub(super) async fn invalid(
    context: &Context,
    cluster: &DaskCluster,
    fault: String,
) -> Result<(), Error> {
    let findings = [Finding::new("Ready", false, "InvalidName", fault)];
    let status = DaskClusterStatus::default();
    put(context, cluster, Phase::Error, status, &findings).await
}

/// Writes the status, if it changed.
pub(super) async fn write(
    context: &Context,
    seen: &Seen,
    error: Option<&Error>,
) -> Result<(), Error> {
    let phase = phase(seen.service.as_deref());
    let group = seen
        .group
        .as_ref()
        .and_then(|group| group.status.clone())
        .unwrap_or_default();
    let status = DaskClusterStatus {
        replicas: group.replicas,
        ready_replicas: group.ready_replicas,
        selector: Some(labels::group_selector(&names::default_group(&seen.name))),
        ..DaskClusterStatus::default()
    };
    let scheduler = scheduler(seen, error);
    let workers = workers(seen);
    let ready = ready(seen, &scheduler, &workers);
    let mut findings = vec![ready, scheduler, workers, suspended(&seen.cluster)];
    findings.extend(validate::cluster_commands(&seen.cluster));
    put(context, &seen.cluster, phase, status, &findings).await
}

/// The phase in upstream's sense: it follows the scheduler's Service alone.
fn phase(service: Option<&ServiceView>) -> Phase {
    match service {
        None => Phase::Created,
        Some(service)
            if service.spec.type_ == "LoadBalancer"
                && service.status.load_balancer.ingress.is_empty() =>
        {
            Phase::Pending
        }
        Some(_) => Phase::Running,
    }
}

fn scheduler(seen: &Seen, error: Option<&Error>) -> Finding {
    const TYPE: &str = "SchedulerReady";
    if let Some(error) = error {
        return Finding::new(TYPE, false, error.reason(), error.sentence());
    }
    if seen.cluster.spec.suspend == Some(true) {
        return Finding::new(TYPE, false, "Suspended", "the cluster is suspended");
    }
    let is_ready = seen.scheduler_pods.iter().any(|pod| pod.is_ready());
    if is_ready && scheduler_is_outdated(seen) {
        let message = format!(
            "the scheduler runs with an earlier spec; set the annotation {} to another value to replace it, which loses its tasks and results",
            labels::RESTART_SCHEDULER
        );
        return Finding::new(TYPE, true, "SpecChanged", message);
    }
    if is_ready {
        return Finding::new(TYPE, true, "Ready", "the scheduler is ready");
    }
    if let Some((reason, message)) = seen.scheduler_pods.iter().find_map(|pod| pod.trouble()) {
        return Finding::new(TYPE, false, reason, message);
    }
    if let Some(refused) = seen
        .deployment
        .as_ref()
        .and_then(|deployment| deployment.refused())
    {
        return Finding::new(TYPE, false, &*refused.reason, &*refused.message);
    }
    Finding::new(TYPE, false, "Starting", "the scheduler is starting")
}

fn workers(seen: &Seen) -> Finding {
    let conditions = seen
        .group
        .as_ref()
        .and_then(|group| group.status.as_ref())
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    match conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
    {
        Some(ready) => Finding::new(
            "WorkersReady",
            ready.status == "True",
            &*ready.reason,
            &*ready.message,
        ),
        None => Finding::new(
            "WorkersReady",
            false,
            "Starting",
            "the workers are starting",
        ),
    }
}

fn ready(seen: &Seen, scheduler: &Finding, workers: &Finding) -> Finding {
    let first_fault = [scheduler, workers]
        .into_iter()
        .find(|finding| !finding.status);
    match first_fault {
        None => Finding::new(
            "Ready",
            true,
            "Ready",
            "the scheduler and all wanted workers are ready",
        ),
        Some(_) if seen.cluster.spec.suspend == Some(true) => {
            Finding::new("Ready", false, "Suspended", "the cluster is suspended")
        }
        Some(fault) => Finding::new("Ready", false, &*fault.reason, &*fault.message),
    }
}

fn suspended(cluster: &DaskCluster) -> Finding {
    match cluster.spec.suspend {
        Some(true) => Finding::new("Suspended", true, "Suspended", "spec.suspend is true"),
        _ => Finding::new(
            "Suspended",
            false,
            "NotSuspended",
            "spec.suspend is not set",
        ),
    }
}

async fn put(
    context: &Context,
    cluster: &DaskCluster,
    phase: Phase,
    mut status: DaskClusterStatus,
    findings: &[Finding],
) -> Result<(), Error> {
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let old = cluster.status.clone().unwrap_or_default();
    status.phase = Some(phase.as_str().to_owned());
    if !context.can().cluster_status {
        // Upstream's schema drops all but the phase.
        if old.phase != status.phase {
            let json = json!({"phase": status.phase});
            api::merge_status::<DaskCluster>(&context.client, &namespace, &name, false, &json)
                .await?;
            tell(context, cluster, findings, &old).await;
        }
        return Ok(());
    }
    status.observed_generation = cluster.metadata.generation;
    status.conditions = merged(
        &old.conditions,
        findings,
        cluster.metadata.generation,
        context.clock.now(),
    );
    if status == old {
        return Ok(());
    }
    let json = json!(status);
    api::merge_status::<DaskCluster>(&context.client, &namespace, &name, true, &json).await?;
    tell(context, cluster, findings, &old).await;
    Ok(())
}

/// One Event per change of the reason why the cluster is ready or not.
async fn tell(
    context: &Context,
    cluster: &DaskCluster,
    findings: &[Finding],
    old: &DaskClusterStatus,
) {
    for finding in news(&old.conditions, findings) {
        if finding.type_ == COMMAND_RECOGNISED && !finding.status {
            let note = finding.message.clone();
            context.events.warning(cluster, &finding.reason, note).await;
        }
        if finding.type_ != "Ready" {
            continue;
        }
        if finding.status {
            context
                .events
                .normal(cluster, "Ready", finding.message.clone())
                .await;
            let never_ready = !old
                .conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True");
            let first = never_ready && old.conditions.iter().all(|c| c.reason != "Suspended");
            if let Some(created) = cluster.creation_timestamp().filter(|_| first) {
                let took = context.clock.now().duration_since(created.0);
                context
                    .metrics
                    .cluster_ready(Duration::try_from(took).unwrap_or_default());
            }
        } else if !matches!(&*finding.reason, "Starting" | "Scaling" | "Suspended") {
            context
                .events
                .warning(cluster, &finding.reason, finding.message.clone())
                .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(type_: &str, ingress: &serde_json::Value) -> ServiceView {
        serde_json::from_value(
            json!({"spec": {"type": type_}, "status": {"loadBalancer": {"ingress": ingress}}}),
        )
        .unwrap()
    }

    #[test]
    fn the_phase_follows_the_service_alone() {
        assert_eq!(phase(None), Phase::Created);
        assert_eq!(
            phase(Some(&service("ClusterIP", &json!([])))),
            Phase::Running
        );
        assert_eq!(
            phase(Some(&service("LoadBalancer", &json!([])))),
            Phase::Pending
        );
        assert_eq!(
            phase(Some(&service("LoadBalancer", &json!([{"ip": "1.2.3.4"}])))),
            Phase::Running
        );
    }
}
