//! What is wanted of an experiment.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::ScalingExperimentStatus;
use crate::common::{PodSpec, SubMetadata};
use crate::job::JobClusterSpec;

/// Runs a workload for every combination of nodes, cores and sizes on a
/// cluster made for it, and keeps a table of times, speed-up and efficiency.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "oxidask.io",
    version = "v1alpha1",
    kind = "ScalingExperiment",
    plural = "scalingexperiments",
    singular = "scalingexperiment",
    shortname = "scaling",
    namespaced,
    status = "ScalingExperimentStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Progress",
        type_ = "string",
        description = "Cells that ended, of all cells",
        json_path = ".status.progress"
    ),
    printcolumn(
        name = "Best",
        type_ = "string",
        description = "Nodes × cores with the shortest time for the largest size",
        json_path = ".status.best"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        description = "Cells without a time",
        json_path = ".status.failed"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        description = "What is being done or waited for",
        json_path = ".status.message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingExperimentSpec {
    /// What is computed: exactly one of `matmul`, `pi` and `python`. Cannot be
    /// changed.
    pub workload: Workload,
    /// Sizes of the problem, each 1 or more: the order of the matrices, the
    /// number of samples, or whatever the program makes of it. Cannot be
    /// changed.
    #[schemars(length(min = 1, max = 32), inner(range(min = 1)))]
    pub sizes: Vec<i64>,
    /// Numbers of workers, each from 1 to 1000, spread over as many Kubernetes
    /// nodes (see `spread`). Cannot be changed.
    #[schemars(length(min = 1, max = 32), inner(range(min = 1, max = 1000)))]
    pub nodes: Vec<i64>,
    /// Threads of each worker, from 1 to 1024; its CPU limit is as many.
    /// Cannot be changed.
    #[schemars(length(min = 1, max = 32), inner(range(min = 1, max = 1024)))]
    pub cores: Vec<i64>,
    /// How often each cell (one of nodes × cores × sizes) is run; the median
    /// of its times counts. An even number cancels drift best, because every
    /// second pass goes backwards. Cannot be changed.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub repeats: i64,
    /// `Required`: each worker is on a Kubernetes node of its own, and a cell
    /// with more workers than nodes fails as unschedulable. `Preferred`: they
    /// are spread as well as possible. Taints of nodes are honoured in either
    /// case. Cannot be changed.
    pub spread: Spread,
    /// The cluster: as in a DaskCluster, without the numbers. `replicas`,
    /// `suspend` and `idleTimeout` are not used; the first container of the
    /// worker gets `--nthreads`, or `$(OXIDASK_CORES)` where its command says
    /// so, and its CPU limit.
    pub cluster: JobClusterSpec,
    /// The pod that runs one cell. For `python` it has to be given: a pod that
    /// computes once and ends, told by `DASK_SCHEDULER_ADDRESS`,
    /// `OXIDASK_SIZE`, `OXIDASK_NODES`, `OXIDASK_CORES`, `OXIDASK_REPEAT` and
    /// `OXIDASK_TIME_LIMIT`. It may write its row as JSON, or its seconds as a
    /// number, to /dev/termination-log; else the time of its container counts.
    /// For the other workloads it may be left out: a pod of the scheduler's
    /// image that runs `oxidask experiment cell`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerSpec>,
    /// The pod that draws the plots at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportSpec>,
    /// When waiting ends.
    pub limits: ExperimentLimits,
    /// While true nothing runs and there are no pods; a cell that was running
    /// starts anew when it becomes false. What has been measured stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

fn one() -> i64 {
    1
}

/// What is computed: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Workload {
    /// Product of two random square matrices of the order that `sizes` give,
    /// computed by native tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matmul: Option<MatmulWorkload>,
    /// π from as many random points as `sizes` give, computed by native tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pi: Option<PiWorkload>,
    /// A program of yours: the pod of `runner`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<PythonWorkload>,
}

impl Workload {
    /// Its name on the runner's command line, in rows and metrics: `matmul`,
    /// `pi` or `python`; nothing if it is not exactly one of them.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        match (&self.matmul, &self.pi, &self.python) {
            (Some(_), None, None) => Some("matmul"),
            (None, Some(_), None) => Some("pi"),
            (None, None, Some(_)) => Some("python"),
            _ => None,
        }
    }
}

/// Parameters of the product of matrices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MatmulWorkload {
    /// Rows and columns of a block. Unset: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub chunk: Option<i64>,
    /// Type of the elements: `float64` (also when unset), `float32` or
    /// `int64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
}

/// Type of a matrix' elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 64-bit floating point.
    Float64,
    /// 32-bit floating point.
    Float32,
    /// 64-bit integers.
    Int64,
}

impl Dtype {
    /// NumPy's name of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float64 => "float64",
            Self::Float32 => "float32",
            Self::Int64 => "int64",
        }
    }
}

/// Parameters of π.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PiWorkload {
    /// Points of one task. Unset: so many that all threads have equally many
    /// tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub chunk: Option<i64>,
}

/// A program of the user's: everything is in `spec.runner`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PythonWorkload {}

/// How strictly workers are spread over Kubernetes nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Spread {
    /// One worker per Kubernetes node.
    #[default]
    Required,
    /// As evenly as possible.
    Preferred,
}

/// The pod that runs one cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RunnerSpec {
    /// Labels and annotations of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<SubMetadata>,
    /// The pod. `restartPolicy` is always `Never`. For native workloads the
    /// first container's command is set, and its image if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<PodSpec>,
}

/// The pod that draws the plots into the ConfigMap `<name>-results`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReportSpec {
    /// False: no plots; the ConfigMap has the rows only. Unset: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// An image with the command `oxidask`. Unset: that of the scheduler's
    /// first container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// When waiting ends. They may be changed at any time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExperimentLimits {
    /// Seconds that the scheduler, the workers of a cell or its runner may
    /// take to start; then the cell fails with the reason. Unset: 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub start_seconds: Option<i64>,
    /// Seconds that one cell may run; then it fails. Unset: 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cell_seconds: Option<i64>,
    /// Seconds from the beginning after which all cells that have not ended
    /// fail. Unset: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub total_seconds: Option<i64>,
}
