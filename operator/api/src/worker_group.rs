//! `DaskWorkerGroup`: workers of one kind that belong to a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::WorkerSpec;

/// Workers of one kind that belong to a DaskCluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "kubernetes.dask.org",
    version = "v1",
    kind = "DaskWorkerGroup",
    plural = "daskworkergroups",
    singular = "daskworkergroup",
    shortname = "daskworkers",
    namespaced,
    status = "DaskWorkerGroupStatus",
    derive = "Default",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.worker.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Workers",
        type_ = "integer",
        description = "The number of desired worker Pods",
        json_path = ".spec.worker.replicas"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        description = "Workers whose pod is ready",
        json_path = ".status.readyReplicas",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct DaskWorkerGroupSpec {
    /// Name of the DaskCluster, in the same namespace.
    pub cluster: String,
    /// The workers.
    pub worker: WorkerSpec,
    /// While true the group has no workers; the wanted number stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// What the operator saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DaskWorkerGroupStatus {
    /// `Ready`, `Draining`; and `CommandRecognised` where a field depends on it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Workers that exist and are to stay, whether ready or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// Workers whose pod is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i64>,
    /// Workers that are being retired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining_replicas: Option<i64>,
    /// Label selector of the group's pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}
