//! A worker's Deployment: one per worker, its name is the worker's name.

use oxidask_operator_api::{DaskCluster, DaskWorkerGroup};
use serde_json::{Value, json};

use super::env::{scheduler_address, with_env};
use super::{metadata, namespace, owner};
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
}

/// The Deployment of one worker. `id`: ten hexadecimal digits, used once.
///
/// # Panics
/// As [`owner`].
pub fn worker_deployment(parent: WorkerParent<'_>, id: &str) -> Value {
    let WorkerParent { group, cluster } = parent;
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
    annotations.insert(SPEC_HASH.to_owned(), worker_hash(group));
    let address = scheduler_address(cluster_name, namespace(&group.metadata));
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
                "spec": with_env(
                    &worker.spec,
                    &[("DASK_WORKER_NAME", &name), ("DASK_SCHEDULER_ADDRESS", &address)],
                ),
            },
        },
    })
}

/// Hash of what the pods of a group are made from.
pub(crate) fn worker_hash(group: &DaskWorkerGroup) -> String {
    let worker = &group.spec.worker;
    spec_hash(&(&worker.metadata, &worker.spec))
}
