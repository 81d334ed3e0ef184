//! The scheduler's Deployment and Service.

use kube::ResourceExt as _;
use oxidask_operator_api::DaskCluster;
use serde_json::{Value, json};

use super::command::Program;
use super::programs::inject;
use super::tls::{secret_name, secure};
use super::{Site, metadata, owner};
use crate::labels::{self, Inherited, RESTART_SCHEDULER, SPEC_HASH, TLS};
use crate::names;
use crate::spec_hash::spec_hash;

/// The scheduler's Deployment. `replicas` is 0 while the cluster is suspended.
///
/// # Panics
/// As [`owner`].
pub fn scheduler_deployment(cluster: &DaskCluster, replicas: i64, site: &Site) -> Value {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let scheduler = &cluster.spec.scheduler;
    let inherited = Inherited::new(&cluster.metadata, scheduler.metadata.as_ref());
    let labels = inherited.labels_with(&labels::scheduler(name));
    let mut annotations = inherited.annotations.clone();
    annotations.insert(SPEC_HASH.to_owned(), scheduler_hash(cluster));
    if let Some(restart) = cluster.annotations().get(RESTART_SCHEDULER) {
        annotations.insert(RESTART_SCHEDULER.to_owned(), restart.clone());
    }
    let mut pod = json!(scheduler.spec);
    if let Some(rust) = cluster.spec.rust.as_ref().filter(|rust| rust.scheduler) {
        let image = rust.image.as_deref().unwrap_or(&site.programs_image);
        inject(&mut pod, Program::Scheduler, image);
    }
    if let Some(secret) = secret_name(cluster) {
        secure(&mut pod, &secret);
        annotations.insert(TLS.to_owned(), secret);
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(
            &names::scheduler(name),
            cluster.metadata.namespace.as_deref(),
            &labels,
            &annotations,
            owner(cluster),
        ),
        "spec": {
            "replicas": replicas,
            // Two schedulers at a time would split the cluster, and clients
            // refuse to choose between their pods.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels::scheduler_service(name)},
            "template": {
                "metadata": {"labels": labels, "annotations": inherited.annotations},
                "spec": pod,
            },
        },
    })
}

/// Hash of what the scheduler's pod is made from.
pub(crate) fn scheduler_hash(cluster: &DaskCluster) -> String {
    let scheduler = &cluster.spec.scheduler;
    let before = (&scheduler.metadata, &scheduler.spec);
    let rust = cluster.spec.rust.as_ref().filter(|rust| rust.scheduler);
    match (rust, secret_name(cluster)) {
        (None, None) => spec_hash(&before),
        (rust, secret) => spec_hash(&(before, rust.map(|rust| &rust.image), secret)),
    }
}

/// The Service in front of the scheduler.
///
/// # Panics
/// As [`owner`].
pub fn scheduler_service(cluster: &DaskCluster) -> Value {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let scheduler = &cluster.spec.scheduler;
    let inherited = Inherited::new(&cluster.metadata, scheduler.metadata.as_ref());
    let labels = inherited.labels_with(&labels::scheduler_service(name));
    let mut annotations = inherited.annotations;
    annotations.insert(SPEC_HASH.to_owned(), service_hash(cluster));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(
            &names::scheduler(name),
            cluster.metadata.namespace.as_deref(),
            &labels,
            &annotations,
            owner(cluster),
        ),
        "spec": scheduler.service,
    })
}

/// Hash of what the Service is made from.
pub(crate) fn service_hash(cluster: &DaskCluster) -> String {
    let scheduler = &cluster.spec.scheduler;
    spec_hash(&(&scheduler.metadata, &scheduler.service))
}
