//! What of a resource cannot be done as it is written: pure.

use oxidask_operator_api::{DaskCluster, PodSpec, WorkerSpec};
use serde_json::Value;

use crate::build::{Program, find};
use crate::conditions::Finding;

/// The type of the condition.
pub(crate) const COMMAND_RECOGNISED: &str = "CommandRecognised";

/// Whether the words that start scheduler and workers are found, where a field
/// of the cluster needs to know them; `None` where none does.
pub(crate) fn cluster_commands(cluster: &DaskCluster) -> Option<Finding> {
    let rust = cluster.spec.rust.clone().unwrap_or_default();
    let scheduler = rust.scheduler.then(|| {
        missing(
            &cluster.spec.scheduler.spec,
            Program::Scheduler,
            "spec.rust.scheduler",
        )
    });
    let workers = worker_need(&cluster.spec.worker, rust.worker)
        .map(|need| missing(&cluster.spec.worker.spec, Program::Worker, need));
    finding([scheduler, workers])
}

/// As [`cluster_commands`], for the workers of one group.
pub(crate) fn group_commands(worker: &WorkerSpec, cluster: &DaskCluster) -> Option<Finding> {
    let rust = cluster.spec.rust.as_ref().is_some_and(|rust| rust.worker);
    let workers =
        worker_need(worker, rust).map(|need| missing(&worker.spec, Program::Worker, need));
    finding([workers])
}

/// The field that needs to know how workers are started.
fn worker_need(worker: &WorkerSpec, rust: bool) -> Option<&'static str> {
    if rust {
        return Some("spec.rust.worker");
    }
    worker.nthreads.map(|_| "spec.worker.nthreads")
}

fn missing(pod: &PodSpec, program: Program, field: &str) -> Option<String> {
    if find(&Value::Object(pod.0.clone()), program).is_some() {
        return None;
    }
    let word = program.word();
    Some(format!(
        "{field} has no effect: no container of the {word}'s pod has, at the beginning of command or args or behind a word \"--\", dask-{word}, dask {word}, or python -m distributed.cli.dask_{word}"
    ))
}

/// The finding of some checks, each `None` where it was not asked for, and
/// holding its complaint otherwise.
fn finding<const N: usize>(checks: [Option<Option<String>>; N]) -> Option<Finding> {
    let asked: Vec<Option<String>> = checks.into_iter().flatten().collect();
    if asked.is_empty() {
        return None;
    }
    let complaints: Vec<String> = asked.into_iter().flatten().collect();
    Some(if complaints.is_empty() {
        let message = "the words that start the programs are known";
        Finding::new(COMMAND_RECOGNISED, true, "Recognised", message)
    } else {
        let message = complaints.join("; ");
        Finding::new(COMMAND_RECOGNISED, false, "CommandNotRecognised", message)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(rust: Value, scheduler: &[&str], worker: &[&str]) -> DaskCluster {
        serde_json::from_value(json!({
            "metadata": {"name": "c"},
            "spec": {
                "rust": rust,
                "scheduler": {"spec": {"containers": [{"args": scheduler}]}},
                "worker": {"spec": {"containers": [{"args": worker}]}},
            },
        }))
        .unwrap()
    }

    #[test]
    fn nothing_is_said_where_nothing_depends_on_it() {
        assert_eq!(
            cluster_commands(&cluster(json!(null), &["x"], &["y"])),
            None
        );
        let unused = json!({"scheduler": false, "worker": false});
        assert_eq!(cluster_commands(&cluster(unused, &["x"], &["y"])), None);
    }

    #[test]
    fn what_is_not_recognised_is_named_with_what_would_be() {
        let both = json!({"scheduler": true, "worker": true});
        let finding = cluster_commands(&cluster(both.clone(), &["dask-scheduler"], &["start.sh"]));
        let finding = finding.unwrap();
        assert!(!finding.status && finding.reason == "CommandNotRecognised");
        assert!(
            finding.message.starts_with("spec.rust.worker"),
            "{}",
            finding.message
        );
        let finding = cluster_commands(&cluster(both, &["dask-scheduler"], &["dask", "worker"]));
        assert!(finding.unwrap().status);
    }

    #[test]
    fn a_number_of_threads_needs_to_know_the_workers_command() {
        let mut cluster = cluster(json!(null), &["x"], &["start.sh"]);
        cluster.spec.worker.nthreads = Some(2);
        let finding = group_commands(&cluster.spec.worker, &cluster).unwrap();
        assert!(
            finding.message.starts_with("spec.worker.nthreads"),
            "{}",
            finding.message
        );
    }
}
