//! What the user may set.

use std::time::Duration;

/// Settings of the core, named as in `distributed.scheduler.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Root tasks handed to a worker beyond its threads, as a factor of them; infinite turns queueing off.
    pub worker_saturation: f64,
    /// Deaths of its worker that a task survives.
    pub allowed_failures: u32,
    /// Assumed until measured. Unit: bytes per second.
    pub bandwidth: f64,
    /// Assumed for tasks that never ran. Unit: seconds.
    pub unknown_task_duration: f64,
    /// A task whose group depends on fewer groups than this may be a root.
    pub rootish_dependencies: u64,
    /// A task whose group depends on fewer tasks than this may be a root.
    pub rootish_dependency_tasks: u64,
    /// Assumed by prefix. Unit: seconds.
    pub default_task_durations: Vec<(String, f64)>,
    /// Assumed size of results that were never seen. Unit: bytes.
    pub default_data_size: u64,
    /// A worker that is silent for so long is lost. `None`: never.
    pub worker_ttl: Option<Duration>,
    /// Tasks that no worker may run fail after this time. `None`: never.
    pub no_workers_timeout: Option<Duration>,
    /// Whether tasks move from busy to idle workers.
    pub work_stealing: bool,
    /// How often it is looked whether tasks should move.
    pub work_stealing_interval: Duration,
    /// Whether the active memory manager runs from the start.
    pub active_memory_manager: bool,
    /// Whether it drops superfluous copies (policy `ReduceReplicas`).
    pub reduce_replicas: bool,
    /// How often it is looked for superfluous copies.
    pub active_memory_manager_interval: Duration,
    /// Most tasks of a graph, and most keys, that one event or tick takes in; more take several. About 2 ms.
    pub slice: usize,
    /// Whether the whole state is compared with its invariants after every event, which takes time in proportion to
    /// it; a violation is a panic.
    pub validate: bool,
    /// Transitions kept for stories.
    pub transition_log_length: usize,
    /// Makes the hashes of this process unpredictable to peers; decides nothing.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            worker_saturation: 1.1,
            allowed_failures: 3,
            bandwidth: 100e6,
            unknown_task_duration: 0.5,
            default_task_durations: vec![
                ("rechunk-split".to_owned(), 1e-6),
                ("split-shuffle".to_owned(), 1e-6),
                ("split-taskshuffle".to_owned(), 1e-6),
                ("split-stage".to_owned(), 1e-6),
            ],
            rootish_dependencies: 5,
            rootish_dependency_tasks: 5,
            default_data_size: 1024,
            worker_ttl: Some(Duration::from_secs(300)),
            no_workers_timeout: None,
            work_stealing: true,
            work_stealing_interval: Duration::from_secs(1),
            active_memory_manager: true,
            reduce_replicas: true,
            active_memory_manager_interval: Duration::from_secs(2),
            slice: 1000,
            validate: false,
            transition_log_length: 100_000,
            seed: 0,
        }
    }
}
