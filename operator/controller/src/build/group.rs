//! The default group of a cluster.

use oxidask_operator_api::DaskCluster;
use serde_json::{Value, json};

use super::{metadata, owner};
use crate::labels::{self, Inherited, MIRRORED_REPLICAS, SPEC_HASH};
use crate::names;
use crate::spec_hash::spec_hash;

/// The DaskWorkerGroup of a cluster's own workers.
///
/// # Panics
/// As [`owner`].
pub fn default_group(cluster: &DaskCluster) -> Value {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let worker = &cluster.spec.worker;
    let inherited = Inherited::new(&cluster.metadata, worker.metadata.as_ref());
    let labels = inherited.labels_with(&labels::default_group(name));
    let mut annotations = inherited.annotations;
    annotations.insert(SPEC_HASH.to_owned(), group_hash(cluster));
    annotations.insert(MIRRORED_REPLICAS.to_owned(), worker.replicas.to_string());
    json!({
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskWorkerGroup",
        "metadata": metadata(
            &names::default_group(name),
            cluster.metadata.namespace.as_deref(),
            &labels,
            &annotations,
            owner(cluster),
        ),
        "spec": {"cluster": name, "worker": worker},
    })
}

/// Hash of the cluster's worker spec, without the number of workers: that is
/// handed on by itself.
pub(crate) fn group_hash(cluster: &DaskCluster) -> String {
    let worker = &cluster.spec.worker;
    let before = (&worker.metadata, &worker.spec, worker.drain_timeout_seconds);
    // A field that came later must not change the hash of those who do not
    // use it, or their workers would be replaced.
    match worker.nthreads {
        None => spec_hash(&before),
        Some(nthreads) => spec_hash(&(before, nthreads)),
    }
}
