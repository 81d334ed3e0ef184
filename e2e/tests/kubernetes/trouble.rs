//! What goes wrong on Kubernetes is said in the cluster's conditions, and goes when its cause goes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace},
    operator, wait,
};
use oxidask_operator_api::DaskCluster;

use crate::manifest;

/// How long after its cause can be seen in the API a condition may take.
const SAID_WITHIN: Duration = Duration::from_secs(5);

/// How long Kubernetes may take to run into the trouble.
const CAUSE_DEADLINE: Duration = Duration::from_secs(60);

/// How long a cluster may take to recover: Kubernetes tries again after up to a minute.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(120);

const WORKERS: &str = "dask.org/cluster-name=troubled,dask.org/component=worker";
const SCHEDULER: &str = "dask.org/cluster-name=troubled,dask.org/component=scheduler";

#[test]
fn image_that_cannot_be_pulled_is_named_and_the_right_image_rolls_out() {
    with_temp_namespace(async |namespace| {
        start(namespace).await?;
        let workers = "/spec/worker/spec/containers/0/image";
        replace(
            namespace,
            workers,
            "\"localhost/oxidask/no-such-image:dev\"",
        )
        .await?;
        until_pod(namespace, WORKERS, |pod| waiting(pod).contains("ImagePull")).await?;
        said(
            namespace,
            "WorkersReady",
            &["ErrImagePull", "ImagePullBackOff"],
        )
        .await?;
        replace(namespace, workers, &format!("{:?}", image("stock"))).await?;
        recovered(namespace).await
    });
}

#[test]
fn pod_that_fits_on_no_node_is_unschedulable_until_it_fits() {
    with_temp_namespace(async |namespace| {
        start(namespace).await?;
        let selector = "/spec/worker/spec/nodeSelector";
        replace(
            namespace,
            selector,
            r#"{"oxidask.io/no-such-node": "true"}"#,
        )
        .await?;
        until_pod(namespace, WORKERS, |pod| {
            conditions(pod).any(|condition| condition.0 == "PodScheduled" && condition.1 == "False")
        })
        .await?;
        said(namespace, "WorkersReady", &["Unschedulable"]).await?;
        replace(namespace, selector, "{}").await?;
        recovered(namespace).await
    });
}

#[test]
fn quota_that_refuses_pods_is_reported_until_it_is_raised() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let quota = |pods: u32| {
            format!(
                "{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: few}}, spec: {{hard: {{pods: {pods}}}}}}}"
            )
        };
        namespace.apply(&quota(1)).await?;
        namespace
            .apply(&manifest::cluster("troubled", &image("stock"), 2))
            .await?;
        until_event(namespace, "FailedCreate").await?;
        said(namespace, "WorkersReady", &["FailedCreate"]).await?;
        namespace.apply(&quota(10)).await?;
        recovered(namespace).await
    });
}

#[test]
fn name_that_is_too_long_for_its_service_is_refused_with_a_reason() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let name = "a".repeat(60);
        namespace
            .apply(&manifest::cluster(&name, &image("stock"), 1))
            .await?;
        let clusters = namespace.api::<DaskCluster>();
        let status = wait::until("a status", SAID_WITHIN, async || {
            let status = clusters.get(&name).await?.status.unwrap_or_default();
            Ok(if status.phase.is_some() {
                Ok(status)
            } else {
                Err("none".into())
            })
        })
        .await?;
        ensure!(status.phase.as_deref() == Some("Error"), "{status:?}");
        ensure!(
            status
                .conditions
                .iter()
                .any(|said| said.reason == "InvalidName"),
            "{status:?}"
        );
        ensure!(
            pods(namespace, "dask.org/cluster-name").await?.is_empty(),
            "pods were made"
        );
        Ok(())
    });
}

#[test]
fn deleted_scheduler_pod_and_deleted_worker_pods_come_back() {
    with_temp_namespace(async |namespace| {
        start(namespace).await?;
        for label in [SCHEDULER, WORKERS] {
            let before = pods(namespace, label).await?;
            for pod in &before {
                namespace
                    .api::<Pod>()
                    .delete(name(pod), &DeleteParams::default())
                    .await?;
            }
            until_pod(namespace, label, |pod| {
                !conditions(pod).any(|c| c == ("Ready", "True"))
            })
            .await?;
            let type_ = if label == SCHEDULER {
                "SchedulerReady"
            } else {
                "WorkersReady"
            };
            said(namespace, type_, &["Starting"]).await?;
            wait::until("other pods", RECOVERY_DEADLINE, async || {
                let now = pods(namespace, label).await?;
                let old = now
                    .iter()
                    .filter(|pod| before.iter().any(|old| name(old) == name(pod)));
                let old: Vec<_> = old.map(name).collect();
                Ok(if old.is_empty() {
                    Ok(())
                } else {
                    Err(old.join(", "))
                })
            })
            .await?;
            let ready = [
                "wait",
                "pods",
                "-l",
                label,
                "--for=condition=Ready",
                "--timeout=120s",
            ];
            namespace.kubectl(&ready).await?;
            recovered(namespace)
                .await
                .with_context(|| format!("after {label}"))?;
        }
        Ok(())
    });
}

/// A cluster of two workers that is ready.
async fn start(namespace: &Namespace) -> Result<()> {
    operator::ensure(&namespace.cluster).await?;
    namespace
        .apply(&manifest::cluster("troubled", &image("stock"), 2))
        .await?;
    recovered(namespace).await
}

async fn replace(namespace: &Namespace, path: &str, value: &str) -> Result<()> {
    // `add` replaces what is there.
    let patch = format!(r#"[{{"op": "add", "path": "{path}", "value": {value}}}]"#);
    namespace
        .kubectl(&[
            "patch",
            "daskcluster",
            "troubled",
            "--type=json",
            "-p",
            &patch,
        ])
        .await
        .map(drop)
}

async fn recovered(namespace: &Namespace) -> Result<()> {
    until_said(namespace, "Ready", "True", &["Ready"], RECOVERY_DEADLINE).await
}

/// The condition is False with one of these reasons, soon.
async fn said(namespace: &Namespace, type_: &str, reasons: &[&str]) -> Result<()> {
    until_said(namespace, type_, "False", reasons, SAID_WITHIN).await
}

async fn until_said(
    namespace: &Namespace,
    type_: &str,
    status: &str,
    reasons: &[&str],
    deadline: Duration,
) -> Result<()> {
    let clusters = namespace.api::<DaskCluster>();
    let started = Instant::now();
    wait::until(
        format!("{type_} {status} {reasons:?}"),
        deadline,
        async || {
            let cluster = clusters.get("troubled").await?;
            let current = cluster.metadata.generation;
            let conditions = cluster
                .status
                .map(|status| status.conditions)
                .unwrap_or_default();
            let Some(said) = conditions.iter().find(|condition| condition.type_ == type_) else {
                return Ok(Err(format!("no condition {type_}")));
            };
            let is_wanted = said.status == status && reasons.contains(&&*said.reason);
            Ok(if is_wanted && said.observed_generation == current {
                println!(
                    "{type_} {} after {:.1} s",
                    said.reason,
                    started.elapsed().as_secs_f64()
                );
                Ok(())
            } else {
                Err(format!("{} {}: {}", said.status, said.reason, said.message))
            })
        },
    )
    .await
}

async fn until_pod(
    namespace: &Namespace,
    label: &str,
    condition: impl Fn(&Pod) -> bool,
) -> Result<()> {
    wait::until(
        format!("trouble of a pod with {label}"),
        CAUSE_DEADLINE,
        async || {
            let pods = pods(namespace, label).await?;
            Ok(if pods.iter().any(&condition) {
                Ok(())
            } else {
                Err(format!("{} pods", pods.len()))
            })
        },
    )
    .await
}

async fn until_event(namespace: &Namespace, reason: &str) -> Result<()> {
    let selector = format!("--field-selector=reason={reason}");
    wait::until(format!("an event {reason}"), CAUSE_DEADLINE, async || {
        let events = namespace
            .kubectl(&["get", "events", &selector, "-o", "name"])
            .await?;
        Ok(if events.trim().is_empty() {
            Err("none".into())
        } else {
            Ok(())
        })
    })
    .await
}

async fn pods(namespace: &Namespace, label: &str) -> Result<Vec<Pod>> {
    Ok(namespace
        .api::<Pod>()
        .list(&ListParams::default().labels(label))
        .await?
        .items)
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Why the first container waits; empty if it does not.
fn waiting(pod: &Pod) -> String {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .unwrap_or_default()
}

/// Types and statuses of the pod's conditions.
fn conditions(pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .map(|condition| (&*condition.type_, &*condition.status))
}
