//! The `ScalingExperiment` that an experiment on the command line stands for.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::args::{Elements, Sweep};

/// Longest program that a runner pod gets as an argument: Linux takes 128 kB. Unit: bytes.
const LONGEST_PROGRAM: usize = 100_000;

/// What the resource is made from.
pub(super) struct Experiment<'a> {
    pub(super) name: &'a str,
    /// The field `workload`.
    pub(super) workload: Value,
    pub(super) sizes: Vec<u64>,
    pub(super) sweep: &'a Sweep,
    /// The field `runner`; the operator's own if not given.
    pub(super) runner: Option<Value>,
}

impl Experiment<'_> {
    pub(super) fn manifest(&self) -> Value {
        let Sweep {
            workers,
            threads,
            repeats,
            kubernetes,
            ..
        } = self.sweep;
        let spread = if kubernetes.share_nodes {
            "Preferred"
        } else {
            "Required"
        };
        let mut spec = json!({
            "workload": self.workload,
            "sizes": self.sizes,
            "nodes": workers,
            "cores": threads,
            "repeats": repeats,
            "spread": spread,
            "cluster": {"spec": cluster(self.name, &kubernetes.image)},
        });
        if let Some(runner) = &self.runner {
            spec["runner"] = runner.clone();
            // The program's image need not have the command that draws.
            spec["report"] = json!({"image": kubernetes.image});
        }
        json!({
            "apiVersion": "oxidask.io/v1alpha1",
            "kind": "ScalingExperiment",
            "metadata": {"name": self.name},
            "spec": spec,
        })
    }
}

/// The field `workload` of a product of matrices.
pub(super) fn matmul(chunk: usize, dtype: Elements) -> Value {
    let dtype = match dtype {
        Elements::F64 => "float64",
        Elements::F32 => "float32",
        Elements::I64 => "int64",
        Elements::I32 => "int32",
    };
    json!({"matmul": {"chunk": chunk, "dtype": dtype}})
}

/// The field `workload` of Monte-Carlo pi.
pub(super) fn pi() -> Value {
    json!({"pi": {}})
}

/// The field `workload` of a Python program.
pub(super) fn python() -> Value {
    json!({"python": {}})
}

/// The pod that runs a program: the first word is a file here, whose text goes along; the rest are its arguments.
///
/// # Errors
/// If the file cannot be read or is too long.
pub(super) fn runner(image: &str, program: &[String]) -> Result<Value> {
    let path = program.first().context("no program is named")?;
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {path}"))?;
    ensure!(
        text.len() <= LONGEST_PROGRAM,
        "{path} has {} bytes, more than the {LONGEST_PROGRAM} that a pod takes as an argument: put it into an image and write a ScalingExperiment (docs/experiments-resource.md)",
        text.len()
    );
    let mut arguments = vec!["python".to_owned(), "-c".to_owned(), text];
    arguments.extend(program[1..].iter().cloned());
    Ok(json!({"spec": {
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "runner",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": arguments,
        }],
    }}))
}

/// A name that no other experiment has.
pub(super) fn fresh_name(workload: &str) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let milliseconds = since.map_or(0, |since| since.as_millis());
    format!("{workload}-{milliseconds:x}")
}

/// Scheduler and workers, as in `examples/pi.yaml`.
fn cluster(name: &str, image: &str) -> Value {
    let ports = [("tcp-comm", 8786), ("http-dashboard", 8787)];
    let container_ports: Vec<Value> = ports
        .iter()
        .map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}))
        .collect();
    let service_ports: Vec<Value> = ports
        .iter()
        .map(|(name, port)| {
            json!({"name": name, "protocol": "TCP", "port": port, "targetPort": name})
        })
        .collect();
    json!({
        "worker": {"spec": {"containers": [{
            "name": "worker",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["dask-worker", "--name", "$(DASK_WORKER_NAME)"],
        }]}},
        "scheduler": {
            "spec": {"containers": [{
                "name": "scheduler",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": ["dask-scheduler"],
                "ports": container_ports,
                "readinessProbe": {
                    "httpGet": {"port": "http-dashboard", "path": "/health"},
                    "periodSeconds": 1,
                    "failureThreshold": 60,
                },
            }]},
            "service": {
                "type": "ClusterIP",
                "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
                "ports": service_ports,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use oxidask_operator_api::ScalingExperiment;

    use super::*;
    use crate::args::{Args, Command, Workload};

    fn sweep(words: &[&str]) -> Sweep {
        let command = ["oxidask", "experiment", "pi", "--kubernetes"];
        let args = Args::parse_from(command.iter().chain(words));
        match args.command {
            Command::Experiment(experiment) => match experiment.workload {
                Workload::Pi(pi) => pi.sweep,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn manifest(sweep: &Sweep, workload: Value, runner: Option<Value>) -> Value {
        let experiment = Experiment {
            name: "pi",
            workload,
            sizes: vec![2_000_000_000],
            sweep,
            runner,
        };
        experiment.manifest()
    }

    #[test]
    fn the_command_makes_what_the_example_says() {
        let example: Value =
            serde_saphyr::from_str(include_str!("../../../../examples/pi.yaml")).unwrap();
        let sweep = sweep(&["--workers", "1,2,3", "--threads", "1,2", "--repeats", "2"]);
        let mut ours = manifest(&sweep, pi(), None);
        assert_eq!(ours["spec"]["spread"], "Required");
        // The rest of the example is defaults, written out for whoever reads it.
        ours["spec"]["spread"] = Value::Null;
        let mut example = example;
        example["spec"]["limits"] = Value::Null;
        let fields = |value: &Value| {
            let fields = value["spec"].as_object().unwrap().clone().into_iter();
            fields
                .filter(|(_, value)| !value.is_null())
                .collect::<Vec<_>>()
        };
        assert_eq!(fields(&ours), fields(&example));
    }

    #[test]
    fn every_field_is_one_of_the_resource() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program.py");
        std::fs::write(&path, "print(1)").unwrap();
        let program = [path.display().to_string(), "--fast".to_owned()];
        let sweep = sweep(&["--share-nodes", "--image", "mine"]);
        let runner = runner(&sweep.kubernetes.image, &program).unwrap();
        for (workload, runner) in [
            (pi(), None),
            (matmul(1000, Elements::I64), None),
            (python(), Some(runner)),
        ] {
            let ours = manifest(&sweep, workload, runner);
            let read: ScalingExperiment = serde_json::from_value(ours.clone()).unwrap();
            let written = serde_json::to_value(&read).unwrap();
            // What the type does not know would be lost on the way.
            for (field, value) in ours["spec"].as_object().unwrap() {
                if field != "cluster" {
                    assert_eq!(&written["spec"][field], value, "{field}");
                }
            }
        }
    }
}
