//! `DaskCluster`: a scheduler, its Service and a default group of workers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{PodSpec, ServiceSpec, SubMetadata, WorkerSpec};
use crate::options::{NetworkPolicySpec, PodDisruptionBudgetSpec, RustSpec, TlsSpec};

/// A scheduler, the Service in front of it, and a default group of workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "kubernetes.dask.org",
    version = "v1",
    kind = "DaskCluster",
    plural = "daskclusters",
    singular = "daskcluster",
    shortname = "daskcluster",
    shortname = "dsk",
    namespaced,
    status = "DaskClusterStatus",
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
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Whether the scheduler and the wanted workers are ready",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DaskClusterSpec {
    /// Seconds without work after which `idleAction` is taken. 0: never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub idle_timeout: i64,
    /// What happens after `idleTimeout`: `delete` deletes the cluster (also
    /// when unset), `scaleToZero` takes the workers of every group away and
    /// keeps the scheduler, `suspend` sets the field `suspend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_action: Option<IdleAction>,
    /// While true the cluster has no pods: neither scheduler nor workers. The
    /// Service and the wanted numbers stay, so that false brings it back,
    /// empty of results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Encryption of the cluster's connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// Who may connect to the cluster's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicySpec>,
    /// How many pods may be evicted at a time. Unset: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_disruption_budget: Option<PodDisruptionBudgetSpec>,
    /// Runs oxidask's programs in the images that the pods name: an init
    /// container brings them in, and the words of `command` and `args` that
    /// start the scheduler or a worker are replaced. Everything else stays.
    /// Where those words are not found the condition `CommandRecognised` says
    /// so and the pod starts what its image has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rust: Option<RustSpec>,
    /// The workers of the default group, `<name>-default`.
    #[serde(default)]
    pub worker: WorkerSpec,
    /// The scheduler.
    #[serde(default)]
    pub scheduler: SchedulerSpec,
}

// Serde calls it with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The scheduler's pod and its Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SchedulerSpec {
    /// Labels and annotations of the scheduler's Deployment, pod and Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<SubMetadata>,
    /// The pod of the scheduler.
    #[serde(default)]
    pub spec: PodSpec,
    /// The Service in front of the scheduler. Its ports named `tcp-comm` and
    /// `http-dashboard` are where clients and the operator look.
    #[serde(default)]
    pub service: ServiceSpec,
}

/// What happens to a cluster that has been idle for `idleTimeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IdleAction {
    /// Delete the cluster, as dask-kubernetes does.
    Delete,
    /// Take the workers away, keep the scheduler.
    ScaleToZero,
    /// Set `suspend`: take the scheduler away, too.
    Suspend,
}

/// Where a cluster is in its life, in the words of dask-kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Seen by the operator.
    Created,
    /// Objects are made; a LoadBalancer has no address yet.
    Pending,
    /// The scheduler's Service can be reached. Says nothing of pods: see the
    /// conditions.
    Running,
    /// The name is invalid; nothing was made.
    Error,
}

impl DaskClusterSpec {
    /// The cluster's TLS, if it is on.
    pub fn tls_on(&self) -> Option<&TlsSpec> {
        self.tls.as_ref().filter(|tls| tls.enabled)
    }
}

impl Phase {
    /// The word in `status.phase`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Error => "Error",
        }
    }
}

/// What the operator saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DaskClusterStatus {
    /// `Created`, `Pending`, `Running` or `Error`. Follows the scheduler's
    /// Service only, as clients of dask-kubernetes expect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// `Ready`, `SchedulerReady`, `WorkersReady`, `Suspended`; and
    /// `CommandRecognised` where a field depends on it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Workers of the default group, whether ready or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// Workers of the default group whose pod is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i64>,
    /// Label selector of the default group's pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}
