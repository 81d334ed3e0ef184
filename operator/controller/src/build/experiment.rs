//! The cluster, worker groups and runner pods of an experiment.

use oxidask_operator_api::experiment::{ScalingExperiment, Spread};
use oxidask_operator_api::{DaskCluster, PodSpec};
use serde_json::{Map, Value, json};

use super::env::{scheduler_address, with_env};
use super::tls::secure;
use super::{metadata, namespace, owner};
use crate::experiment::sweep::{CORES_VARIABLE, Cell, Limits, Shape, container, reference, words};
use crate::labels::{self, CELL, COMPONENT, GROUP, Inherited, WORKER};
use crate::names;
use crate::spec_hash::spec_hash;

/// Where a runner writes its row.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Where the report finds the rows.
const ROWS_FOLDER: &str = "/experiment";
/// Their file in it and their key in the ConfigMap.
pub(crate) const ROWS_FILE: &str = "rows.json";
/// What a runner gets over its limit before its kubelet ends it: it is to end
/// itself and say why.
const RUNNER_GRACE_SECONDS: u64 = 30;

/// Hash of what the pods of an experiment are made from.
pub(crate) fn template_hash(experiment: &ScalingExperiment) -> String {
    spec_hash(&(&experiment.spec.cluster, &experiment.spec.runner))
}

/// The DaskCluster: a scheduler without workers of its own.
///
/// # Panics
/// As [`owner`].
pub(crate) fn cluster(experiment: &ScalingExperiment) -> Value {
    let name = name_of(experiment);
    let template = &experiment.spec.cluster;
    let inherited = Inherited::new(&experiment.metadata, template.metadata.as_ref());
    let mut spec = template.spec.clone();
    spec.worker.replicas = 0;
    // A cluster that ends itself would end the experiment.
    spec.idle_timeout = 0;
    spec.idle_action = None;
    spec.suspend = None;
    json!({
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": metadata(
            name,
            experiment.metadata.namespace.as_deref(),
            &inherited.labels_with(&labels::experiment_cluster(name)),
            &inherited.annotations,
            owner(experiment),
        ),
        "spec": spec,
    })
}

/// The worker group of one shape. It belongs to the cluster and goes with it.
///
/// # Panics
/// As [`owner`].
pub(crate) fn group(experiment: &ScalingExperiment, cluster: &DaskCluster, shape: Shape) -> Value {
    let name = name_of(experiment);
    let Shape { nodes, cores } = shape;
    let group = names::experiment_group(name, nodes, cores);
    let worker = &experiment.spec.cluster.spec.worker;
    let inherited = Inherited::new(&experiment.metadata, worker.metadata.as_ref());
    let mut pod = with_env(
        &worker.spec,
        &[
            (CORES_VARIABLE, &cores.to_string()),
            ("OXIDASK_NODES", &nodes.to_string()),
        ],
    );
    spread(&mut pod, experiment.spec.spread, &group, nodes);
    if let Some(container) = pod.pointer_mut("/containers/0") {
        set_threads(container, cores);
        limit_cpu(container, cores);
    }
    json!({
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskWorkerGroup",
        "metadata": metadata(
            &group,
            experiment.metadata.namespace.as_deref(),
            &inherited.labels_with(&labels::experiment_group(name, nodes, cores)),
            &inherited.annotations,
            owner(cluster),
        ),
        "spec": {
            "cluster": name,
            "worker": {
                "replicas": nodes,
                "metadata": worker.metadata,
                "spec": pod,
                // Nobody wants what the workers hold when a cell is over.
                "drainTimeoutSeconds": 0,
            },
        },
    })
}

/// Spreads the workers of a group over Kubernetes nodes. With `minDomains` a
/// node takes one worker at most until there are as many nodes as workers, so
/// each has a node of its own or stays unscheduled. Nodes whose taints the pod
/// does not tolerate do not count.
fn spread(pod: &mut Value, spread: Spread, group: &str, nodes: i64) {
    let (when, least) = match spread {
        Spread::Required => ("DoNotSchedule", Some(nodes)),
        Spread::Preferred => ("ScheduleAnyway", None),
    };
    let mut constraint = json!({
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": when,
        "nodeTaintsPolicy": "Honor",
        "labelSelector": {"matchLabels": {COMPONENT: WORKER, GROUP: group}},
    });
    if let Some(least) = least {
        constraint["minDomains"] = json!(least);
    }
    let list = pod["topologySpreadConstraints"].as_array();
    let mut list: Vec<Value> = list.cloned().unwrap_or_default();
    // The list has one entry of a topology key and consequence.
    list.retain(|other| {
        other["topologyKey"] != constraint["topologyKey"]
            || other["whenUnsatisfiable"] != constraint["whenUnsatisfiable"]
    });
    list.push(constraint);
    pod["topologySpreadConstraints"] = json!(list);
}

/// Gives a worker's command its number of threads: where it refers to the
/// variable it finds it itself, else as `--nthreads`, in the place of the one
/// that is there or at the end.
fn set_threads(container: &mut Value, cores: i64) {
    if words(container)
        .iter()
        .any(|word| word.contains(&reference()))
    {
        return;
    }
    let threads = cores.to_string();
    for list in ["args", "command"] {
        let Some(Value::Array(words)) = container.get_mut(list) else {
            continue;
        };
        for place in 0..words.len() {
            let word = words[place].as_str().unwrap_or_default();
            if word.starts_with("--nthreads=") {
                words[place] = json!(format!("--nthreads={threads}"));
                return;
            }
            if word == "--nthreads" {
                match words.get_mut(place + 1) {
                    Some(value) => *value = json!(threads),
                    None => words.push(json!(threads)),
                }
                return;
            }
        }
    }
    for list in ["args", "command"] {
        if let Some(Value::Array(words)) = container.get_mut(list)
            && !words.is_empty()
        {
            words.extend([json!("--nthreads"), json!(threads)]);
            return;
        }
    }
}

/// The CPU limit is the number of threads; a request that the user made stays
/// if it is not larger.
fn limit_cpu(container: &mut Value, cores: i64) {
    let cpu = cores.to_string();
    if !container["resources"].is_object() {
        container["resources"] = json!({});
    }
    let resources = &mut container["resources"];
    for part in ["limits", "requests"] {
        if !resources[part].is_object() {
            resources[part] = json!({});
        }
    }
    resources["limits"]["cpu"] = json!(cpu);
    let asked = millicores(&resources["requests"]["cpu"]);
    if asked.is_none_or(|asked| asked > cores.saturating_mul(1000)) {
        resources["requests"]["cpu"] = json!(cpu);
    }
}

/// A CPU quantity in thousandths; `None` if there is none or it is written in
/// another way than `2`, `1.5` or `250m`.
fn millicores(quantity: &Value) -> Option<i64> {
    let text = match quantity {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let number = match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<f64>().ok()?,
        None => text.parse::<f64>().ok()? * 1000.0,
    };
    Some(number.ceil() as i64)
}

/// The pod that runs one cell.
///
/// # Panics
/// As [`owner`].
pub(crate) fn runner(
    experiment: &ScalingExperiment,
    cell: &Cell,
    attempt: i64,
    limits: Limits,
) -> Value {
    let name = name_of(experiment);
    let spec = &experiment.spec;
    let template = spec.runner.clone().unwrap_or_default();
    let secret = spec.cluster.spec.tls_on().map(|tls| {
        let own = || names::tls_secret(name);
        tls.secret_name.clone().unwrap_or_else(own)
    });
    let address = scheduler_address(name, namespace(&experiment.metadata), secret.is_some());
    let text = |number: i64| number.to_string();
    let pod = with_env(
        &template.spec.unwrap_or_else(own_pod),
        &[
            ("DASK_SCHEDULER_ADDRESS", &address),
            ("OXIDASK_SIZE", &text(cell.size)),
            ("OXIDASK_NODES", &text(cell.shape.nodes)),
            (CORES_VARIABLE, &text(cell.shape.cores)),
            ("OXIDASK_REPEAT", &text(cell.repeat)),
            ("OXIDASK_TIME_LIMIT", &limits.cell.as_secs().to_string()),
        ],
    );
    let mut pod = ended_pod(pod, limits.cell.as_secs() + RUNNER_GRACE_SECONDS);
    if let Some(secret) = &secret {
        secure(&mut pod, secret);
    }
    if spec.workload.python.is_none()
        && let Some(container) = pod.pointer_mut("/containers/0")
    {
        fill_image(container, &spec.cluster.spec.scheduler.spec, None);
        container["command"] = json!(command(experiment, cell, &address, limits));
        if let Value::Object(members) = container {
            members.remove("args");
        }
    }
    let labels = labels::experiment_runner(name, &text(cell.index), attempt);
    let pod_name = names::cell_runner(name, cell.index, attempt);
    let inherited = Inherited::new(&experiment.metadata, template.metadata.as_ref());
    pod_manifest(experiment, &pod_name, &inherited, &labels, &pod)
}

/// The runner's command line, as `oxidask experiment cell --help` has it.
fn command(
    experiment: &ScalingExperiment,
    cell: &Cell,
    address: &str,
    limits: Limits,
) -> Vec<String> {
    let workload = &experiment.spec.workload;
    let mut words: Vec<String> = ["oxidask", "experiment", "cell"].map(str::to_owned).into();
    words.push(workload.name().unwrap_or_default().to_owned());
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    option("scheduler", address.to_owned());
    option("size", cell.size.to_string());
    option("nodes", cell.shape.nodes.to_string());
    option("cores", cell.shape.cores.to_string());
    option("repeat", cell.repeat.to_string());
    option("time-limit", limits.cell.as_secs().to_string());
    option("output", TERMINATION_LOG.to_owned());
    let matmul = workload.matmul.as_ref();
    let pi = workload.pi.as_ref();
    if let Some(chunk) = matmul.and_then(|m| m.chunk).or(pi.and_then(|pi| pi.chunk)) {
        option("chunk", chunk.to_string());
    }
    if let Some(dtype) = matmul.and_then(|matmul| matmul.dtype) {
        option("dtype", dtype.as_str().to_owned());
    }
    words
}

/// The pod that draws the plots, from the rows in the ConfigMap.
///
/// # Panics
/// As [`owner`].
pub(crate) fn report(experiment: &ScalingExperiment, seconds: u64) -> Value {
    let name = name_of(experiment);
    let mut pod = ended_pod(Value::Object(own_pod().0), seconds);
    let image = experiment
        .spec
        .report
        .as_ref()
        .and_then(|report| report.image.as_deref());
    if let Some(container) = pod.pointer_mut("/containers/0") {
        fill_image(
            container,
            &experiment.spec.cluster.spec.scheduler.spec,
            image,
        );
        container["command"] = json!([
            "oxidask",
            "experiment",
            "report",
            "--rows",
            format!("{ROWS_FOLDER}/{ROWS_FILE}"),
            "--configmap-data",
            "-",
        ]);
        container["volumeMounts"] = json!([
            {"name": "rows", "mountPath": ROWS_FOLDER, "readOnly": true},
            // The root file system cannot be written, and the plots are files before they are data.
            {"name": "tmp", "mountPath": "/tmp"},
        ]);
    }
    pod["volumes"] = json!([
        {
            "name": "rows",
            "configMap": {
                "name": names::experiment_results(name),
                "items": [{"key": ROWS_FILE, "path": ROWS_FILE}],
            },
        },
        {"name": "tmp", "emptyDir": {}},
    ]);
    // A copy of the runner's secrets for pulling images: the image is the same.
    if let Some(secrets) = experiment
        .spec
        .cluster
        .spec
        .scheduler
        .spec
        .0
        .get("imagePullSecrets")
    {
        pod["imagePullSecrets"] = secrets.clone();
    }
    let inherited = Inherited::new(&experiment.metadata, None);
    let labels = labels::experiment_runner(name, "report", 1);
    pod_manifest(
        experiment,
        &names::report_runner(name),
        &inherited,
        &labels,
        &pod,
    )
}

/// The ConfigMap with the results.
///
/// # Panics
/// As [`owner`].
pub(crate) fn results(
    experiment: &ScalingExperiment,
    data: &Map<String, Value>,
    binary: &Map<String, Value>,
) -> Value {
    let name = name_of(experiment);
    let inherited = Inherited::new(&experiment.metadata, None);
    let mut labels = labels::experiment_cluster(name);
    labels.remove(labels::CLUSTER);
    let mut manifest = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(
            &names::experiment_results(name),
            experiment.metadata.namespace.as_deref(),
            &inherited.labels_with(&labels),
            &inherited.annotations,
            owner(experiment),
        ),
        "data": data,
    });
    if !binary.is_empty() {
        manifest["binaryData"] = json!(binary);
    }
    manifest
}

/// A pod of one container that needs no right at all. What is missing in it is
/// filled in by its user.
fn own_pod() -> PodSpec {
    let spec = json!({
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "runner",
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        }],
    });
    match spec {
        Value::Object(spec) => PodSpec(spec),
        _ => PodSpec::default(),
    }
}

/// Sees to it that a pod runs once, ends in time, and leaves its last words.
fn ended_pod(mut pod: Value, seconds: u64) -> Value {
    pod["restartPolicy"] = json!("Never");
    pod["activeDeadlineSeconds"] = json!(seconds);
    if pod["terminationGracePeriodSeconds"].is_null() {
        pod["terminationGracePeriodSeconds"] = json!(5);
    }
    if let Some(container) = pod.pointer_mut("/containers/0") {
        container["terminationMessagePath"] = json!(TERMINATION_LOG);
        container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    }
    pod
}

/// Gives a container an image if it has none: `image`, or the scheduler's.
fn fill_image(target: &mut Value, scheduler: &PodSpec, image: Option<&str>) {
    if target["image"].is_string() {
        return;
    }
    if let Some(image) = image {
        target["image"] = json!(image);
        return;
    }
    let scheduler = container(&scheduler.0);
    for field in ["image", "imagePullPolicy"] {
        if let Some(value) = scheduler.and_then(|container| container.get(field)) {
            target[field] = value.clone();
        }
    }
}

fn pod_manifest(
    experiment: &ScalingExperiment,
    name: &str,
    inherited: &Inherited,
    labels: &labels::Map,
    pod: &Value,
) -> Value {
    debug_assert!(labels.contains_key(CELL), "a runner is found by its labels");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(
            name,
            experiment.metadata.namespace.as_deref(),
            &inherited.labels_with(labels),
            &inherited.annotations,
            owner(experiment),
        ),
        "spec": pod,
    })
}

fn name_of(experiment: &ScalingExperiment) -> &str {
    experiment.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(mut container: Value) -> Vec<String> {
        set_threads(&mut container, 4);
        words(&container).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn threads_are_put_where_the_command_has_them_or_at_its_end() {
        for (container, expected) in [
            (
                json!({"args": ["w", "--nthreads", "1", "-x"]}),
                "w --nthreads 4 -x",
            ),
            (
                json!({"args": ["w", "--nthreads=1", "-x"]}),
                "w --nthreads=4 -x",
            ),
            (json!({"args": ["w", "--nthreads"]}), "w --nthreads 4"),
            (json!({"args": ["w"]}), "w --nthreads 4"),
            (json!({"command": ["w"]}), "w --nthreads 4"),
            (json!({"command": ["w"], "args": ["a"]}), "w a --nthreads 4"),
            (
                json!({"args": ["w", "$(OXIDASK_CORES)"]}),
                "w $(OXIDASK_CORES)",
            ),
        ] {
            assert_eq!(threads(container).join(" "), expected);
        }
    }

    #[test]
    fn the_limit_is_set_and_a_smaller_request_stays() {
        let cpu = |resources: Value| {
            let mut container = json!({"resources": resources});
            limit_cpu(&mut container, 2);
            let resources = &container["resources"];
            (
                resources["limits"]["cpu"].clone(),
                resources["requests"]["cpu"].clone(),
            )
        };
        assert_eq!(cpu(Value::Null), (json!("2"), json!("2")));
        let small = json!({"requests": {"cpu": "100m", "memory": "1Gi"}});
        assert_eq!(cpu(small), (json!("2"), json!("100m")));
        let large = json!({"limits": {"cpu": 8}, "requests": {"cpu": 3}});
        assert_eq!(cpu(large), (json!("2"), json!("2")));
        let strange = json!({"requests": {"cpu": "3e3"}});
        assert_eq!(cpu(strange), (json!("2"), json!("2")));
    }

    #[test]
    fn the_report_has_a_folder_to_write_to_beside_its_root_that_cannot_be_written() {
        let experiment: ScalingExperiment = serde_json::from_value(json!({
            "metadata": {"name": "e", "namespace": "ns", "uid": "u"},
            "spec": {
                "workload": {"pi": {}}, "sizes": [1], "nodes": [1], "cores": [1],
                "cluster": {"spec": {}},
            },
        }))
        .unwrap();
        let pod = &report(&experiment, 60)["spec"];
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        let mounts = container["volumeMounts"].as_array().unwrap();
        let tmp = mounts.iter().find(|mount| mount["mountPath"] == "/tmp");
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes
            .iter()
            .find(|volume| Some(&volume["name"]) == tmp.map(|tmp| &tmp["name"]));
        assert!(volume.unwrap()["emptyDir"].is_object(), "{pod}");
    }

    #[test]
    fn a_users_constraint_of_the_same_kind_gives_way_and_others_stay() {
        let mut pod = json!({"topologySpreadConstraints": [
            {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 5},
            {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 2},
        ]});
        spread(&mut pod, Spread::Required, "g", 3);
        let list = pod["topologySpreadConstraints"].as_array().unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0]["topologyKey"], "zone");
        assert_eq!(
            (&list[1]["minDomains"], &list[1]["nodeTaintsPolicy"]),
            (&json!(3), &json!("Honor"))
        );
        let mut pod = json!({});
        spread(&mut pod, Spread::Preferred, "g", 3);
        assert_eq!(
            pod["topologySpreadConstraints"][0]["minDomains"],
            Value::Null
        );
    }
}
