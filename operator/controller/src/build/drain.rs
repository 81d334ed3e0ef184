//! Time for a worker's pod to hand over its results when it is evicted.

use serde_json::{Value, json};

/// Seconds between the signal to end and the end itself, where the user names
/// none: Kubernetes' own default.
const GRACE_SECONDS: i64 = 30;

/// Keeps a pod that is to go for `seconds`, so that its worker can be drained;
/// its own time to end comes after that. The operator cuts the wait short when
/// nothing is left to drain. A container with a hook of its own keeps it.
pub(super) fn hold(pod: &mut Value, seconds: i64) {
    if seconds <= 0 {
        return;
    }
    let grace = pod["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(GRACE_SECONDS);
    pod["terminationGracePeriodSeconds"] = json!(grace.saturating_add(seconds));
    if let Some(containers) = pod["containers"].as_array_mut() {
        for container in containers {
            if container["lifecycle"]["preStop"].is_null() {
                container["lifecycle"]["preStop"] = json!({"sleep": {"seconds": seconds}});
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_comes_on_top_of_the_users_own_time_and_hook() {
        let mut pod = json!({
            "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "a"}, {"name": "b", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}],
        });
        hold(&mut pod, 60);
        assert_eq!(pod["terminationGracePeriodSeconds"], 65);
        assert_eq!(
            pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"],
            60
        );
        assert!(pod["containers"][1]["lifecycle"]["preStop"]["sleep"].is_null());
    }

    #[test]
    fn no_time_to_drain_is_no_wait() {
        let mut pod = json!({"containers": [{"name": "a"}]});
        hold(&mut pod, 0);
        assert_eq!(pod, json!({"containers": [{"name": "a"}]}));
    }
}
