//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Local clusters and scaling experiments.
#[derive(Parser, Debug)]
#[command(name = "oxidask", version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a cluster on this machine and show it until Ctrl-C ends it
    Up(Up),
    /// Show workers, tasks and memory of a cluster
    Status {
        /// Address of the scheduler, such as tcp://127.0.0.1:8786
        #[arg(env = "DASK_SCHEDULER_ADDRESS")]
        address: String,
    },
    /// Vary workers and threads over a workload, and say what bounds it
    Experiment(Experiment),
    /// One plain process of a control experiment
    #[command(hide = true)]
    Control(ControlPart),
}

/// A cluster on this machine.
#[derive(clap::Args, Debug, Clone)]
pub struct Up {
    /// Worker processes
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// Tasks at once per worker; 0 divides the CPUs
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Memory per worker, such as 2GB; 0 for no limit, auto divides that of the machine
    #[arg(long, default_value = "auto")]
    pub memory_limit: String,
    /// Address to listen at
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the scheduler; 0 for any free one
    #[arg(long, default_value_t = 8786)]
    pub port: u16,
    /// Port of the status page; 0 for any free one
    #[arg(long, default_value_t = 8787)]
    pub dashboard_port: u16,
    /// Start no interpreter before a task needs one
    #[arg(long)]
    pub lazy_executor: bool,
    /// Print the cluster's address as JSON in one line, then end when the standard input does
    #[arg(long)]
    pub json: bool,
    /// With --json: do not end when the standard input does
    #[arg(long, requires = "json")]
    pub detach: bool,
}

/// Which experiment.
#[derive(clap::Args, Debug)]
pub struct Experiment {
    /// The workload.
    #[command(subcommand)]
    pub workload: Workload,
}

/// The workloads.
#[derive(Subcommand, Debug)]
pub enum Workload {
    /// The product of a random square matrix with itself, native, in chunks
    Matmul(Matmul),
    /// Monte-Carlo pi, native
    Pi(Pi),
    /// Any Python program that takes the scheduler's address from DASK_SCHEDULER_ADDRESS
    Python(Python),
    /// One cell of an experiment on an existing cluster; its row is printed as JSON
    Cell(Cell),
    /// Tables and plots from rows of cells
    Report(Report),
}

/// What all experiments take.
#[derive(clap::Args, Debug, Clone)]
pub struct Sweep {
    /// Numbers of workers
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub workers: Vec<usize>,
    /// Threads of each worker
    #[arg(long, value_delimiter = ',', default_value = "1")]
    pub threads: Vec<usize>,
    /// How often each cell is measured; the median counts
    #[arg(long, default_value_t = 3)]
    pub repeats: usize,
    /// Folder for table.json, table.csv, speedup.svg and speedup.png
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// An existing cluster, of which the first N workers are used; else one is started for each cell
    #[arg(long)]
    pub address: Option<String>,
    /// Leave out the control: plain processes without a scheduler
    #[arg(long)]
    pub no_control: bool,
    /// Pin worker N to CPU N modulo the number of CPUs (with taskset)
    #[arg(long)]
    pub pin: bool,
    /// On Kubernetes instead of this machine.
    #[command(flatten)]
    pub kubernetes: Kubernetes,
}

/// On Kubernetes: how a ScalingExperiment is made.
#[derive(clap::Args, Debug, Clone)]
pub struct Kubernetes {
    /// Measure on Kubernetes, as a ScalingExperiment: workers are nodes, threads are cores. Needs kubectl
    #[arg(long, conflicts_with_all = ["address", "pin"])]
    pub kubernetes: bool,
    /// Namespace; else that of kubectl's context
    #[arg(long, requires = "kubernetes")]
    pub namespace: Option<String>,
    /// Name of the ScalingExperiment; else a new one
    #[arg(long, requires = "kubernetes")]
    pub name: Option<String>,
    /// Image of scheduler, workers and runners
    #[arg(
        long,
        requires = "kubernetes",
        default_value = "ghcr.io/oxidask/dask:latest"
    )]
    pub image: String,
    /// Workers may share a Kubernetes node
    #[arg(long, requires = "kubernetes")]
    pub share_nodes: bool,
    /// Leave the ScalingExperiment there afterwards
    #[arg(long, requires = "kubernetes")]
    pub keep: bool,
}

/// The product of matrices.
#[derive(clap::Args, Debug, Clone)]
pub struct Matmul {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: Sweep,
    /// Rows and columns
    #[arg(long, value_delimiter = ',', default_value = "4000")]
    pub sizes: Vec<usize>,
    /// Rows and columns of a chunk
    #[arg(long, default_value_t = 1000)]
    pub chunk: usize,
    /// Type of the elements
    #[arg(long, value_enum, default_value_t = Elements::F64)]
    pub dtype: Elements,
    /// The tutorial's product instead: whole numbers, (1000, 2000) by (2000, 1000), each one chunk
    #[arg(long, conflicts_with_all = ["sizes", "chunk", "dtype"])]
    pub tutorial: bool,
}

/// Monte-Carlo pi.
#[derive(clap::Args, Debug, Clone)]
pub struct Pi {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: Sweep,
    /// Points in all
    #[arg(long, value_delimiter = ',', default_value = "4000000000")]
    pub sizes: Vec<u64>,
    /// Tasks in all
    #[arg(long, default_value_t = 64)]
    pub tasks: u64,
    /// As in the tutorial: one task per worker
    #[arg(long, conflicts_with = "tasks")]
    pub tutorial: bool,
}

/// A Python program.
#[derive(clap::Args, Debug, Clone)]
pub struct Python {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: Sweep,
    /// The interpreter
    #[arg(long, env = "OXIDASK_PYTHON", default_value = "python3")]
    pub python: PathBuf,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    pub program: Vec<String>,
}

/// One cell.
#[derive(clap::Args, Debug, Clone)]
pub struct Cell {
    /// The workload
    #[arg(value_enum)]
    pub workload: Native,
    /// Address of the scheduler
    #[arg(long, env = "DASK_SCHEDULER_ADDRESS")]
    pub scheduler: String,
    /// Rows of the matrix, or points
    #[arg(long)]
    pub size: u64,
    /// Workers that must be connected, neither fewer nor more
    #[arg(long)]
    pub nodes: usize,
    /// Threads that each must have
    #[arg(long)]
    pub cores: usize,
    /// Which repeat it is; only told on
    #[arg(long, default_value_t = 0)]
    pub repeat: u64,
    /// Rows and columns of a block (1000 if not given), or points of a task (else all threads get equally many tasks)
    #[arg(long)]
    pub chunk: Option<u64>,
    /// Type of the elements
    #[arg(long, value_enum, default_value_t = Elements::F64)]
    pub dtype: Elements,
    /// Seconds for all of it
    #[arg(long, default_value_t = 600)]
    pub time_limit: u64,
    /// File for the row as well, such as /dev/termination-log
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// Tables and plots from rows of cells.
#[derive(clap::Args, Debug, Clone)]
pub struct Report {
    /// JSON file with the rows, as the operator writes it
    #[arg(long)]
    pub rows: PathBuf,
    /// Where to write data and binaryData of a ConfigMap as one line of JSON: a file, or - for the standard output
    #[arg(long)]
    pub configmap_data: Option<PathBuf>,
    /// Folder for table.json, table.csv, speedup.svg and speedup.png
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// Native workloads.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Native {
    Matmul,
    Pi,
}

/// Types of elements that experiments take.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Elements {
    #[value(name = "float64", alias = "f64")]
    F64,
    #[value(name = "float32", alias = "f32")]
    F32,
    #[value(name = "int64", alias = "i64")]
    I64,
    #[value(name = "int32", alias = "i32")]
    I32,
}

impl Elements {
    /// The dtype of kernels.
    pub(crate) fn dtype(self) -> oxidask_client::DType {
        use oxidask_client::DType;
        match self {
            Self::F64 => DType::F64,
            Self::F32 => DType::F32,
            Self::I64 => DType::I64,
            Self::I32 => DType::I32,
        }
    }
}

/// One plain process: it prepares, says "ready", waits for a line, computes its part and says how long it took.
#[derive(clap::Args, Debug, Clone)]
pub struct ControlPart {
    /// The workload, as JSON
    #[arg(long)]
    pub task: String,
    /// Which process
    #[arg(long)]
    pub part: u64,
    /// Of how many
    #[arg(long)]
    pub of: u64,
    /// Threads of each
    #[arg(long)]
    pub threads: usize,
}
