//! The cluster and the runner pod of a job.

use oxidask_operator_api::DaskJob;
use serde_json::{Value, json};

use super::env::{scheduler_address, with_env};
use super::tls::secure;
use super::{metadata, namespace, owner};
use crate::labels::{self, Inherited};
use crate::names;

/// The DaskCluster of a job, named like the job.
///
/// # Panics
/// As [`owner`].
pub fn job_cluster(job: &DaskJob) -> Value {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let cluster = &job.spec.cluster;
    let inherited = Inherited::new(&job.metadata, cluster.metadata.as_ref());
    json!({
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": metadata(
            name,
            job.metadata.namespace.as_deref(),
            &inherited.labels_with(&labels::cluster(name)),
            &inherited.annotations,
            owner(job),
        ),
        "spec": cluster.spec,
    })
}

/// The pod that runs the job.
///
/// # Panics
/// As [`owner`].
pub fn job_runner(job: &DaskJob) -> Value {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let runner = &job.spec.job;
    let inherited = Inherited::new(&job.metadata, runner.metadata.as_ref());
    let tls = job.spec.cluster.spec.tls_on().map(|tls| {
        let own = || names::tls_secret(name);
        tls.secret_name.clone().unwrap_or_else(own)
    });
    let address = scheduler_address(name, namespace(&job.metadata), tls.is_some());
    let mut pod = with_env(&runner.spec, &[("DASK_SCHEDULER_ADDRESS", &address)]);
    if let Some(secret) = &tls {
        secure(&mut pod, secret);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(
            &names::job_runner(name),
            job.metadata.namespace.as_deref(),
            &inherited.labels_with(&labels::job_runner(name)),
            &inherited.annotations,
            owner(job),
        ),
        "spec": pod,
    })
}
