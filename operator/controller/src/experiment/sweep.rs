//! The cells of an experiment and their order: pure, from its spec.

use std::time::Duration;

use oxidask_operator_api::ScalingExperimentSpec;
use oxidask_operator_api::experiment::MAX_CELLS;
use serde_json::Value;

use crate::names;

/// Variable whose use in a worker's command stands for its threads.
pub(crate) const CORES_VARIABLE: &str = "OXIDASK_CORES";

/// A number of workers and of threads of each: one worker group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shape {
    /// Workers.
    pub(crate) nodes: i64,
    /// Threads of each.
    pub(crate) cores: i64,
}

/// One run of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Place in the order of cells, from 0.
    pub(crate) index: i64,
    pub(crate) shape: Shape,
    pub(crate) size: i64,
    /// From 0.
    pub(crate) repeat: i64,
}

/// When waiting ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of scheduler, workers and runner: to start.
    pub(crate) start: Duration,
    /// Of a runner: to compute.
    pub(crate) cell: Duration,
    /// Of the whole experiment.
    pub(crate) total: Option<Duration>,
}

/// The cells in the order in which they run: passes over all combinations,
/// every second one backwards. So what changes slowly and steadily (a machine
/// that gets warmer, a scheduler that fills) meets every combination at the
/// same mean time over an even number of passes; and between two passes the
/// workers stay.
pub(crate) fn cells(spec: &ScalingExperimentSpec) -> Vec<Cell> {
    let mut once = Vec::new();
    for &nodes in &spec.nodes {
        for &cores in &spec.cores {
            for &size in &spec.sizes {
                once.push((Shape { nodes, cores }, size));
            }
        }
    }
    let mut cells: Vec<Cell> = Vec::new();
    for repeat in 0..spec.repeats {
        let mut pass = once.clone();
        if repeat % 2 == 1 {
            pass.reverse();
        }
        for (shape, size) in pass {
            let index = i64::try_from(cells.len()).unwrap_or(i64::MAX);
            cells.push(Cell {
                index,
                shape,
                size,
                repeat,
            });
        }
    }
    cells
}

/// The limits, with the defaults that the resource's documentation names.
pub(crate) fn limits(spec: &ScalingExperimentSpec) -> Limits {
    let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1));
    let limits = &spec.limits;
    Limits {
        start: seconds(limits.start_seconds.unwrap_or(300)),
        cell: seconds(limits.cell_seconds.unwrap_or(600)),
        total: limits.total_seconds.map(seconds),
    }
}

/// What is wrong with an experiment, in a sentence for its owner. The API
/// server has checked most of it; this holds where it could not.
///
/// # Errors
/// The name is too long, a list is empty, has a number twice or one below 1,
/// there are too many cells, or a pod lacks what has to be in it.
pub(crate) fn validate(name: &str, spec: &ScalingExperimentSpec) -> Result<(), String> {
    names::validate_experiment(name)?;
    let Some(workload) = spec.workload.name() else {
        return Err("spec.workload must have exactly one of matmul, pi and python".to_owned());
    };
    for (field, numbers) in [
        ("sizes", &spec.sizes),
        ("nodes", &spec.nodes),
        ("cores", &spec.cores),
    ] {
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if numbers.is_empty() || sorted.first().is_some_and(|first| *first < 1) {
            return Err(format!("spec.{field} must have numbers of 1 or more"));
        }
        if sorted.len() != numbers.len() {
            return Err(format!("spec.{field} has a number twice"));
        }
    }
    let repeats = usize::try_from(spec.repeats)
        .ok()
        .filter(|repeats| *repeats >= 1)
        .ok_or("spec.repeats must be 1 or more")?;
    let count = [spec.nodes.len(), spec.cores.len(), spec.sizes.len()]
        .iter()
        .try_fold(repeats, |product, factor| product.checked_mul(*factor));
    match count {
        Some(count) if count <= MAX_CELLS => {}
        _ => {
            return Err(format!(
                "sizes × nodes × cores × repeats may be {MAX_CELLS} cells at most"
            ));
        }
    }
    let runner = spec.runner.as_ref().and_then(|runner| runner.spec.as_ref());
    if workload == "python" && runner.is_none_or(|runner| container(&runner.0).is_none()) {
        return Err(
            "the workload python needs spec.runner.spec, the pod of the program".to_owned(),
        );
    }
    if workload != "python" && image(spec).is_none() {
        return Err(
            "there is no image for the runner: give the scheduler's first container or that of spec.runner.spec one"
                .to_owned(),
        );
    }
    takes_threads(spec)
}

/// The first container of a pod.
pub(crate) fn container(pod: &serde_json::Map<String, Value>) -> Option<&Value> {
    pod.get("containers")?.get(0)
}

/// The scheduler's image, which has the command `oxidask` beside it.
fn image(spec: &ScalingExperimentSpec) -> Option<&str> {
    let runner = spec.runner.as_ref().and_then(|runner| runner.spec.as_ref());
    let of = |pod| container(pod)?.get("image")?.as_str();
    runner
        .and_then(|runner| of(&runner.0))
        .or_else(|| of(&spec.cluster.spec.scheduler.spec.0))
}

/// Whether the worker's command can be told its threads.
fn takes_threads(spec: &ScalingExperimentSpec) -> Result<(), String> {
    let place = "spec.cluster.spec.worker.spec.containers[0]";
    let Some(container) = container(&spec.cluster.spec.worker.spec.0) else {
        return Err(format!("{place} is missing"));
    };
    let words = words(container);
    if words.iter().any(|word| word.contains(&reference())) {
        return Ok(());
    }
    if words.is_empty() {
        return Err(format!(
            "{place} has neither command nor args: name the worker's command, so that it can be given its number of threads"
        ));
    }
    let is_shell = |word: &&str| matches!(word.rsplit('/').next(), Some("sh" | "bash"));
    if words.first().is_some_and(is_shell) && words.contains(&"-c") {
        return Err(format!(
            "{place} runs a shell: write {} where it says the number of threads",
            reference()
        ));
    }
    Ok(())
}

/// How a command refers to [`CORES_VARIABLE`].
pub(crate) fn reference() -> String {
    format!("$({CORES_VARIABLE})")
}

/// Command and arguments of a container.
pub(crate) fn words(container: &Value) -> Vec<&str> {
    ["command", "args"]
        .iter()
        .filter_map(|name| container.get(name)?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(change: &Value) -> ScalingExperimentSpec {
        let mut spec = json!({
            "workload": {"pi": {}}, "sizes": [10], "nodes": [1, 2], "cores": [1, 2], "repeats": 2,
            "cluster": {"spec": {
                "worker": {"spec": {"containers": [{"args": ["dask-worker"]}]}},
                "scheduler": {"spec": {"containers": [{"image": "dask"}]}, "service": {}},
            }},
        });
        for (name, value) in change.as_object().unwrap() {
            spec[name] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn every_combination_has_the_same_mean_place_over_two_passes() {
        let spec = spec(&json!({"sizes": [10, 20, 30], "nodes": [1, 2, 4], "repeats": 4}));
        let cells = cells(&spec);
        assert_eq!(cells.len(), 3 * 2 * 3 * 4);
        let mean = |shape: Shape, size: i64| {
            let places = cells
                .iter()
                .filter(|cell| cell.shape == shape && cell.size == size)
                .map(|cell| cell.index);
            places.sum::<i64>()
        };
        let first = mean(cells[0].shape, cells[0].size);
        assert!(
            cells
                .iter()
                .all(|cell| mean(cell.shape, cell.size) == first)
        );
    }

    #[test]
    fn workers_stay_between_two_passes_and_between_sizes() {
        let cells = cells(&spec(&json!({"sizes": [1, 2]})));
        let changes = cells
            .windows(2)
            .filter(|pair| pair[0].shape != pair[1].shape);
        assert_eq!(changes.count(), 3 + 3);
    }

    #[test]
    fn a_good_experiment_is_accepted() {
        assert_eq!(validate("pi", &spec(&json!({}))), Ok(()));
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_field() {
        for (change, word) in [
            (json!({"workload": {"pi": {}, "matmul": {}}}), "exactly one"),
            (json!({"nodes": []}), "spec.nodes"),
            (json!({"cores": [1, 1]}), "spec.cores has a number twice"),
            (json!({"sizes": [0]}), "spec.sizes"),
            (json!({"repeats": 0}), "spec.repeats"),
            (json!({"repeats": 1000}), "1000 cells"),
            (json!({"workload": {"python": {}}}), "spec.runner.spec"),
        ] {
            let error = validate("pi", &spec(&change)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(validate(&"a".repeat(41), &spec(&json!({}))).is_err());
    }

    #[test]
    fn a_worker_whose_threads_cannot_be_set_is_refused() {
        let with = |container: Value| {
            spec(&json!({"cluster": {"spec": {
                "worker": {"spec": {"containers": [container]}},
                "scheduler": {"spec": {"containers": [{"image": "dask"}]}, "service": {}},
            }}}))
        };
        let error = validate("pi", &with(json!({}))).unwrap_err();
        assert!(error.contains("neither command nor args"), "{error}");
        let shell = json!({"command": ["/bin/sh", "-c", "dask-worker"]});
        let error = validate("pi", &with(shell)).unwrap_err();
        assert!(error.contains("$(OXIDASK_CORES)"), "{error}");
        let shell =
            json!({"command": ["/bin/sh", "-c", "dask-worker --nthreads $(OXIDASK_CORES)"]});
        assert_eq!(validate("pi", &with(shell)), Ok(()));
    }
}
