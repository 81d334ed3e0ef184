//! `DaskAutoscaler`: keeps a cluster's default group as large as its work asks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::options::{GroupBounds, GroupTarget};

/// Keeps the default group of a cluster as large as its work asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "kubernetes.dask.org",
    version = "v1",
    kind = "DaskAutoscaler",
    plural = "daskautoscalers",
    singular = "daskautoscaler",
    namespaced,
    status = "DaskAutoscalerStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        description = "Cluster to autoscale",
        json_path = ".spec.cluster"
    ),
    printcolumn(name = "Minimum", type_ = "integer", json_path = ".spec.minimum"),
    printcolumn(name = "Maximum", type_ = "integer", json_path = ".spec.maximum"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Target",
        type_ = "integer",
        description = "Workers that the autoscaler last asked for",
        json_path = ".status.target",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct DaskAutoscalerSpec {
    /// Name of the DaskCluster, in the same namespace.
    pub cluster: String,
    /// Fewest workers. Unset: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<i64>,
    /// Most workers. Unset: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<i64>,
    /// Further groups of the cluster that are scaled, each within its own
    /// bounds. The default group takes demand first, the others in this order,
    /// unless the scheduler says which group its tasks need.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub groups: Vec<GroupBounds>,
}

/// The last decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DaskAutoscalerStatus {
    /// Workers that the autoscaler last asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<i64>,
    /// Workers that the scheduler would like, before limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<i64>,
    /// The last decision for each of `spec.groups`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupTarget>,
    /// `Active`, with the reason of the last decision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
