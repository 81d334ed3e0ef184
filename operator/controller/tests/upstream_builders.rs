//! Every child object that we build equals upstream's, field by field.
//!
//! Upstream's side comes from the installed `dask_kubernetes`, whose handlers
//! `upstream_builders.py` runs: set `OXIDASK_PYTHON` to an interpreter that
//! can import it. Without it the test is skipped with a line that says so.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use oxidask_operator::build::{self, Site};
use oxidask_operator::labels::WORKER_ID;
use oxidask_operator_api::{DaskCluster, DaskJob, DaskWorkerGroup};
use serde_json::{Map, Value, json};

/// Resources of each kind that are compared.
const EACH: usize = 120;

/// The `id` of workers: the start of the script's fixed uuid.
const ID: &str = "0123456789";

/// Chances that are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len() as u64) as usize]
    }

    fn some(&mut self, choices: &[&str]) -> Value {
        let picked = choices
            .iter()
            .filter(|_| self.roll(2) == 0)
            .collect::<Vec<_>>();
        let pairs = picked
            .into_iter()
            .map(|name| ((*name).to_owned(), json!(format!("v{}", self.roll(4)))));
        Value::Object(pairs.collect())
    }

    fn labels(&mut self) -> Value {
        self.some(&[
            "app",
            "team",
            "dask.org/component",
            "sidecar.istio.io/inject",
            "x/y",
        ])
    }

    fn annotations(&mut self) -> Value {
        self.some(&[
            "note",
            "kopf.zalando.org/last-handled-configuration",
            "kopf.zalando.orgish",
            "kubectl.kubernetes.io/last-applied-configuration",
            "meta.helm.sh/release-name",
            "prometheus.io/scrape",
        ])
    }

    /// Metadata of a part of a spec: absent, empty, or some of both.
    fn part(&mut self) -> Option<Value> {
        let mut part = Map::new();
        if self.roll(2) == 0 {
            part.insert("labels".to_owned(), self.labels());
        }
        if self.roll(2) == 0 {
            part.insert("annotations".to_owned(), self.annotations());
        }
        (self.roll(4) > 0).then_some(Value::Object(part))
    }

    fn env(&mut self) -> Option<Value> {
        let names = [
            "DASK_WORKER_NAME",
            "DASK_SCHEDULER_ADDRESS",
            "MINE",
            "OTHER",
        ];
        let picked = names
            .iter()
            .filter(|_| self.roll(3) == 0)
            .collect::<Vec<_>>();
        let items: Vec<Value> = picked
            .into_iter()
            .map(|name| match self.roll(2) {
                0 => json!({"name": name, "value": "mine"}),
                _ => {
                    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
                }
            })
            .collect();
        (self.roll(3) > 0).then_some(Value::Array(items))
    }

    fn container(&mut self, name: &str) -> Value {
        let mut container = json!({
            "name": name,
            "image": self.one_of(&["ghcr.io/dask/dask:latest", "me/mine:1"]),
            "args": ["dask-worker", "--name", "$(DASK_WORKER_NAME)"],
        });
        if let Some(env) = self.env() {
            container["env"] = env;
        }
        if self.roll(2) == 0 {
            container["resources"] = json!({"limits": {"cpu": "1", "nvidia.com/gpu": 1}});
        }
        if self.roll(2) == 0 {
            container["ports"] =
                json!([{"name": "tcp-comm", "containerPort": 8786, "protocol": "TCP"}]);
        }
        container
    }

    fn pod(&mut self) -> Value {
        let containers: Vec<Value> = ["main", "beside", "third"]
            .into_iter()
            .take(1 + self.roll(3) as usize)
            .map(|name| self.container(name))
            .collect();
        let mut pod = json!({"containers": containers});
        if self.roll(3) == 0 {
            pod["initContainers"] = json!([self.container("init")]);
        }
        if self.roll(3) == 0 {
            pod["nodeSelector"] = json!({"disk": "ssd"});
            pod["tolerations"] = json!([]);
            pod["fieldOfTheFuture"] = json!({"a": [1, 2.5, null, true]});
        }
        pod
    }

    fn worker(&mut self) -> Value {
        let mut worker = json!({"replicas": self.roll(5), "spec": self.pod()});
        if let Some(part) = self.part() {
            worker["metadata"] = part;
        }
        worker
    }

    fn scheduler(&mut self) -> Value {
        let mut scheduler = json!({
            "spec": self.pod(),
            "service": {
                "type": self.one_of(&["ClusterIP", "NodePort", "LoadBalancer"]),
                "selector": {"dask.org/component": "scheduler"},
                "ports": [{"name": "tcp-comm", "protocol": "TCP", "port": 8786, "targetPort": "tcp-comm"}],
            },
        });
        if let Some(part) = self.part() {
            scheduler["metadata"] = part;
        }
        scheduler
    }

    fn resource(&mut self, kind: &str, name: &str, spec: Value) -> Value {
        let mut metadata =
            json!({"name": name, "namespace": "ns", "uid": format!("uid-{}", self.roll(1 << 40))});
        if self.roll(4) > 0 {
            metadata["labels"] = self.labels();
        }
        if self.roll(4) > 0 {
            metadata["annotations"] = self.annotations();
        }
        json!({"apiVersion": "kubernetes.dask.org/v1", "kind": kind, "metadata": metadata, "spec": spec})
    }

    fn cluster(&mut self) -> Value {
        let spec = json!({"worker": self.worker(), "scheduler": self.scheduler()});
        let name = self.one_of(&["simple", "a-b-c", "x"]);
        self.resource("DaskCluster", name, spec)
    }

    fn group(&mut self) -> Value {
        let spec = json!({"cluster": "simple", "worker": self.worker()});
        let name = self.one_of(&["simple-default", "gpu"]);
        self.resource("DaskWorkerGroup", name, spec)
    }

    fn job(&mut self) -> Value {
        let cluster = json!({"spec": {"worker": self.worker(), "scheduler": self.scheduler()}});
        let mut job = json!({"spec": self.pod()});
        if let Some(part) = self.part() {
            job["metadata"] = part;
        }
        let spec = json!({"job": job, "cluster": cluster});
        let name = self.one_of(&["pi", "job-1"]);
        self.resource("DaskJob", name, spec)
    }
}

fn ours(resource: &Value, cluster: &Value) -> Vec<Value> {
    match resource["kind"].as_str().unwrap() {
        "DaskCluster" => {
            let cluster: DaskCluster = serde_json::from_value(resource.clone()).unwrap();
            vec![
                build::scheduler_deployment(&cluster, 1, &Site::default()),
                build::scheduler_service(&cluster),
                build::default_group(&cluster),
            ]
        }
        "DaskJob" => {
            let job: DaskJob = serde_json::from_value(resource.clone()).unwrap();
            vec![build::job_cluster(&job), build::job_runner(&job)]
        }
        _ => {
            let group: DaskWorkerGroup = serde_json::from_value(resource.clone()).unwrap();
            let cluster: DaskCluster = serde_json::from_value(cluster.clone()).unwrap();
            let parent = build::WorkerParent {
                group: &group,
                cluster: &cluster,
                tls: None,
            };
            vec![build::worker_deployment(parent, ID, &Site::default())]
        }
    }
}

/// Takes out of our object what is ours by intent (see `build`), and checks it.
fn without_our_own(mut object: Value) -> Value {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|name, _| !name.starts_with("oxidask.io/"));
    }
    if object["kind"] == "Deployment" {
        let spec = &mut object["spec"];
        let selector = spec["selector"]["matchLabels"].take();
        for (name, value) in selector.as_object().unwrap() {
            assert_eq!(
                &spec["template"]["metadata"]["labels"][name], value,
                "selects its own pods"
            );
        }
        spec["selector"]["matchLabels"] = Value::Null;
        if let Some(strategy) = spec.as_object_mut().unwrap().remove("strategy") {
            assert_eq!(strategy, json!({"type": "Recreate"}));
        }
        for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
            object
                .pointer_mut(labels)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(WORKER_ID);
        }
    }
    object
}

/// Takes out of upstream's object what only a side effect of it puts there.
fn without_side_effects(mut object: Value) -> Value {
    if object["kind"] == "Deployment" {
        object["spec"]["selector"]["matchLabels"] = Value::Null;
        let template = object["spec"]["template"]["metadata"]
            .as_object_mut()
            .unwrap();
        template.retain(|name, _| name == "labels" || name == "annotations");
    }
    // The default group gets its owner when it is first handled, not here.
    if object["kind"] == "DaskWorkerGroup" {
        assert!(object["metadata"]["ownerReferences"].is_null());
    }
    object
}

/// Paths where two objects differ.
fn differences(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for name in a
                .keys()
                .chain(b.keys().filter(|name| !a.contains_key(*name)))
            {
                differences(&format!("{path}.{name}"), &ours[name], &theirs[name], out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), a, b, out);
            }
        }
        _ if ours == theirs => {}
        _ => out.push(format!("{path}: ours {ours}, upstream's {theirs}")),
    }
}

#[test]
fn child_objects_equal_upstreams_field_by_field() {
    let Some(python) = std::env::var_os("OXIDASK_PYTHON") else {
        eprintln!("skipped: OXIDASK_PYTHON is not set");
        return;
    };
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let work: Vec<Value> = (0..EACH)
        .flat_map(|_| [dice.cluster(), dice.group(), dice.job()])
        .collect();
    let work: Vec<Value> = work
        .into_iter()
        .map(|resource| json!({"cluster": dice.cluster(), "resource": resource}))
        .collect();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upstream_builders.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = serde_json::to_vec(&work).unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "upstream's builders failed");
    let theirs: Vec<Vec<Value>> = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(theirs.len(), work.len());
    let mut compared = 0;
    for (item, theirs) in work.iter().zip(theirs) {
        let ours = ours(&item["resource"], &item["cluster"]);
        assert_eq!(ours.len(), theirs.len());
        for (mut ours, theirs) in ours.into_iter().zip(theirs) {
            if ours["kind"] == "DaskWorkerGroup" {
                ours["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("ownerReferences");
                ours["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("namespace");
            }
            let mut out = Vec::new();
            differences(
                "",
                &without_our_own(ours),
                &without_side_effects(theirs),
                &mut out,
            );
            assert!(
                out.is_empty(),
                "of {}:\n{}",
                item["resource"],
                out.join("\n")
            );
            compared += 1;
        }
    }
    assert!(compared > 200, "only {compared} objects were compared");
}
