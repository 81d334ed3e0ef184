//! The operator killed at every request of a scenario, and every request
//! refused once: the end is the same, nothing is lost, nothing leaks.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

mod fake;
mod faults;
mod life;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use fake::{AUTOSCALERS, CLUSTERS, EVENTS, Fake, Fault, GROUPS, JOBS, PODS, cluster, cluster_spec};
use faults::Played;

/// What a user does, waiting after each step for what it asks for.
async fn user(fake: Fake) {
    fake.create(CLUSTERS, cluster("simple", 3));
    workers(&fake, 3).await;
    scale(&fake, GROUPS, "simple-default", 1);
    workers(&fake, 1).await;
    scale(&fake, CLUSTERS, "simple", 2);
    workers(&fake, 2).await;
    fake.with(|state| state.scheduler.desired = 4);
    fake.create(
        AUTOSCALERS,
        json!({"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskAutoscaler", "metadata": {"name": "simple", "namespace": "ns"},
            "spec": {"cluster": "simple", "minimum": 1, "maximum": 3}}),
    );
    workers(&fake, 3).await;
    fake.delete(AUTOSCALERS, "simple");
    fake.create(
        JOBS,
        json!({"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskJob", "metadata": {"name": "pi", "namespace": "ns"},
            "spec": {"job": {"spec": {"containers": [{"name": "job"}]}}, "cluster": {"spec": cluster_spec(1)}, "backoffLimit": 1}}),
    );
    let mut first = Value::Null;
    fake.until("the runner exists", |fake| {
        first = fake.get(PODS, "pi-runner").unwrap_or_default();
        !first.is_null()
    })
    .await;
    fake.patch(PODS, "pi-runner", &json!({"status": {"phase": "Failed"}}));
    fake.until("the runner is replaced", |fake| {
        fake.get(PODS, "pi-runner")
            .is_some_and(|pod| pod["metadata"]["uid"] != first["metadata"]["uid"])
    })
    .await;
    for (phase, word) in [("Running", "Running"), ("Succeeded", "Successful")] {
        fake.patch(PODS, "pi-runner", &json!({"status": {"phase": phase}}));
        fake.until(word, |fake| {
            fake.get(JOBS, "pi").unwrap()["status"]["jobStatus"] == word
        })
        .await;
    }
    fake.until("the job's cluster is gone", |fake| {
        fake.get(CLUSTERS, "pi").is_none()
    })
    .await;
    // Long enough for everything that was put off.
    tokio::time::sleep(std::time::Duration::from_secs(40)).await;
}

fn scale(fake: &Fake, kind: &str, name: &str, replicas: i64) {
    fake.patch(
        kind,
        name,
        &json!({"spec": {"worker": {"replicas": replicas}}}),
    );
}

async fn workers(fake: &Fake, count: usize) {
    fake.until(&format!("{count} ready workers"), |fake| {
        let cluster = fake.get(CLUSTERS, "simple").unwrap();
        fake.workers("simple-default").len() == count && cluster["status"]["readyReplicas"] == count
    })
    .await;
}

/// The objects at the end, without what differs between any two runs.
fn end(fake: &Fake) -> BTreeMap<String, Value> {
    fake.with(|state| {
        assert_eq!(
            state.lost,
            Vec::<String>::new(),
            "workers ended with their results"
        );
        let mut workers = 0;
        let objects = state
            .objects
            .iter()
            .filter(|(path, _)| path.0 != EVENTS && path.0 != PODS);
        objects
            .map(|((kind, _, name), object)| {
                let mut spec = object["spec"].clone();
                let mut name = name.clone();
                if let Some((group, _)) = name.clone().split_once("-worker-") {
                    workers += 1;
                    name = format!("{group}-worker-{workers}");
                    spec = spec["template"]["spec"]["containers"][0]["image"].clone();
                }
                let status = object["status"]["jobStatus"].clone();
                let conditions = object["status"]["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten();
                let conditions: Vec<String> = conditions
                    .map(|c| format!("{} {} {}", c["type"], c["status"], c["reason"]))
                    .collect();
                (format!("{kind} {name}"), json!([spec, status, conditions]))
            })
            .collect()
    })
}

/// Plays the scenario with one fault.
async fn play(fault: Option<(usize, Fault)>) -> Played<BTreeMap<String, Value>> {
    let fake = Fake::default();
    fake.with(|state| {
        state.fault = fault;
        state.scheduler.moving = 1;
    });
    faults::live(&fake, user(fake.clone()), || end(&fake)).await
}

async fn every_request(fault: Fault) {
    faults::at_every_request(fault, 50, play).await;
}

#[tokio::test(start_paused = true)]
async fn killed_before_any_request_the_next_process_finishes() {
    every_request(Fault::DieBefore).await;
}

#[tokio::test(start_paused = true)]
async fn killed_after_any_request_the_next_process_finishes() {
    every_request(Fault::DieAfter).await;
}

#[tokio::test(start_paused = true)]
async fn any_request_may_go_without_an_answer() {
    every_request(Fault::Hang).await;
}

#[tokio::test(start_paused = true)]
async fn any_request_may_fail_once() {
    for code in [409, 429, 500] {
        every_request(Fault::Status(code)).await;
    }
}
