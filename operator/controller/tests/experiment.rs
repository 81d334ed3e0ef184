//! Whole experiments on an API server in memory: as they should go, with
//! trouble, and with the operator killed or refused at every request.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

mod fake;
mod faults;
mod life;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use fake::{
    CLUSTERS, CONFIG_MAPS, DEPLOYMENTS, EVENTS, EXPERIMENTS, Fake, Fault, GROUPS, PODS,
    cluster_spec,
};
use faults::Played;
use life::Life;

const REPORT: &str = r#"{"data": {"summary.txt": "bound by compute", "speedup.svg": "<svg/>"}, "binaryData": {"speedup.png": "AA=="}}"#;

fn experiment(change: &Value) -> Value {
    let mut spec = json!({
        "workload": {"pi": {}}, "sizes": [1000], "nodes": [1, 2], "cores": [1], "repeats": 1,
        "limits": {"startSeconds": 20, "cellSeconds": 60},
        "cluster": {"spec": cluster_spec(7)},
    });
    for (name, value) in change.as_object().unwrap() {
        spec[name] = value.clone();
    }
    json!({
        "apiVersion": "oxidask.io/v1alpha1", "kind": "ScalingExperiment",
        "metadata": {"name": "pi", "namespace": "ns"}, "spec": spec,
    })
}

/// A pod of the given outcome.
fn ended(exit_code: i64, message: &str) -> Value {
    json!({"status": {
        "phase": if exit_code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": [{"name": "runner", "state": {"terminated": {
            "exitCode": exit_code, "message": message, "reason": "x",
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:04Z",
        }}}],
    }})
}

/// What one cell's runner says: perfect speed-up.
fn row(pod: &Value) -> String {
    let of = |name: &str| {
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        let found = env.iter().find(|item| item["name"] == name).unwrap();
        found["value"].as_str().unwrap().parse::<f64>().unwrap()
    };
    let seconds = 8.0 / (of("OXIDASK_NODES") * of("OXIDASK_CORES"));
    json!({"seconds": seconds, "tasks": 4, "bytesMoved": 0}).to_string()
}

/// Plays kubelet for runner pods: each runs once to its end. Counts the runs of
/// each cell, and looks that none of them is recorded already.
struct Kubelet {
    task: tokio::task::JoinHandle<()>,
    runs: std::sync::Arc<std::sync::Mutex<BTreeMap<String, usize>>>,
}

impl Kubelet {
    fn begin(fake: &Fake) -> Self {
        let runs = std::sync::Arc::new(std::sync::Mutex::new(BTreeMap::new()));
        let (fake, counts) = (fake.clone(), runs.clone());
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                for pod in fake.list(PODS, "dask.org/component", "experiment-runner") {
                    let name = pod["metadata"]["name"].as_str().unwrap();
                    if pod["status"]["phase"] == "Running" {
                        fake.patch(PODS, name, &ended(0, &row_of(&pod)));
                    }
                    if pod["status"]["phase"] == "Pending" {
                        *counts.lock().unwrap().entry(name.to_owned()).or_default() += 1;
                        let running = json!({"status": {"phase": "Running"}});
                        fake.patch(PODS, name, &running);
                    }
                }
            }
        });
        fn row_of(pod: &Value) -> String {
            match pod["metadata"]["labels"]["oxidask.io/cell"].as_str() {
                Some("report") => String::new(),
                _ => row(pod),
            }
        }
        Self { task, runs }
    }

    fn runs(&self) -> BTreeMap<String, usize> {
        self.runs.lock().unwrap().clone()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn fake() -> Fake {
    let fake = Fake::default();
    let log = format!("drawing\n{REPORT}\n");
    fake.with(|state| state.logs.insert("pi-report".to_owned(), log));
    fake
}

fn status(fake: &Fake) -> Value {
    fake.get(EXPERIMENTS, "pi").unwrap_or_default()["status"].clone()
}

async fn until_phase(fake: &Fake, phase: &str) {
    fake.until(&format!("the phase is {phase}"), |fake| {
        status(fake)["phase"] == phase
    })
    .await;
}

fn names(fake: &Fake, kind: &str) -> Vec<String> {
    fake.with(|state| {
        let of_kind = state.objects.keys().filter(|path| path.0 == kind);
        of_kind.map(|path| path.2.clone()).collect()
    })
}

#[tokio::test(start_paused = true)]
async fn an_experiment_measures_every_cell_and_leaves_its_table_and_plots() {
    let fake = fake();
    let (_life, kubelet) = (Life::begin(&fake), Kubelet::begin(&fake));
    fake.create(
        EXPERIMENTS,
        experiment(&json!({"cores": [1, 2], "repeats": 2})),
    );
    until_phase(&fake, "Complete").await;
    let status = status(&fake);
    assert_eq!(status["progress"], "8/8");
    assert_eq!(status["best"], "2 × 2: 2.00 s, 4.00 times");
    assert_eq!(status["summary"], "bound by compute");
    let order: Vec<_> = status["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["nodes"].as_i64().unwrap(),
                row["cores"].as_i64().unwrap(),
            )
        })
        .collect();
    let pass = [(1, 1), (1, 2), (2, 1), (2, 2)];
    let back: Vec<_> = pass.iter().rev().copied().collect();
    assert_eq!(order, [&pass[..], &back].concat());
    let table = status["table"].as_array().unwrap();
    assert!(
        table
            .iter()
            .all(|row| row["efficiency"] == 1.0 && row["runs"] == 2)
    );
    let results = fake.get(CONFIG_MAPS, "pi-results").unwrap();
    assert_eq!(results["data"]["speedup.svg"], "<svg/>");
    assert_eq!(results["binaryData"]["speedup.png"], "AA==");
    let rows: Value = serde_json::from_str(results["data"]["rows.json"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&rows["workload"], rows["rows"].as_array().unwrap().len()),
        (&json!("pi"), 8)
    );
    assert_eq!(
        results["metadata"]["ownerReferences"][0]["kind"],
        "ScalingExperiment"
    );
    fake.until("the cluster is gone", |fake| {
        names(fake, CLUSTERS).is_empty()
    })
    .await;
    assert_eq!(names(&fake, GROUPS), Vec::<String>::new());
    assert_eq!(names(&fake, PODS), ["pi-report"]);
    assert!(kubelet.runs().values().all(|runs| *runs == 1));
}

#[tokio::test(start_paused = true)]
async fn the_workers_of_a_cell_are_spread_and_have_its_threads() {
    let fake = fake();
    let _life = Life::begin(&fake);
    fake.create(
        EXPERIMENTS,
        experiment(&json!({"nodes": [3], "cores": [2]})),
    );
    fake.until("the runner is made", |fake| {
        fake.get(PODS, "pi-cell-0-1").is_some()
    })
    .await;
    let cluster = fake.get(CLUSTERS, "pi").unwrap();
    assert_eq!(cluster["spec"]["worker"]["replicas"], 0);
    assert_eq!(fake.workers("pi-n3-c2").len(), 3);
    let group = fake.get(GROUPS, "pi-n3-c2").unwrap();
    assert_eq!(
        group["metadata"]["ownerReferences"][0]["kind"],
        "DaskCluster"
    );
    let pod = &group["spec"]["worker"]["spec"];
    let container = &pod["containers"][0];
    let args = container["args"].as_array().unwrap();
    assert_eq!(args[args.len() - 2..], [json!("--nthreads"), json!("2")]);
    assert_eq!(container["resources"]["limits"]["cpu"], "2");
    let spread = &pod["topologySpreadConstraints"][0];
    assert_eq!(
        (
            &spread["minDomains"],
            &spread["nodeTaintsPolicy"],
            &spread["whenUnsatisfiable"]
        ),
        (&json!(3), &json!("Honor"), &json!("DoNotSchedule"))
    );
    let runner = fake.get(PODS, "pi-cell-0-1").unwrap();
    let spec = &runner["spec"];
    assert_eq!(spec["restartPolicy"], "Never");
    assert_eq!(spec["activeDeadlineSeconds"], 90);
    let words: Vec<&str> = spec["containers"][0]["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(
        words.join(" "),
        "oxidask experiment cell pi --scheduler tcp://pi-scheduler.ns.svc.cluster.local:8786 --size 1000 \
         --nodes 3 --cores 2 --repeat 0 --time-limit 60 --output /dev/termination-log"
    );
    assert_eq!(spec["containers"][0]["image"], "dask");
}

#[tokio::test(start_paused = true)]
async fn a_users_program_runs_as_it_is_and_its_run_time_counts() {
    let fake = fake();
    let _life = Life::begin(&fake);
    let runner = json!({"spec": {"containers": [
        {"name": "mine", "image": "my/program", "args": ["python", "p.py"], "env": [{"name": "X", "value": "1"}]},
    ]}});
    let change = json!({"workload": {"python": {}}, "nodes": [1], "runner": runner, "report": {"enabled": false}});
    fake.create(EXPERIMENTS, experiment(&change));
    fake.until("the runner is made", |fake| {
        fake.get(PODS, "pi-cell-0-1").is_some()
    })
    .await;
    let pod = fake.get(PODS, "pi-cell-0-1").unwrap();
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["python", "p.py"]));
    assert_eq!(container["command"], Value::Null);
    let env: Vec<&str> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        env,
        [
            "X",
            "DASK_SCHEDULER_ADDRESS",
            "OXIDASK_SIZE",
            "OXIDASK_NODES",
            "OXIDASK_CORES",
            "OXIDASK_REPEAT",
            "OXIDASK_TIME_LIMIT"
        ]
    );
    fake.patch(PODS, "pi-cell-0-1", &ended(0, ""));
    until_phase(&fake, "Complete").await;
    assert_eq!(status(&fake)["rows"][0]["seconds"], 4.0);
    assert!(fake.get(CONFIG_MAPS, "pi-results").is_some());
    assert_eq!(fake.get(PODS, "pi-report"), None);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_finds_no_node_fails_with_the_reason_and_the_rest_is_measured() {
    let fake = fake();
    fake.with(|state| state.unschedulable.push("pi-n2-c1".to_owned()));
    let (life, _kubelet) = (Life::begin(&fake), Kubelet::begin(&fake));
    fake.create(EXPERIMENTS, experiment(&json!({"nodes": [1, 2, 3]})));
    fake.until("the status says what is waited for", |fake| {
        let message = status(fake)["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        message.contains("cell 2 of 3 (2 × 1") && message.contains("Unschedulable")
    })
    .await;
    until_phase(&fake, "Complete").await;
    let status = status(&fake);
    assert_eq!((&status["failed"], &status["done"]), (&json!(1), &json!(3)));
    let row = &status["rows"][1];
    assert_eq!(
        (&row["reason"], &row["seconds"]),
        (&json!("Unschedulable"), &Value::Null)
    );
    assert!(
        row["error"].as_str().unwrap().contains("0/3 nodes"),
        "{row}"
    );
    assert!(
        status["table"][1]["reason"]
            .as_str()
            .unwrap()
            .starts_with("Unschedulable: ")
    );
    let metrics = life.metrics.text();
    for line in [
        r#"dask_operator_experiment_cells{experiment="pi",namespace="ns",state="failed"} 1"#,
        r#"dask_operator_experiment_speedup{cores="1",experiment="pi",namespace="ns",nodes="3",size="1000"} 3"#,
        r#"dask_operator_experiment_cells_ended_total{reason="Unschedulable"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    fake.delete(EXPERIMENTS, "pi");
    fake.until("the metrics of the experiment are gone", |_| {
        !life.metrics.text().contains("experiment=\"pi\"")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_runner_is_quoted_and_its_pod_stays_for_its_log() {
    let fake = fake();
    let _life = Life::begin(&fake);
    fake.create(EXPERIMENTS, experiment(&json!({"nodes": [1]})));
    fake.until("the runner is made", |fake| {
        fake.get(PODS, "pi-cell-0-1").is_some()
    })
    .await;
    fake.patch(PODS, "pi-cell-0-1", &ended(1, "MemoryError"));
    until_phase(&fake, "Failed").await;
    let status = status(&fake);
    assert_eq!(
        status["rows"][0]["error"],
        "the runner exited with code 1: MemoryError"
    );
    assert!(status["message"].as_str().unwrap().contains("MemoryError"));
    fake.until("the cluster is gone", |fake| {
        names(fake, CLUSTERS).is_empty()
    })
    .await;
    assert!(fake.get(PODS, "pi-cell-0-1").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_refuses_ends_the_cell_or_the_experiment_with_its_words() {
    for (kind, row, message) in [
        (
            PODS,
            json!("Invalid"),
            "no cell has a time; the last: Invalid: failed to create Pod ns/pi-cell-0-1: it is invalid",
        ),
        (
            GROUPS,
            json!("Invalid"),
            "no cell has a time; the last: Invalid: failed to create DaskWorkerGroup ns/pi-n1-c1: it is invalid",
        ),
        (
            CLUSTERS,
            Value::Null,
            "Invalid: failed to create DaskCluster ns/pi: it is invalid",
        ),
    ] {
        let fake = fake();
        fake.create(GROUPS, json!({"metadata": {"name": "pi-default", "namespace": "ns"}, "spec": {"cluster": "pi", "worker": {"replicas": 0}}}));
        fake.with(|state| state.refused.push(kind.to_owned()));
        let _life = Life::begin(&fake);
        fake.create(EXPERIMENTS, experiment(&json!({"nodes": [1]})));
        until_phase(&fake, "Failed").await;
        let status = status(&fake);
        assert_eq!(status["rows"][0]["reason"], row);
        assert_eq!(status["message"], message);
    }
}

#[tokio::test(start_paused = true)]
async fn results_that_cannot_be_stored_do_not_take_the_measurements_away() {
    let fake = fake();
    fake.with(|state| state.refused.push(CONFIG_MAPS.to_owned()));
    let (_life, _kubelet) = (Life::begin(&fake), Kubelet::begin(&fake));
    fake.create(EXPERIMENTS, experiment(&json!({})));
    until_phase(&fake, "Complete").await;
    let status = status(&fake);
    assert_eq!(status["progress"], "2/2");
    let conditions = status["conditions"].as_array().unwrap();
    let reported = conditions.iter().find(|c| c["type"] == "Reported").unwrap();
    assert_eq!(
        (&reported["status"], &reported["reason"]),
        (&json!("False"), &json!("Invalid"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_for_a_while_is_told_in_the_status() {
    let fake = fake();
    let _life = Life::begin(&fake);
    fake.with(|state| state.broken.push(GROUPS.to_owned()));
    fake.create(EXPERIMENTS, experiment(&json!({})));
    fake.until("the status tells", |fake| {
        let message = status(fake)["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        message.contains("failed to create DaskWorkerGroup ns/pi-n1-c1")
    })
    .await;
    fake.with(|state| state.broken.clear());
    fake.until("the runner is made", |fake| {
        fake.get(PODS, "pi-cell-0-1").is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_experiment_that_cannot_be_run_says_why_and_makes_nothing() {
    let fake = fake();
    let _life = Life::begin(&fake);
    fake.create(EXPERIMENTS, experiment(&json!({"nodes": [1, 1]})));
    until_phase(&fake, "Failed").await;
    assert_eq!(
        status(&fake)["message"],
        "Invalid: spec.nodes has a number twice"
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(names(&fake, CLUSTERS), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn suspended_it_has_no_pods_and_goes_on_with_the_cell_it_was_at() {
    let fake = fake();
    let _life = Life::begin(&fake);
    fake.create(EXPERIMENTS, experiment(&json!({})));
    fake.until("the first runner is made", |fake| {
        fake.get(PODS, "pi-cell-0-1").is_some()
    })
    .await;
    fake.patch(PODS, "pi-cell-0-1", &ended(0, "{\"seconds\": 3}"));
    fake.until("the second runner is made", |fake| {
        fake.get(PODS, "pi-cell-1-1").is_some()
    })
    .await;
    fake.patch(EXPERIMENTS, "pi", &json!({"spec": {"suspend": true}}));
    until_phase(&fake, "Suspended").await;
    fake.until("no pod is left", |fake| names(fake, PODS).is_empty())
        .await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(status(&fake)["progress"], "1/2");
    fake.patch(EXPERIMENTS, "pi", &json!({"spec": {"suspend": false}}));
    fake.until("the second runner is made again", |fake| {
        fake.get(PODS, "pi-cell-1-1").is_some()
    })
    .await;
    fake.patch(PODS, "pi-cell-1-1", &ended(0, "{\"seconds\": 2}"));
    fake.until("all is measured", |fake| status(fake)["progress"] == "2/2")
        .await;
    assert_eq!(status(&fake)["table"][1]["speedup"], 1.5);
}

#[tokio::test(start_paused = true)]
async fn deleted_at_any_moment_it_leaves_nothing() {
    for wait in (0..60).map(|tenths| Duration::from_millis(100 * tenths)) {
        let fake = fake();
        let (_life, _kubelet) = (Life::begin(&fake), Kubelet::begin(&fake));
        fake.create(EXPERIMENTS, experiment(&json!({})));
        tokio::time::sleep(wait).await;
        fake.delete(EXPERIMENTS, "pi");
        tokio::time::sleep(Duration::from_secs(30)).await;
        // What was made by a request under way belongs to nobody by then: here
        // the garbage collector of the fake sees deletions only.
        let left = fake.with(|state| {
            let uids: Vec<Value> = state
                .objects
                .values()
                .map(|object| object["metadata"]["uid"].clone())
                .collect();
            let of = |object: &Value| object["metadata"]["ownerReferences"][0]["uid"].clone();
            let alive = state.objects.iter().filter(|(path, object)| {
                path.0 != EVENTS && (of(object).is_null() || uids.contains(&of(object)))
            });
            alive.map(|(path, _)| path.2.clone()).collect::<Vec<_>>()
        });
        assert_eq!(left, Vec::<String>::new(), "deleted after {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_resource_type_all_else_works_and_it_is_noticed_later() {
    let fake = fake();
    fake.with(|state| state.without_experiments = true);
    let (_life, _kubelet) = (Life::begin(&fake), Kubelet::begin(&fake));
    fake.create(CLUSTERS, fake::cluster("simple", 1));
    fake.until("the cluster's worker is there", |fake| {
        fake.workers("simple-default").len() == 1
    })
    .await;
    // The fake has one scheduler for all clusters.
    fake.delete(CLUSTERS, "simple");
    fake.with(|state| state.without_experiments = false);
    fake.create(EXPERIMENTS, experiment(&json!({})));
    tokio::time::sleep(Duration::from_secs(310)).await;
    until_phase(&fake, "Complete").await;
}

#[tokio::test(start_paused = true)]
async fn a_finished_experiment_asks_nothing_of_the_api_server() {
    let fake = fake();
    let (_life, _kubelet) = (Life::begin(&fake), Kubelet::begin(&fake));
    fake.create(EXPERIMENTS, experiment(&json!({})));
    until_phase(&fake, "Complete").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = fake.with(|state| state.calls.len());
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(fake.with(|state| state.calls.len()), before);
}

/// What is there at the end, without what differs between two runs.
fn end(fake: &Fake) -> Value {
    let mut status = status(fake);
    for name in ["startTime", "progressTime", "endTime", "conditions"] {
        status.as_object_mut().unwrap().remove(name);
    }
    let results = fake.get(CONFIG_MAPS, "pi-results").unwrap()["data"].clone();
    let names = [CLUSTERS, GROUPS, DEPLOYMENTS, PODS].map(|kind| names(fake, kind));
    json!([status, results, names])
}

/// Plays an experiment with one fault; each cell and the report run once.
async fn play(fault: Option<(usize, Fault)>) -> Played<Value> {
    let fake = fake();
    fake.with(|state| state.fault = fault);
    let kubelet = Kubelet::begin(&fake);
    let script = async {
        fake.create(EXPERIMENTS, experiment(&json!({})));
        until_phase(&fake, "Complete").await;
        fake.until("the cluster is gone", |fake| {
            names(fake, DEPLOYMENTS).is_empty()
        })
        .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    };
    let played = faults::live(&fake, script, || end(&fake)).await;
    let runs = kubelet.runs();
    assert!(runs.values().all(|runs| *runs == 1), "{fault:?}: {runs:?}");
    assert_eq!(runs.len(), 3, "{fault:?}: {runs:?}");
    played
}

async fn every_request(fault: Fault) {
    faults::at_every_request(fault, 40, play).await;
}

#[tokio::test(start_paused = true)]
async fn killed_before_any_request_the_next_process_goes_on_and_no_cell_runs_twice() {
    every_request(Fault::DieBefore).await;
}

#[tokio::test(start_paused = true)]
async fn killed_after_any_request_the_next_process_goes_on_and_no_cell_runs_twice() {
    every_request(Fault::DieAfter).await;
}

#[tokio::test(start_paused = true)]
async fn any_request_of_an_experiment_may_fail_once() {
    for code in [409, 429, 500] {
        every_request(Fault::Status(code)).await;
    }
}
