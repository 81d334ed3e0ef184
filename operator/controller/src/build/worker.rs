//! A worker's Deployment: one per worker, its name is the worker's name.

use oxidask_operator_api::{DaskCluster, DaskWorkerGroup};
use serde_json::{Value, json};

use super::command::Program;
use super::drain::drain_first;
use super::env::{scheduler_address, with_env};
use super::programs::{inject, set_threads};
use super::tls::secure;
use super::{Site, metadata, namespace, owner};
use crate::labels::{self, Inherited, SPEC_HASH, WORKER_ID};
use crate::names;
use crate::spec_hash::spec_hash;

/// What a worker belongs to.
#[derive(Clone, Copy, Debug)]
pub struct WorkerParent<'a> {
    /// Its group, which owns it.
    pub group: &'a DaskWorkerGroup,
    /// The group's cluster, whose labels it takes as well.
    pub cluster: &'a DaskCluster,
    /// Name of the Secret whose certificates the cluster's scheduler was
    /// started with, if it was.
    pub tls: Option<&'a str>,
}

/// The Deployment of one worker. `id`: ten hexadecimal digits, used once.
///
/// # Panics
/// As [`owner`].
pub fn worker_deployment(parent: WorkerParent<'_>, id: &str, site: &Site) -> Value {
    let WorkerParent {
        group,
        cluster,
        tls,
    } = parent;
    let group_name = group.metadata.name.as_deref().unwrap_or_default();
    let cluster_name = &group.spec.cluster;
    let worker = &group.spec.worker;
    let name = names::worker(group_name, id);
    let inherited = Inherited::new(&group.metadata, worker.metadata.as_ref())
        .filled_from(cluster.metadata.labels.as_ref());
    let mut selector = labels::worker(cluster_name, group_name);
    selector.remove(labels::ISTIO);
    selector.insert(WORKER_ID.to_owned(), id.to_owned());
    let mut labels = inherited.labels_with(&labels::worker(cluster_name, group_name));
    labels.insert(WORKER_ID.to_owned(), id.to_owned());
    let mut annotations = inherited.annotations.clone();
    annotations.insert(SPEC_HASH.to_owned(), worker_hash(parent));
    let address = scheduler_address(cluster_name, namespace(&group.metadata), tls.is_some());
    let pod = pod(parent, &name, &address, site);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(
            &name,
            group.metadata.namespace.as_deref(),
            &labels,
            &annotations,
            owner(group),
        ),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": labels, "annotations": inherited.annotations},
                "spec": pod,
            },
        },
    })
}

fn pod(parent: WorkerParent<'_>, name: &str, address: &str, site: &Site) -> Value {
    let worker = &parent.group.spec.worker;
    let variables = [
        ("DASK_WORKER_NAME", name),
        ("DASK_SCHEDULER_ADDRESS", address),
    ];
    let mut pod = with_env(&worker.spec, &variables);
    if let Some(seconds) = worker.drain_timeout_seconds {
        drain_first(&mut pod, seconds);
    }
    if let Some(nthreads) = worker.nthreads {
        set_threads(&mut pod, nthreads);
    }
    if let Some(rust) = parent.cluster.spec.rust.as_ref().filter(|rust| rust.worker) {
        let image = rust.image.as_deref().unwrap_or(&site.programs_image);
        inject(&mut pod, Program::Worker, image);
    }
    if let Some(secret) = parent.tls {
        secure(&mut pod, secret);
    }
    pod
}

/// Hash of what the pods of a group are made from.
///
/// The drain timeout is not part of it: another one holds for pods made from
/// then on, and is no reason to replace those that run.
pub(crate) fn worker_hash(parent: WorkerParent<'_>) -> String {
    let worker = &parent.group.spec.worker;
    let before = (&worker.metadata, &worker.spec);
    let rust = parent.cluster.spec.rust.as_ref().filter(|rust| rust.worker);
    match (worker.nthreads, rust, parent.tls) {
        // A field that came later must not change the hash of those who do not
        // use it, or their workers would be replaced.
        (None, None, None) => spec_hash(&before),
        (nthreads, rust, tls) => spec_hash(&(before, nthreads, rust.map(|rust| &rust.image), tls)),
    }
}
