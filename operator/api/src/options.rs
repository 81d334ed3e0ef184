//! Parts of a cluster's spec that dask-kubernetes does not have.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::pod_schema::strip_descriptions;

/// Encryption of everything that scheduler, workers and clients say to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsSpec {
    /// Whether the cluster speaks TLS, and nothing else. The operator makes a
    /// Secret `NAME-tls` with an authority of the cluster's own (`ca.crt`) and
    /// a certificate (`tls.crt`, `tls.key`); clients connect with these files to
    /// `tls://NAME-scheduler.NAMESPACE.svc:8786`. Takes effect when pods start.
    pub enabled: bool,
    /// Name of an existing Secret of the same three keys, to be used instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
}

/// Who may connect to the cluster's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Whether the operator makes the NetworkPolicies `NAME-pods`, which lets
    /// the cluster's pods reach each other and nobody else reach them, and
    /// `NAME-scheduler`, which lets clients and the operator reach the
    /// scheduler's ports.
    pub enabled: bool,
    /// Who counts as a client, as in `ingress.from` of a NetworkPolicy. Unset:
    /// every pod of the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "peers")]
    pub clients: Option<Vec<NetworkPolicyPeer>>,
}

fn peers(generator: &mut SchemaGenerator) -> Schema {
    let mut peer = <NetworkPolicyPeer as JsonSchema>::json_schema(generator).to_value();
    strip_descriptions(&mut peer);
    schemars::json_schema!({"type": "array", "items": peer})
}

/// How many of the cluster's pods may be taken away at a time by those who ask
/// first: `kubectl drain`, node upgrades, the cluster autoscaler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudgetSpec {
    /// Whether the scheduler's pod must not be evicted. Draining its node then
    /// waits until the cluster is deleted or suspended. Unset: it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protect_scheduler: Option<bool>,
    /// Most workers of a group that may be away at a time: a number, or a
    /// percentage such as `25%`. Unset: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int_or_string")]
    pub max_unavailable_workers: Option<IntOrString>,
}

fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    Schema::try_from(json!({"x-kubernetes-int-or-string": true})).expect("it is an object")
}

/// Which programs of the user's image are replaced by oxidask's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RustSpec {
    /// Whether the scheduler is oxidask's.
    pub scheduler: bool,
    /// Whether the workers of every group are oxidask's.
    pub worker: bool,
    /// The image that brings the programs. Unset: the operator's setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// How many workers an autoscaler may give a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupBounds {
    /// Name of the DaskWorkerGroup.
    pub name: String,
    /// Fewest workers. Unset: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<i64>,
    /// Most workers. Unset: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<i64>,
}

/// The last decision for a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupTarget {
    /// Name of the DaskWorkerGroup.
    pub name: String,
    /// Workers that the autoscaler last asked for.
    pub target: i64,
    /// One word: why.
    pub reason: String,
}
