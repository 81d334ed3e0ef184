//! What is said of a group in its status.

use kube::ResourceExt as _;
use oxidask_operator_api::{DaskWorkerGroup, DaskWorkerGroupStatus};
use serde_json::json;

use super::Seen;
use crate::api;
use crate::conditions::{Finding, merged, news};
use crate::context::Context;
use crate::error::Error;
use crate::labels;
use crate::validate::{self, COMMAND_RECOGNISED};

/// Says that the group's cluster does not exist.
pub(super) async fn without_cluster(
    context: &Context,
    group: &DaskWorkerGroup,
) -> Result<(), Error> {
    let message = format!(
        "there is no DaskCluster {} in this namespace; the group gets its workers when there is",
        group.spec.cluster
    );
    let finding = Finding::new("Ready", false, "ClusterNotFound", message);
    let status = group.status.clone().unwrap_or_default();
    put(context, group, status, &[finding]).await
}

/// Writes the status, if it changed.
pub(super) async fn write(
    context: &Context,
    seen: &Seen,
    error: Option<&Error>,
) -> Result<(), Error> {
    let staying = seen.workers.iter().filter(|worker| !worker.retiring);
    let existing = staying.clone().count();
    let ready = staying.filter(|worker| worker.ready).count();
    let draining = seen.workers.len() - existing;
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    context.metrics.workers(
        &seen.key.namespace,
        &seen.key.name,
        &[
            ("desired", count(seen.desired)),
            ("existing", count(existing)),
            ("ready", count(ready)),
            ("draining", count(draining)),
        ],
    );
    let status = DaskWorkerGroupStatus {
        replicas: Some(count(existing)),
        ready_replicas: Some(count(ready)),
        draining_replicas: Some(count(draining)),
        selector: Some(labels::group_selector(&seen.key.name)),
        ..seen.group.status.clone().unwrap_or_default()
    };
    let mut findings = vec![
        readiness(seen, existing, ready, error),
        draining_finding(draining, context.memory.moving(&seen.key)),
    ];
    findings.extend(validate::group_commands(
        &seen.group.spec.worker,
        &seen.cluster,
    ));
    put(context, &seen.group, status, &findings).await
}

fn readiness(seen: &Seen, existing: usize, ready: usize, error: Option<&Error>) -> Finding {
    if let Some(error) = error {
        return Finding::new("Ready", false, error.reason(), error.sentence());
    }
    if seen.group.spec.suspend == Some(true) || seen.cluster.spec.suspend == Some(true) {
        return Finding::new("Ready", false, "Suspended", "the group is suspended");
    }
    if ready >= seen.desired && existing == seen.desired {
        return Finding::new(
            "Ready",
            true,
            "AllWorkersReady",
            format!("{ready} workers are ready"),
        );
    }
    let counts = format!("{ready} of {} workers are ready", seen.desired);
    match trouble(seen) {
        Some((reason, message)) => {
            Finding::new("Ready", false, reason, format!("{counts}; {message}"))
        }
        None if existing > seen.desired => Finding::new("Ready", false, "Scaling", counts),
        None => Finding::new("Ready", false, "Starting", counts),
    }
}

/// What keeps a worker from running, if anything does.
fn trouble(seen: &Seen) -> Option<(String, String)> {
    let of_pods = seen.pods.iter().find_map(|pod| {
        let (reason, message) = pod.trouble()?;
        Some((reason, format!("pod {}: {message}", pod.name_any())))
    });
    of_pods.or_else(|| {
        seen.deployments.iter().find_map(|deployment| {
            let refused = deployment.refused()?;
            let message = format!("Deployment {}: {}", deployment.name_any(), refused.message);
            Some((refused.reason.clone(), message))
        })
    })
}

fn draining_finding(draining: usize, moving: Option<(u64, u64)>) -> Finding {
    if draining == 0 {
        return Finding::new(
            "Draining",
            false,
            "NothingToDrain",
            "no worker is being retired",
        );
    }
    let mut message = format!("{draining} workers hand over their results and finish their tasks");
    if let Some((moved, total)) = moving {
        message.push_str(&format!("; {moved} of {total} bytes are moved"));
    }
    Finding::new("Draining", true, "Retiring", message)
}

async fn put(
    context: &Context,
    group: &DaskWorkerGroup,
    mut status: DaskWorkerGroupStatus,
    findings: &[Finding],
) -> Result<(), Error> {
    // Upstream's schema drops everything of this status.
    if !context.can().group_status {
        return Ok(());
    }
    let old = group.status.clone().unwrap_or_default();
    status.observed_generation = group.metadata.generation;
    status.conditions = merged(
        &old.conditions,
        findings,
        group.metadata.generation,
        context.clock.now(),
    );
    if status == old {
        return Ok(());
    }
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let json = json!(status);
    api::merge_status::<DaskWorkerGroup>(&context.client, &namespace, &name, true, &json).await?;
    for finding in news(&old.conditions, findings) {
        if finding.type_ == "Ready" && finding.status {
            context
                .events
                .normal(group, &finding.reason, finding.message.clone())
                .await;
        } else if matches!(finding.type_, "Ready" | COMMAND_RECOGNISED)
            && !finding.status
            && !matches!(&*finding.reason, "Starting" | "Scaling" | "Suspended")
        {
            context
                .events
                .warning(group, &finding.reason, finding.message.clone())
                .await;
        }
    }
    Ok(())
}
