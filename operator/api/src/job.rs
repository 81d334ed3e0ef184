//! `DaskJob`: a pod that uses a cluster made for it alone.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::DaskClusterSpec;
use crate::common::{PodSpec, SubMetadata};

/// A pod that runs to its end beside a cluster made for it alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "kubernetes.dask.org",
    version = "v1",
    kind = "DaskJob",
    plural = "daskjobs",
    singular = "daskjob",
    shortname = "djb",
    namespaced,
    status = "DaskJobStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.jobStatus"),
    printcolumn(
        name = "Number Of Workers",
        type_ = "integer",
        description = "The number of desired worker Pods",
        json_path = ".spec.cluster.spec.worker.replicas"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct DaskJobSpec {
    /// The pod that runs the job.
    pub job: JobPodSpec,
    /// The cluster that the job uses. It is deleted when the job ends.
    pub cluster: JobClusterSpec,
    /// How many times a failed or lost runner pod is replaced before the job
    /// counts as failed. Unset: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub backoff_limit: Option<i64>,
    /// Seconds from the creation of the job after which it is ended and
    /// counts as failed. Unset: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds from the end of the job after which the DaskJob is deleted.
    /// Unset: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// While true the job has neither cluster nor runner pod; one that was
    /// running starts anew when it becomes false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// The runner pod and its metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobPodSpec {
    /// Labels and annotations of the runner pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<SubMetadata>,
    /// The runner pod. `restartPolicy` is `OnFailure` unless set.
    pub spec: PodSpec,
}

/// The cluster of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobClusterSpec {
    /// Labels and annotations of the DaskCluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<SubMetadata>,
    /// The spec of the DaskCluster.
    pub spec: DaskClusterSpec,
}

/// How far the job is. Has exactly these five keys, on which clients of
/// dask-kubernetes rely.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DaskJobStatus {
    /// `JobCreated`, `ClusterCreated`, `Running`, `Successful` or `Failed`.
    pub job_status: Option<String>,
    /// Name of the DaskCluster made for the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Name of the runner pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_runner_pod_name: Option<String>,
    /// When the runner pod was first seen running: RFC 3339, UTC, whole
    /// seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When the end of the job was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
}
