//! Environment variables that are added to the user's containers.

use oxidask_operator_api::PodSpec;
use serde_json::{Value, json};

use crate::names;

/// The scheduler's address as every pod of the cluster can use it.
///
/// As upstream: port and cluster domain are the usual ones, so that the string
/// is the same under either operator.
pub(super) fn scheduler_address(cluster: &str, namespace: &str, tls: bool) -> String {
    let scheme = if tls { "tls" } else { "tcp" };
    format!(
        "{scheme}://{}.{namespace}.svc.cluster.local:8786",
        names::scheduler(cluster)
    )
}

/// The pod spec with the variables added to each container, after the user's
/// own and only where the user has none of that name. Init containers stay as
/// they are.
pub(super) fn with_env(pod: &PodSpec, variables: &[(&str, &str)]) -> Value {
    let mut spec = Value::Object(pod.0.clone());
    let Some(Value::Array(containers)) = spec.get_mut("containers") else {
        return spec;
    };
    for container in containers {
        let Value::Object(container) = container else {
            continue;
        };
        let env = container.entry("env").or_insert_with(|| json!([]));
        if env.is_null() {
            *env = json!([]);
        }
        let Value::Array(env) = env else {
            continue;
        };
        for (name, value) in variables {
            if !env.iter().any(|item| item["name"] == *name) {
                env.push(json!({"name": name, "value": value}));
            }
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> PodSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn variables_come_after_the_users_and_do_not_replace_them() {
        let spec = pod(json!({
            "initContainers": [{"name": "i"}],
            "containers": [
                {"name": "a"},
                {"name": "b", "env": [{"name": "X", "value": "mine"}, {"name": "W"}]},
            ],
        }));
        let built = with_env(&spec, &[("X", "1"), ("Y", "2")]);
        assert_eq!(
            built,
            json!({
                "initContainers": [{"name": "i"}],
                "containers": [
                    {"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                    {"name": "b", "env": [{"name": "X", "value": "mine"}, {"name": "W"}, {"name": "Y", "value": "2"}]},
                ],
            })
        );
    }
}
