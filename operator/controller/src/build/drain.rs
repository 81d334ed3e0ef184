//! Time and means for a worker's pod to hand over its results when it is
//! evicted.

use serde_json::{Value, json};

use super::command::{Program, find};

/// Seconds between the signal to end and the end itself, where the user names
/// none: Kubernetes' own default.
const GRACE_SECONDS: i64 = 30;

/// What the hook runs. A hook that waits would be simpler, but nothing ends its
/// wait when the worker has nothing left to hand over.
const HOOK: &str = include_str!("drain.py");

/// Gives a pod that is to go up to `seconds` to drain its worker; its own time
/// to end comes after that. A container with a hook of its own keeps it.
pub(super) fn drain_first(pod: &mut Value, seconds: i64) {
    if seconds <= 0 {
        return;
    }
    let found = find(pod, Program::Worker);
    let python = found.as_ref().and_then(|found| found.python.clone());
    let python = python.unwrap_or_else(|| "python3".to_owned());
    let container = &mut pod["containers"][found.map_or(0, |found| found.container)];
    if !container.is_object() || !container["lifecycle"]["preStop"].is_null() {
        return;
    }
    container["lifecycle"]["preStop"] = json!({"exec": {"command": [python, "-c", HOOK]}});
    let grace = pod["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(GRACE_SECONDS);
    pod["terminationGracePeriodSeconds"] = json!(grace.saturating_add(seconds));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_gets_the_hook_and_the_pod_the_time() {
        let mut pod = json!({
            "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "side"}, {"name": "w", "args": ["/env/bin/python", "-m", "distributed.cli.dask_worker"]}],
        });
        drain_first(&mut pod, 60);
        assert_eq!(pod["terminationGracePeriodSeconds"], 65);
        let hook = &pod["containers"][1]["lifecycle"]["preStop"]["exec"]["command"];
        assert_eq!(
            (&hook[0], &hook[2]),
            (&json!("/env/bin/python"), &json!(HOOK))
        );
        assert_eq!(pod["containers"][0], json!({"name": "side"}));
    }

    #[test]
    fn no_time_to_drain_or_a_hook_of_the_users_own_changes_nothing() {
        for (seconds, hook) in [(0, json!(null)), (60, json!({"exec": {"command": ["x"]}}))] {
            let pod = json!({"containers": [{"name": "w", "lifecycle": {"preStop": hook}}]});
            let mut built = pod.clone();
            drain_first(&mut built, seconds);
            assert_eq!(built, pod);
        }
    }
}
