//! What starts in a pod: the number of threads, and our programs in the place
//! of the image's.

use serde_json::{Value, json};

use super::command::{Program, find};

/// Where the volume with our programs is mounted.
const FOLDER: &str = "/opt/oxidask";
/// Name of that volume and of the init container that fills it.
const NAME: &str = "oxidask-programs";

/// Gives a worker its number of threads. Nothing happens where the words that
/// start it are not found, or name a number themselves.
pub(super) fn set_threads(pod: &mut Value, nthreads: i64) {
    if let Some(found) = find(pod, Program::Worker)
        && !found.has_flag(pod, "--nthreads")
    {
        found.insert(pod, &["--nthreads", &nthreads.to_string()]);
    }
}

/// Starts our program instead of the image's: an init container copies it into
/// a volume, and the words that start the image's are replaced. Nothing happens
/// where these are not found.
pub(super) fn inject(pod: &mut Value, program: Program, image: &str) {
    let Some(found) = find(pod, program) else {
        return;
    };
    let file = format!("dask-{}", program.word());
    found.replace(pod, &format!("{FOLDER}/{file}"));
    let container = &mut pod["containers"][found.container];
    let mount = json!({"name": NAME, "mountPath": FOLDER, "readOnly": true});
    push(container, "volumeMounts", mount);
    if let Some(python) = &found.python {
        add_env(container, "OXIDASK_PYTHON", python);
    }
    let copies = json!({
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [format!("/{file}"), "--copy-to", FOLDER],
        "volumeMounts": [{"name": NAME, "mountPath": FOLDER}],
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"cpu": "1", "memory": "64Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    match pod["initContainers"].as_array_mut() {
        // First, because an init container of the user may already use it.
        Some(list) => list.insert(0, copies),
        None => pod["initContainers"] = json!([copies]),
    }
    push(pod, "volumes", json!({"name": NAME, "emptyDir": {}}));
}

/// Appends to a list, which may be missing.
pub(super) fn push(object: &mut Value, list: &str, item: Value) {
    match object[list].as_array_mut() {
        Some(items) => items.push(item),
        None => object[list] = json!([item]),
    }
}

/// Adds an environment variable after those of the user, unless there is one of
/// that name.
pub(super) fn add_env(container: &mut Value, name: &str, value: &str) {
    let has = container["env"]
        .as_array()
        .is_some_and(|env| env.iter().any(|item| item["name"] == name));
    if !has {
        push(container, "env", json!({"name": name, "value": value}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_come_right_after_the_program_and_only_once() {
        let mut pod = json!({"containers": [{"args": ["dask-worker", "--name", "a"]}]});
        set_threads(&mut pod, 4);
        let words = json!(["dask-worker", "--nthreads", "4", "--name", "a"]);
        assert_eq!(pod["containers"][0]["args"], words);
        set_threads(&mut pod, 8);
        assert_eq!(pod["containers"][0]["args"], words);
    }

    #[test]
    fn injection_changes_the_words_and_nothing_else_of_the_users_containers() {
        let mut pod = json!({
            "initContainers": [{"name": "mine"}],
            "volumes": [{"name": "data"}],
            "containers": [
                {"name": "side"},
                {"name": "w", "image": "me", "command": ["/opt/conda/bin/python", "-m", "distributed.cli.dask_worker"], "env": [{"name": "A", "value": "1"}]},
            ],
        });
        inject(&mut pod, Program::Worker, "ours:1");
        assert_eq!(
            pod["containers"],
            json!([
                {"name": "side"},
                {
                    "name": "w",
                    "image": "me",
                    "command": ["/opt/oxidask/dask-worker"],
                    "env": [{"name": "A", "value": "1"}, {"name": "OXIDASK_PYTHON", "value": "/opt/conda/bin/python"}],
                    "volumeMounts": [{"name": "oxidask-programs", "mountPath": "/opt/oxidask", "readOnly": true}],
                },
            ])
        );
        assert_eq!(pod["initContainers"][0]["image"], "ours:1");
        assert_eq!(pod["initContainers"][1]["name"], "mine");
        assert_eq!(pod["volumes"][1]["name"], "oxidask-programs");
    }

    #[test]
    fn a_pod_whose_program_is_not_found_stays_as_it_is() {
        let pod = json!({"containers": [{"command": ["sh", "-c", "dask-worker"]}]});
        let mut built = pod.clone();
        inject(&mut built, Program::Worker, "ours:1");
        set_threads(&mut built, 2);
        assert_eq!(built, pod);
    }
}
