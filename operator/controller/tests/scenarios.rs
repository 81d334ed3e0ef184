//! Whole lives of resources, on an API server in memory.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

mod fake;
mod life;

use std::time::Duration;

use oxidask_operator::context::Settings;
use serde_json::{Value, json};

use fake::{
    AUTOSCALERS, CLUSTERS, DEPLOYMENTS, EVENTS, Fake, GROUPS, JOBS, PODS, SERVICES, cluster,
    cluster_spec,
};
use life::Life;

fn phase(fake: &Fake, name: &str) -> String {
    let cluster = fake.get(CLUSTERS, name).unwrap_or_default();
    cluster["status"]["phase"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn condition(object: &Value, type_: &str) -> (String, String) {
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions
        .into_iter()
        .find(|c| c["type"] == type_)
        .unwrap_or_default();
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

fn is_ready(fake: &Fake, kind: &str, name: &str) -> bool {
    fake.get(kind, name)
        .is_some_and(|object| condition(&object, "Ready").0 == "True")
}

async fn ready_cluster(fake: &Fake, replicas: i64) -> Life {
    let life = Life::begin(fake);
    fake.create(CLUSTERS, cluster("simple", replicas));
    fake.until("the cluster is ready", |fake| {
        is_ready(fake, CLUSTERS, "simple")
    })
    .await;
    life
}

fn events(fake: &Fake) -> Vec<(String, String)> {
    fake.with(|state| {
        let events = state.objects.iter().filter(|(path, _)| path.0 == EVENTS);
        let parts = |event: &Value| {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            (text("reason"), text("note"))
        };
        events.map(|(_, event)| parts(event)).collect()
    })
}

#[tokio::test(start_paused = true)]
async fn a_cluster_gets_its_scheduler_service_and_workers() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 3).await;
    assert_eq!(phase(&fake, "simple"), "Running");
    assert!(fake.get(DEPLOYMENTS, "simple-scheduler").is_some());
    assert!(fake.get(SERVICES, "simple-scheduler").is_some());
    let group = fake.get(GROUPS, "simple-default").unwrap();
    assert_eq!(
        group["metadata"]["ownerReferences"][0]["kind"],
        "DaskCluster"
    );
    assert_eq!(fake.workers("simple-default").len(), 3);
    let status = &fake.get(CLUSTERS, "simple").unwrap()["status"];
    assert_eq!(
        (
            &status["replicas"],
            &status["readyReplicas"],
            &status["observedGeneration"]
        ),
        (&json!(3), &json!(3), &json!(1))
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_the_api_server_at_rest() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 5).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = fake.with(|state| (state.version(), state.calls.len()));
    tokio::time::sleep(Duration::from_secs(240)).await;
    assert_eq!(
        fake.with(|state| (state.version(), state.calls.len())),
        before
    );
}

#[tokio::test(start_paused = true)]
async fn workers_that_the_scheduler_knows_are_counted_until_it_falls_silent() {
    let fake = Fake::default();
    let life = ready_cluster(&fake, 3).await;
    let connected = |life: &Life| {
        let text = life.metrics.text();
        let line = text.lines().find(|line| line.contains("\"connected\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
    };
    fake.until("three are counted", |_| connected(&life) == Some(3))
        .await;
    fake.with(|state| state.scheduler.silent = true);
    fake.until("no number", |_| connected(&life).is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_takes_few_requests_besides_its_children() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 10).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let calls = fake.with(|state| state.calls.clone());
    let writes: Vec<&String> = calls
        .iter()
        .filter(|call| !call.starts_with("GET"))
        .collect();
    // Scheduler, Service, group and ten workers; the rest are statuses.
    assert!(
        writes.len() <= 13 + 6,
        "{} writes: {writes:#?}",
        writes.len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_restarted_operator_changes_nothing() {
    let fake = Fake::default();
    ready_cluster(&fake, 3).await.stop().await;
    let before = fake.with(|state| state.version());
    let _life = Life::begin(&fake);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fake.with(|state| state.version()), before);
}

#[tokio::test(start_paused = true)]
async fn the_phase_is_running_before_any_pod_is_ready() {
    let fake = Fake::default();
    fake.with(|state| state.no_pods = true);
    let _life = Life::begin(&fake);
    fake.create(CLUSTERS, cluster("simple", 1));
    fake.until("the phase is Running", |fake| {
        phase(fake, "simple") == "Running"
    })
    .await;
    assert!(!is_ready(&fake, CLUSTERS, "simple"));
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_is_waited_for() {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    let mut manifest = cluster("simple", 1);
    manifest["spec"]["scheduler"]["service"]["type"] = json!("LoadBalancer");
    fake.create(CLUSTERS, manifest);
    fake.until("the phase is Pending", |fake| {
        phase(fake, "simple") == "Pending"
    })
    .await;
    fake.patch(
        SERVICES,
        "simple-scheduler",
        &json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
    );
    fake.until("the phase is Running", |fake| {
        phase(fake, "simple") == "Running"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_name_is_said_and_nothing_is_made() {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    let name = "a".repeat(54);
    fake.create(CLUSTERS, cluster(&name, 1));
    fake.until("the phase is Error", |fake| phase(fake, &name) == "Error")
        .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let kinds = fake.with(|state| {
        state
            .objects
            .keys()
            .map(|path| path.0.clone())
            .collect::<Vec<_>>()
    });
    assert!(!kinds.contains(&DEPLOYMENTS.to_owned()), "{kinds:?}");
    let cluster = fake.get(CLUSTERS, &name).unwrap();
    assert_eq!(condition(&cluster, "Ready").1, "InvalidName");
}

#[tokio::test(start_paused = true)]
async fn deleted_children_come_back() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 2).await;
    fake.delete(DEPLOYMENTS, "simple-scheduler");
    fake.delete(SERVICES, "simple-scheduler");
    let worker = fake.workers("simple-default")[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    fake.delete(DEPLOYMENTS, &worker);
    fake.until("all are back", |fake| {
        fake.get(DEPLOYMENTS, "simple-scheduler").is_some()
            && fake.get(SERVICES, "simple-scheduler").is_some()
            && fake.workers("simple-default").len() == 2
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn scaling_down_retires_before_it_deletes_and_takes_the_cheapest() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 4).await;
    let names: Vec<String> = fake
        .workers("simple-default")
        .iter()
        .map(|worker| worker["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    fake.with(|state| {
        state.scheduler.bytes = names.iter().cloned().zip([500, 10, 900, 20]).collect();
        state.scheduler.moving = 3;
    });
    fake.patch(
        GROUPS,
        "simple-default",
        &json!({"spec": {"worker": {"replicas": 2}}}),
    );
    fake.until("two are draining", |fake| {
        fake.get(GROUPS, "simple-default").unwrap()["status"]["drainingReplicas"] == 2
    })
    .await;
    assert_eq!(
        fake.workers("simple-default").len(),
        4,
        "they stay while their results move"
    );
    fake.until("two are left", |fake| {
        fake.workers("simple-default").len() == 2
    })
    .await;
    let left: Vec<Value> = fake
        .workers("simple-default")
        .into_iter()
        .map(|w| w["metadata"]["name"].clone())
        .collect();
    assert_eq!(left, [json!(names[0]), json!(names[2])]);
    assert!(fake.with(|state| state.lost.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn another_group_is_not_touched() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 2).await;
    fake.create(GROUPS, json!({
        "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskWorkerGroup",
        "metadata": {"name": "gpu", "namespace": "ns"},
        "spec": {"cluster": "simple", "worker": {"replicas": 3, "spec": {"containers": [{"name": "w"}]}}},
    }));
    fake.until("the group is ready", |fake| is_ready(fake, GROUPS, "gpu"))
        .await;
    let group = fake.get(GROUPS, "gpu").unwrap();
    assert!(
        group["metadata"]["labels"]["dask.org/cluster-name"].is_null(),
        "no label is added to it"
    );
    assert_eq!(group["metadata"]["ownerReferences"][0]["name"], "simple");
    fake.patch(GROUPS, "gpu", &json!({"spec": {"worker": {"replicas": 0}}}));
    fake.until("it is empty", |fake| fake.workers("gpu").is_empty())
        .await;
    assert_eq!(fake.workers("simple-default").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_scheduler_holds_a_scale_down_up_for_the_drain_timeout_at_most() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 2).await;
    fake.with(|state| state.scheduler.silent = true);
    let began = tokio::time::Instant::now();
    fake.patch(
        GROUPS,
        "simple-default",
        &json!({"spec": {"worker": {"replicas": 1, "drainTimeoutSeconds": 20}}}),
    );
    fake.until("one is left", |fake| {
        fake.workers("simple-default").len() == 1
    })
    .await;
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(18)..Duration::from_secs(25)).contains(&took),
        "{took:?}"
    );
    assert!(
        events(&fake)
            .iter()
            .any(|(reason, _)| reason == "DrainTimeout")
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_workers_finish_their_tasks_and_do_not_wait_for_a_place_for_results() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 2).await;
    let busy = fake.workers("simple-default")[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    fake.with(|state| {
        state.scheduler.moving = 1000;
        state.scheduler.processing.insert(busy, 1);
    });
    fake.patch(
        GROUPS,
        "simple-default",
        &json!({"spec": {"worker": {"replicas": 0}}}),
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        fake.workers("simple-default").len(),
        2,
        "a task is executing"
    );
    fake.with(|state| state.scheduler.processing.clear());
    let began = tokio::time::Instant::now();
    fake.until("no workers", |fake| {
        fake.workers("simple-default").is_empty()
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn pods_that_never_became_ready_go_without_asking() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 2).await;
    fake.with(|state| {
        state.unready_pods = true;
        state.scheduler.silent = true;
    });
    fake.patch(
        GROUPS,
        "simple-default",
        &json!({"spec": {"worker": {"replicas": 4}}}),
    );
    fake.until("four exist", |fake| {
        fake.workers("simple-default").len() == 4
    })
    .await;
    let began = tokio::time::Instant::now();
    fake.patch(
        GROUPS,
        "simple-default",
        &json!({"spec": {"worker": {"replicas": 2}}}),
    );
    fake.until("two are left", |fake| {
        fake.workers("simple-default").len() == 2
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(
        fake.workers("simple-default")
            .iter()
            .all(|worker| worker["status"]["readyReplicas"] == 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_level_scale_reaches_the_group_and_a_reapply_does_not() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 2).await;
    fake.patch(
        CLUSTERS,
        "simple",
        &json!({"spec": {"worker": {"replicas": 4}}}),
    );
    fake.until("four workers", |fake| {
        fake.workers("simple-default").len() == 4
    })
    .await;
    fake.patch(
        GROUPS,
        "simple-default",
        &json!({"spec": {"worker": {"replicas": 1}}}),
    );
    fake.until("one worker", |fake| {
        fake.workers("simple-default").len() == 1
    })
    .await;
    fake.patch(
        CLUSTERS,
        "simple",
        &json!({"metadata": {"labels": {"touched": "yes"}}, "spec": {"worker": {"replicas": 4}}}),
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(fake.workers("simple-default").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn batches_of_workers_come_with_pauses() {
    let fake = Fake::default();
    let settings = Settings {
        batch_size: Some(2),
        batch_delay: Duration::from_secs(5),
        ..Settings::default()
    };
    let _life = Life::with(&fake, settings);
    fake.create(CLUSTERS, cluster("simple", 5));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fake.workers("simple-default").len(), 2);
    let began = tokio::time::Instant::now();
    fake.until("all five", |fake| fake.workers("simple-default").len() == 5)
        .await;
    assert!(
        began.elapsed() > Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_image_is_rolled_out_to_workers_and_not_to_the_scheduler() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 3).await;
    let mut spec = cluster_spec(3);
    spec["worker"]["spec"]["containers"][0]["image"] = json!("dask:2");
    spec["scheduler"]["spec"]["containers"][0]["image"] = json!("dask:2");
    fake.patch(CLUSTERS, "simple", &json!({"spec": spec}));
    let image = |deployment: &Value| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    fake.until("all workers are of the new image", |fake| {
        let workers = fake.workers("simple-default");
        workers.len() == 3 && workers.iter().all(|worker| image(worker) == "dask:2")
    })
    .await;
    assert!(fake.with(|state| state.lost.is_empty()));
    let scheduler = fake.get(DEPLOYMENTS, "simple-scheduler").unwrap();
    assert_eq!(
        image(&scheduler),
        "dask",
        "a scheduler is not replaced unasked"
    );
    fake.until("that is said", |fake| {
        condition(&fake.get(CLUSTERS, "simple").unwrap(), "SchedulerReady").1 == "SpecChanged"
    })
    .await;
    fake.patch(
        CLUSTERS,
        "simple",
        &json!({"metadata": {"annotations": {"oxidask.io/restart-scheduler": "1"}}}),
    );
    fake.until("it is replaced when asked for", |fake| {
        image(&fake.get(DEPLOYMENTS, "simple-scheduler").unwrap()) == "dask:2"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_roll_out_keeps_results_until_a_new_worker_is_connected() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 2).await;
    let old: std::collections::BTreeSet<String> = fake
        .workers("simple-default")
        .iter()
        .map(|worker| worker["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    fake.with(|state| state.scheduler.connected = Some(old.clone()));
    let mut spec = cluster_spec(2);
    spec["worker"]["spec"]["containers"][0]["image"] = json!("dask:2");
    fake.patch(CLUSTERS, "simple", &json!({"spec": spec}));
    let left = |fake: &Fake| {
        let workers = fake.workers("simple-default");
        let names = workers.iter().map(|worker| &worker["metadata"]["name"]);
        names
            .filter(|name| old.contains(name.as_str().unwrap()))
            .count()
    };
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(left(&fake) > 0, "nobody has the results any more");
    fake.with(|state| state.scheduler.connected = None);
    fake.until("all old workers went", |fake| left(fake) == 0)
        .await;
    let reasons = events(&fake);
    assert!(
        reasons.iter().all(|(reason, _)| reason != "ResultsDropped"),
        "{reasons:?}"
    );
    assert!(fake.with(|state| state.lost.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_suspended_cluster_has_no_pods_and_comes_back() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 2).await;
    fake.patch(CLUSTERS, "simple", &json!({"spec": {"suspend": true}}));
    fake.until("no pods", |fake| {
        fake.with(|state| !state.objects.keys().any(|path| path.0 == PODS))
    })
    .await;
    fake.until("that is said", |fake| {
        condition(&fake.get(CLUSTERS, "simple").unwrap(), "Suspended").0 == "True"
    })
    .await;
    assert!(fake.get(SERVICES, "simple-scheduler").is_some());
    fake.patch(CLUSTERS, "simple", &json!({"spec": {"suspend": false}}));
    fake.until("the cluster is ready again", |fake| {
        is_ready(fake, CLUSTERS, "simple") && fake.workers("simple-default").len() == 2
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_cluster_is_deleted_or_scaled_to_zero_as_asked() {
    for (action, name) in [(None, "deleted"), (Some("scaleToZero"), "empty")] {
        let fake = Fake::default();
        let _life = Life::begin(&fake);
        let mut manifest = cluster(name, 2);
        manifest["spec"]["idleTimeout"] = json!(60);
        if let Some(action) = action {
            manifest["spec"]["idleAction"] = json!(action);
        }
        fake.create(CLUSTERS, manifest);
        fake.until("it is ready", |fake| is_ready(fake, CLUSTERS, name))
            .await;
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert!(fake.get(CLUSTERS, name).is_some(), "a busy cluster stays");
        fake.with(|state| state.scheduler.idle_since = Some(1000.0));
        if action.is_some() {
            fake.until("no workers", |fake| {
                fake.workers("empty-default").is_empty()
            })
            .await;
            assert!(fake.get(DEPLOYMENTS, "empty-scheduler").is_some());
        } else {
            fake.until("it is gone", |fake| fake.get(CLUSTERS, name).is_none())
                .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_follows_the_demand_within_its_limits() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 0).await;
    fake.create(
        AUTOSCALERS,
        json!({
            "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskAutoscaler",
            "metadata": {"name": "simple", "namespace": "ns"},
            "spec": {"cluster": "simple", "minimum": 0, "maximum": 4},
        }),
    );
    fake.with(|state| state.scheduler.desired = 9);
    fake.until("the maximum", |fake| {
        fake.workers("simple-default").len() == 4
    })
    .await;
    let autoscaler = fake.get(AUTOSCALERS, "simple").unwrap();
    assert_eq!(
        autoscaler["metadata"]["ownerReferences"][0]["name"],
        "simple"
    );
    fake.with(|state| state.scheduler.desired = 0);
    let began = tokio::time::Instant::now();
    let mut seen = Vec::new();
    fake.until("none", |fake| {
        let replicas = fake.get(GROUPS, "simple-default").unwrap()["spec"]["worker"]["replicas"]
            .as_i64()
            .unwrap();
        if seen.last() != Some(&replicas) {
            seen.push(replicas);
        }
        replicas == 0
    })
    .await;
    assert_eq!(seen, [4, 3, 2, 1, 0]);
    assert!(
        began.elapsed() >= Duration::from_secs(45),
        "a cooldown of 15 s lies between: {:?}",
        began.elapsed()
    );
    assert!(fake.with(|state| state.lost.is_empty()));
}

fn job(restart_policy: &str) -> Value {
    json!({
        "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskJob",
        "metadata": {"name": "pi", "namespace": "ns"},
        "spec": {
            "job": {"spec": {"restartPolicy": restart_policy, "containers": [{"name": "job", "image": "dask"}]}},
            "cluster": {"spec": cluster_spec(1)},
        },
    })
}

fn job_status(fake: &Fake) -> String {
    let job = fake.get(JOBS, "pi").unwrap_or_default();
    job["status"]["jobStatus"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn runner_becomes(fake: &Fake, phase: &str) {
    fake.patch(PODS, "pi-runner", &json!({"status": {"phase": phase}}));
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_to_its_end_and_its_status_has_five_keys() {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    fake.create(JOBS, job("Never"));
    fake.until("the cluster is visible", |fake| {
        fake.get(CLUSTERS, "pi").is_some()
    })
    .await;
    let status = fake.get(JOBS, "pi").unwrap()["status"].clone();
    assert_eq!(
        (&status["clusterName"], &status["jobRunnerPodName"]),
        (&json!("pi"), &json!("pi-runner"))
    );
    fake.until("the runner exists", |fake| {
        fake.get(PODS, "pi-runner").is_some()
    })
    .await;
    runner_becomes(&fake, "Running");
    fake.until("it is running", |fake| job_status(fake) == "Running")
        .await;
    runner_becomes(&fake, "Succeeded");
    fake.until("the cluster is gone", |fake| {
        fake.get(CLUSTERS, "pi").is_none()
    })
    .await;
    let status = fake.get(JOBS, "pi").unwrap()["status"].clone();
    let keys: Vec<&String> = status.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "clusterName",
            "endTime",
            "jobRunnerPodName",
            "jobStatus",
            "startTime"
        ]
    );
    assert_eq!(status["jobStatus"], "Successful");
    assert!(
        fake.get(PODS, "pi-runner").is_some(),
        "the runner stays to be looked at"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_runner_is_replaced_as_often_as_allowed() {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    let mut manifest = job("Never");
    manifest["spec"]["backoffLimit"] = json!(2);
    fake.create(JOBS, manifest);
    let mut uids = std::collections::BTreeSet::new();
    for _ in 0..3 {
        fake.until("a new runner", |fake| {
            fake.get(PODS, "pi-runner")
                .is_some_and(|pod| uids.insert(pod["metadata"]["uid"].to_string()))
        })
        .await;
        assert_ne!(job_status(&fake), "Failed");
        runner_becomes(&fake, "Failed");
    }
    fake.until("the job failed", |fake| job_status(fake) == "Failed")
        .await;
    fake.until("its cluster is gone", |fake| {
        fake.get(CLUSTERS, "pi").is_none()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_runner_ends_the_job() {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    fake.create(JOBS, job("OnFailure"));
    fake.until("the job runs", |fake| {
        if fake.get(PODS, "pi-runner").is_some() {
            runner_becomes(fake, "Running");
        }
        job_status(fake) == "Running"
    })
    .await;
    fake.delete(PODS, "pi-runner");
    fake.until("the job failed", |fake| job_status(fake) == "Failed")
        .await;
    fake.until("its cluster is gone", |fake| {
        fake.get(CLUSTERS, "pi").is_none()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_at_its_deadline_and_goes_after_its_time_to_live() {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    let mut manifest = job("Never");
    manifest["spec"]["activeDeadlineSeconds"] = json!(30);
    manifest["spec"]["ttlSecondsAfterFinished"] = json!(60);
    fake.create(JOBS, manifest);
    fake.until("the job failed", |fake| job_status(fake) == "Failed")
        .await;
    fake.until("cluster and runner are gone", |fake| {
        fake.get(CLUSTERS, "pi").is_none() && fake.get(PODS, "pi-runner").is_none()
    })
    .await;
    assert!(fake.get(JOBS, "pi").is_some());
    fake.until("the job is gone", |fake| fake.get(JOBS, "pi").is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_gives_its_pods_up_and_starts_anew() {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    fake.create(JOBS, job("Never"));
    fake.until("the runner exists", |fake| {
        fake.get(PODS, "pi-runner").is_some()
    })
    .await;
    let first = fake.get(PODS, "pi-runner").unwrap()["metadata"]["uid"].clone();
    fake.patch(JOBS, "pi", &json!({"spec": {"suspend": true}}));
    fake.until("nothing runs", |fake| {
        fake.get(PODS, "pi-runner").is_none() && fake.get(CLUSTERS, "pi").is_none()
    })
    .await;
    fake.patch(JOBS, "pi", &json!({"spec": {"suspend": null}}));
    fake.until("it starts anew", |fake| {
        fake.get(PODS, "pi-runner")
            .is_some_and(|pod| pod["metadata"]["uid"] != first)
            && fake.get(CLUSTERS, "pi").is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_group_waits_for_its_cluster() {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    fake.create(GROUPS, json!({
        "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskWorkerGroup",
        "metadata": {"name": "early", "namespace": "ns"},
        "spec": {"cluster": "simple", "worker": {"replicas": 2, "spec": {"containers": [{"name": "w"}]}}},
    }));
    fake.until("that is said", |fake| {
        condition(&fake.get(GROUPS, "early").unwrap(), "Ready").1 == "ClusterNotFound"
    })
    .await;
    fake.create(CLUSTERS, cluster("simple", 0));
    fake.until("it has its workers", |fake| {
        fake.workers("early").len() == 2
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deleting_a_cluster_leaves_nothing() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 4).await;
    fake.delete(CLUSTERS, "simple");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let left: Vec<fake::Path> = fake.with(|state| {
        state
            .objects
            .keys()
            .filter(|path| path.0 != EVENTS)
            .cloned()
            .collect()
    });
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn with_upstreams_resource_types_the_phase_alone_is_written() {
    let fake = Fake::default();
    fake.with(|state| {
        state.without_status = [CLUSTERS, GROUPS, AUTOSCALERS].map(str::to_owned).into()
    });
    let _life = Life::begin(&fake);
    fake.create(CLUSTERS, cluster("simple", 2));
    fake.until("all is made", |fake| {
        phase(fake, "simple") == "Running" && fake.workers("simple-default").len() == 2
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        fake.get(CLUSTERS, "simple").unwrap()["status"],
        json!({"phase": "Running"})
    );
    assert!(fake.get(GROUPS, "simple-default").unwrap()["status"].is_null());
}

/// A namespace as the stock operator leaves it.
fn stock(fake: &Fake) {
    let kopf = json!({"kopf.zalando.org/last-handled-configuration": "{}"});
    let finalizer = json!(["kopf.zalando.org/KopfFinalizerMarker"]);
    let mut manifest = cluster("simple", 2);
    manifest["metadata"]["annotations"] = kopf.clone();
    manifest["metadata"]["finalizers"] = finalizer.clone();
    manifest["status"] = json!({"phase": "Running"});
    fake.create(CLUSTERS, manifest);
    let owner = |kind: &str, name: &str| {
        let object = fake.get(kind, name).unwrap();
        json!([{"apiVersion": object["apiVersion"], "kind": object["kind"], "name": name, "uid": object["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}])
    };
    let of_cluster = owner(CLUSTERS, "simple");
    fake.create(GROUPS, json!({
        "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskWorkerGroup",
        "metadata": {"name": "simple-default", "namespace": "ns", "ownerReferences": of_cluster, "finalizers": finalizer,
            "labels": {"dask.org/cluster-name": "simple", "dask.org/component": "workergroup"}},
        "spec": {"cluster": "simple", "worker": {"replicas": 3, "spec": {"containers": [{"name": "w", "image": "older"}]}}},
    }));
    let deployment = |name: &str, labels: Value, owner: &Value| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "ns", "labels": labels, "ownerReferences": owner, "finalizers": finalizer},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "older"}]}}},
        })
    };
    let scheduler = json!({"dask.org/cluster-name": "simple", "dask.org/component": "scheduler", "sidecar.istio.io/inject": "false"});
    fake.create(
        DEPLOYMENTS,
        deployment("simple-scheduler", scheduler.clone(), &of_cluster),
    );
    fake.create(SERVICES, json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "simple-scheduler", "namespace": "ns", "labels": scheduler, "ownerReferences": of_cluster, "annotations": kopf, "finalizers": finalizer},
        "spec": {"type": "ClusterIP", "ports": []},
    }));
    let of_group = owner(GROUPS, "simple-default");
    for id in ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"] {
        let labels = json!({"dask.org/cluster-name": "simple", "dask.org/workergroup-name": "simple-default", "dask.org/component": "worker"});
        fake.create(
            DEPLOYMENTS,
            deployment(&format!("simple-default-worker-{id}"), labels, &of_group),
        );
    }
}

fn pods(fake: &Fake) -> Vec<String> {
    fake.with(|state| {
        state
            .objects
            .iter()
            .filter(|(path, _)| path.0 == PODS)
            .map(|(_, pod)| pod["metadata"]["uid"].to_string())
            .collect()
    })
}

#[tokio::test(start_paused = true)]
async fn taking_over_from_the_stock_operator_restarts_nothing_and_deletion_finishes() {
    let fake = Fake::default();
    stock(&fake);
    let before = pods(&fake);
    let specs = |fake: &Fake| -> Vec<Value> {
        fake.with(|state| {
            state
                .objects
                .iter()
                .filter(|(path, _)| path.0 == DEPLOYMENTS)
                .map(|(_, d)| d["spec"].clone())
                .collect()
        })
    };
    let specs_before = specs(&fake);
    let _life = Life::begin(&fake);
    fake.until("the cluster is ready", |fake| {
        is_ready(fake, CLUSTERS, "simple")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((pods(&fake), specs(&fake)), (before, specs_before));
    assert_eq!(
        fake.get(GROUPS, "simple-default").unwrap()["spec"]["worker"]["replicas"],
        3
    );
    let marked: Vec<fake::Path> = fake.with(|state| {
        let marked = state
            .objects
            .iter()
            .filter(|(_, object)| object["metadata"].to_string().contains("kopf"));
        marked.map(|(path, _)| path.clone()).collect()
    });
    assert!(marked.is_empty(), "still marked: {marked:?}");
    fake.delete(CLUSTERS, "simple");
    fake.until("all is gone", |fake| {
        fake.with(|state| state.objects.keys().all(|path| path.0 == EVENTS))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_being_deleted_under_the_stock_operator_is_let_go() {
    let fake = Fake::default();
    stock(&fake);
    fake.delete(CLUSTERS, "simple");
    assert!(
        fake.get(CLUSTERS, "simple").is_some(),
        "its finalizer holds it"
    );
    let _life = Life::begin(&fake);
    fake.until("all is gone", |fake| {
        fake.with(|state| state.objects.keys().all(|path| path.0 == EVENTS))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn workers_whose_time_passed_while_no_operator_ran_are_drained_all_the_same() {
    let fake = Fake::default();
    let life = ready_cluster(&fake, 3).await;
    fake.with(|state| state.scheduler.moving = 10);
    scale_group(&fake, 1);
    fake.until("two are chosen", |fake| {
        let workers = fake.workers("simple-default");
        let chosen = |worker: &&Value| {
            !worker["metadata"]["annotations"]["oxidask.io/retiring-since"].is_null()
        };
        workers.iter().filter(chosen).count() == 2
    })
    .await;
    drop(life);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let _life = Life::begin(&fake);
    fake.until("one is left", |fake| {
        fake.workers("simple-default").len() == 1
    })
    .await;
    assert!(fake.with(|state| state.lost.is_empty()));
}

fn scale_group(fake: &Fake, replicas: i64) {
    let change = json!({"spec": {"worker": {"replicas": replicas}}});
    fake.patch(GROUPS, "simple-default", &change);
}

#[tokio::test(start_paused = true)]
async fn what_went_while_watches_had_expired_is_made_again() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 2).await;
    let worker = fake.workers("simple-default")[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    fake.with(|state| {
        state.drop_watches();
        let path = |kind: &str, name: &str| (kind.to_owned(), "ns".to_owned(), name.to_owned());
        state.delete(&path(DEPLOYMENTS, &worker));
        state.delete(&path(SERVICES, "simple-scheduler"));
        // Whoever goes on from where a watch ended is told 410 from now on.
        state.expire_watches();
    });
    fake.until("both are back", |fake| {
        fake.workers("simple-default").len() == 2
            && fake.get(SERVICES, "simple-scheduler").is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_field_makes_a_cluster_at_rest_write() {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    let mut manifest = cluster("simple", 3);
    for (field, value) in [
        ("idleTimeout", json!(3600)),
        ("tls", json!({"enabled": true})),
        ("networkPolicy", json!({"enabled": true})),
        ("podDisruptionBudget", json!({"protectScheduler": true})),
        ("rust", json!({"worker": true})),
    ] {
        manifest["spec"][field] = value;
    }
    manifest["spec"]["worker"]["nthreads"] = json!(2);
    manifest["spec"]["worker"]["drainTimeoutSeconds"] = json!(30);
    fake.create(CLUSTERS, manifest);
    fake.create(
        AUTOSCALERS,
        json!({"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskAutoscaler", "metadata": {"name": "simple", "namespace": "ns"},
            "spec": {"cluster": "simple", "minimum": 3, "maximum": 3}}),
    );
    fake.until("the cluster is ready", |fake| {
        is_ready(fake, CLUSTERS, "simple")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let state = |fake: &Fake| fake.with(|state| (state.version(), state.writers.len()));
    let before = state(&fake);
    // Less than the ten minutes after which guards are applied again.
    tokio::time::sleep(Duration::from_secs(480)).await;
    assert_eq!(state(&fake), before);
}

#[tokio::test(start_paused = true)]
async fn the_watches_come_back_after_the_api_server_did() {
    let fake = Fake::default();
    let _life = ready_cluster(&fake, 1).await;
    fake.with(fake::State::drop_watches);
    fake.patch(
        GROUPS,
        "simple-default",
        &json!({"spec": {"worker": {"replicas": 3}}}),
    );
    fake.until("three workers", |fake| {
        fake.workers("simple-default").len() == 3
    })
    .await;
}
