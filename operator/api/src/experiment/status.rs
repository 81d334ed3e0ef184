//! What is known of an experiment. It is all the state there is: an operator
//! that starts anew goes on from it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far the experiment is, and what it measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingExperimentStatus {
    /// `Running`, `Suspended`, `Reporting`, `Complete` (every cell ended and at
    /// least one has a time) or `Failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Cells that ended, of all cells: `7/18`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Nodes × cores with the shortest time for the largest size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<String>,
    /// What is being done or waited for, or why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The report's sentence on what bounds the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Cells, repeats included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cells: Option<i64>,
    /// Cells that ended, failed ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<i64>,
    /// Cells that ended without a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<i64>,
    /// By nodes, cores and size: time, speed-up, efficiency.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub table: Vec<TableRow>,
    /// Every cell that ended, in the order in which they did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<ExperimentRow>,
    /// The cell whose runner pod was made and has not been recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<CurrentCell>,
    /// Name of the ConfigMap with rows, table and plots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
    /// When the experiment began: RFC 3339, UTC, whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When the last cell ended, or the experiment began or went on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_time: Option<String>,
    /// When the experiment ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// Hash of `spec.cluster` and `spec.runner` when the experiment began:
    /// times of two templates cannot be compared, so it fails if they change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_hash: Option<String>,
    /// `Finished`, `Suspended` and `Reported`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// A cell whose runner pod was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CurrentCell {
    /// Place in the order of cells, from 0.
    pub cell: i64,
    /// Which runner pod of this cell it is, from 1: one that is lost is
    /// replaced.
    pub attempt: i64,
    /// The pod's uid, so that one that is gone is not mistaken for one that
    /// was never made.
    pub pod_uid: String,
}

/// One cell that ended. Times are seconds, of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExperimentRow {
    /// Place in the order of cells, from 0.
    pub cell: i64,
    /// Workers.
    pub nodes: i64,
    /// Threads of each.
    pub cores: i64,
    /// Size of the problem.
    pub size: i64,
    /// Which repeat it was, from 0.
    pub repeat: i64,
    /// Seconds from the submission to the last result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Bytes of dependencies obtained from another worker address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_moved: Option<i64>,
    /// Seconds of computing, summed over all threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_seconds: Option<f64>,
    /// Seconds of waiting for data of other workers, summed over all threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer_seconds: Option<f64>,
    /// Seconds without anything to do, summed over all threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// Tasks computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<i64>,
    /// What bounds it: `compute`, `transfer`, `scheduler`,
    /// `memory-bandwidth`, `too-few-cores` or `too-few-tasks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Why it has no seconds, in one word: `Unschedulable`,
    /// `ImagePullBackOff`, `TimeLimit`, `RunnerFailed` and others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The repeats of one cell together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TableRow {
    /// Workers.
    pub nodes: i64,
    /// Threads of each.
    pub cores: i64,
    /// Size of the problem.
    pub size: i64,
    /// Median of the repeats' seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How many times faster than the base: the cell of the same size with
    /// the fewest threads (of equals the one with fewer nodes) that has a
    /// time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speedup: Option<f64>,
    /// Speed-up by the number of threads compared with the base's: 1 is
    /// perfect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<f64>,
    /// Repeats with a time.
    pub runs: i64,
    /// Repeats without.
    pub failed: i64,
    /// Why the last of those failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
