//! `ScalingExperiment`: how a workload's time depends on nodes and cores.

mod spec;
mod status;

pub use spec::{
    Dtype, ExperimentLimits, MatmulWorkload, PiWorkload, PythonWorkload, ReportSpec, RunnerSpec,
    ScalingExperiment, ScalingExperimentSpec, Spread, Workload,
};
pub use status::{CurrentCell, ExperimentRow, ScalingExperimentStatus, TableRow};

/// The API group of the kinds that are ours alone.
pub const GROUP: &str = "oxidask.io";
/// The only version of them.
pub const VERSION: &str = "v1alpha1";

/// Most cells of one experiment: their rows have to fit into one object.
pub const MAX_CELLS: usize = 1000;
