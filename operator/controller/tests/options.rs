//! The fields that dask-kubernetes does not have, each from the manifest to
//! what it does, on an API server in memory.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

mod fake;
mod life;

use std::time::Duration;

use serde_json::{Value, json};

use fake::{
    AUTOSCALERS, BUDGETS, CLUSTERS, DEPLOYMENTS, EVENTS, Fake, GROUPS, PODS, POLICIES, SECRETS,
    cluster,
};
use life::Life;

/// A ready cluster of so many workers, with these members put into its spec.
async fn with(fake: &Fake, replicas: i64, spec: &Value) -> Life {
    let life = Life::begin(fake);
    let mut manifest = cluster("simple", replicas);
    manifest["spec"]["scheduler"]["spec"]["containers"][0]["args"] = json!(["dask-scheduler"]);
    for (name, value) in spec.as_object().unwrap() {
        match (name.as_str(), value) {
            ("worker", Value::Object(members)) => {
                for (name, value) in members {
                    manifest["spec"]["worker"][name] = value.clone();
                }
            }
            _ => manifest["spec"][name] = value.clone(),
        }
    }
    fake.create(CLUSTERS, manifest);
    until_ready(fake, "the cluster is ready").await;
    life
}

async fn until_ready(fake: &Fake, what: &str) {
    fake.until(what, |fake| {
        let cluster = fake.get(CLUSTERS, "simple").unwrap();
        condition(&cluster, "Ready").0 == "True"
    })
    .await;
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

fn pod_of(deployment: &Value) -> Value {
    deployment["spec"]["template"]["spec"].clone()
}

fn worker(fake: &Fake) -> Value {
    fake.workers("simple-default")[0].clone()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn nthreads_reaches_the_workers_and_a_change_of_it_replaces_them() {
    let fake = Fake::default();
    let _life = with(&fake, 2, &json!({"worker": {"nthreads": 3}})).await;
    let words = |fake: &Fake| pod_of(&worker(fake))["containers"][0]["args"].clone();
    let expected = |n: &str| {
        json!([
            "dask-worker",
            "--nthreads",
            n,
            "--name",
            "$(DASK_WORKER_NAME)"
        ])
    };
    assert_eq!(words(&fake), expected("3"));
    fake.patch(
        CLUSTERS,
        "simple",
        &json!({"spec": {"worker": {"nthreads": 4}}}),
    );
    fake.until("all workers have four threads", |fake| {
        let workers = fake.workers("simple-default");
        let four = |worker: &Value| pod_of(worker)["containers"][0]["args"] == expected("4");
        workers.len() == 2 && workers.iter().all(four)
    })
    .await;
    assert!(fake.with(|state| state.lost.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn injection_starts_our_programs_in_the_users_images() {
    let fake = Fake::default();
    let rust = json!({"rust": {"scheduler": true, "worker": true, "image": "ours:1"}});
    let _life = with(&fake, 1, &rust).await;
    let scheduler = pod_of(&fake.get(DEPLOYMENTS, "simple-scheduler").unwrap());
    let container = &scheduler["containers"][0];
    assert_eq!(
        (&container["image"], &container["args"][0]),
        (&json!("dask"), &json!("/opt/oxidask/dask-scheduler"))
    );
    let worker = pod_of(&worker(&fake));
    assert_eq!(
        worker["containers"][0]["args"][0],
        "/opt/oxidask/dask-worker"
    );
    assert_eq!(worker["initContainers"][0]["image"], "ours:1");
    let cluster = fake.get(CLUSTERS, "simple").unwrap();
    assert_eq!(condition(&cluster, "CommandRecognised").0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_not_recognised_is_said_and_starts_as_it_is() {
    let fake = Fake::default();
    let pod = json!({"containers": [{"name": "w", "image": "mine", "command": ["sh", "-c", "dask-worker"]}]});
    let spec = json!({"rust": {"worker": true}, "worker": {"spec": pod}});
    let _life = with(&fake, 1, &spec).await;
    for (kind, name) in [(CLUSTERS, "simple"), (GROUPS, "simple-default")] {
        let said = condition(&fake.get(kind, name).unwrap(), "CommandRecognised");
        assert_eq!(
            said,
            ("False".to_owned(), "CommandNotRecognised".to_owned()),
            "{kind}"
        );
    }
    let built = pod_of(&worker(&fake));
    assert_eq!(
        built["containers"][0]["command"],
        json!(["sh", "-c", "dask-worker"])
    );
    assert!(built["initContainers"].is_null());
    let warned = fake.with(|state| {
        let events = state.objects.iter().filter(|(path, _)| path.0 == EVENTS);
        events
            .filter(|(_, event)| event["reason"] == "CommandNotRecognised")
            .count()
    });
    assert!(warned > 0);
}

#[tokio::test(start_paused = true)]
async fn tls_gives_every_pod_the_clusters_own_certificates() {
    let fake = Fake::default();
    let _life = with(&fake, 1, &json!({"tls": {"enabled": true}})).await;
    let secret = fake.get(SECRETS, "simple-tls").unwrap();
    let authority = secret["stringData"]["ca.crt"].as_str().unwrap();
    assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(secret["metadata"]["ownerReferences"][0]["name"], "simple");
    let scheduler = fake.get(DEPLOYMENTS, "simple-scheduler").unwrap();
    for deployment in [&scheduler, &worker(&fake)] {
        let pod = pod_of(deployment);
        assert_eq!(pod["volumes"][0]["secret"]["secretName"], "simple-tls");
        let env = pod["containers"][0]["env"].as_array().unwrap();
        assert!(
            env.iter()
                .any(|v| v["name"] == "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION")
        );
    }
    let env = pod_of(&worker(&fake))["containers"][0]["env"].clone();
    assert_eq!(
        env[1]["value"],
        "tls://simple-scheduler.ns.svc.cluster.local:8786"
    );
}

#[tokio::test(start_paused = true)]
async fn workers_follow_the_scheduler_that_runs_when_tls_is_turned_on() {
    let fake = Fake::default();
    let _life = with(&fake, 1, &json!({})).await;
    fake.patch(
        CLUSTERS,
        "simple",
        &json!({"spec": {"tls": {"enabled": true}}}),
    );
    fake.until("it is said that the scheduler is older", |fake| {
        condition(&fake.get(CLUSTERS, "simple").unwrap(), "SchedulerReady").1 == "SpecChanged"
    })
    .await;
    assert!(
        pod_of(&worker(&fake))["volumes"].is_null(),
        "the scheduler does not speak TLS yet"
    );
    let restart = json!({"metadata": {"annotations": {"oxidask.io/restart-scheduler": "1"}}});
    fake.patch(CLUSTERS, "simple", &restart);
    fake.until("the workers have certificates", |fake| {
        let workers = fake.workers("simple-default");
        workers.len() == 1 && !pod_of(&workers[0])["volumes"].is_null()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_of_the_users_own_is_used_as_it_is() {
    let fake = Fake::default();
    let _life = with(
        &fake,
        1,
        &json!({"tls": {"enabled": true, "secretName": "mine"}}),
    )
    .await;
    assert!(fake.get(SECRETS, "simple-tls").is_none());
    assert_eq!(
        pod_of(&worker(&fake))["volumes"][0]["secret"]["secretName"],
        "mine"
    );
}

#[tokio::test(start_paused = true)]
async fn network_policies_and_budgets_come_and_go_with_their_fields() {
    let fake = Fake::default();
    let spec = json!({
        "networkPolicy": {"enabled": true, "clients": [{"namespaceSelector": {}}]},
        "podDisruptionBudget": {"protectScheduler": true, "maxUnavailableWorkers": "25%"},
    });
    let _life = with(&fake, 2, &spec).await;
    let policy = fake.get(POLICIES, "simple-scheduler").unwrap();
    let to_scheduler = &policy["spec"]["ingress"];
    assert_eq!(to_scheduler[1]["from"], json!([{"namespaceSelector": {}}]));
    assert_eq!(
        to_scheduler[1]["ports"],
        json!([{"port": "tcp-comm"}, {"port": "http-dashboard"}])
    );
    assert!(fake.get(POLICIES, "simple-pods").is_some());
    let budget = |name: &str| {
        fake.get(BUDGETS, name)
            .map(|b| b["spec"]["maxUnavailable"].clone())
    };
    assert_eq!(budget("simple-scheduler"), Some(json!(0)));
    assert_eq!(budget("simple-default"), Some(json!("25%")));
    let fields =
        json!({"spec": {"networkPolicy": {"enabled": false}, "podDisruptionBudget": null}});
    fake.patch(CLUSTERS, "simple", &fields);
    fake.until("all are gone", |fake| {
        fake.with(|state| {
            !state
                .objects
                .keys()
                .any(|path| [POLICIES, BUDGETS].contains(&&*path.0))
        })
    })
    .await;
    let annotations = &fake.get(CLUSTERS, "simple").unwrap()["metadata"]["annotations"];
    assert!(annotations["oxidask.io/guards"].is_null());
}

#[tokio::test(start_paused = true)]
async fn guards_that_another_process_made_go_too() {
    let fake = Fake::default();
    let life = with(&fake, 0, &json!({"networkPolicy": {"enabled": true}})).await;
    life.stop().await;
    fake.patch(
        CLUSTERS,
        "simple",
        &json!({"spec": {"networkPolicy": null}}),
    );
    let _life = Life::begin(&fake);
    fake.until("the policies are gone", |fake| {
        fake.get(POLICIES, "simple-pods").is_none()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_somebody_deleted_comes_back() {
    let fake = Fake::default();
    let _life = with(&fake, 0, &json!({"networkPolicy": {"enabled": true}})).await;
    fake.delete(POLICIES, "simple-pods");
    tokio::time::sleep(Duration::from_secs(600)).await;
    fake.until("it is back", |fake| {
        fake.get(POLICIES, "simple-pods").is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_worker_is_drained_and_replaced_before_it_goes() {
    let fake = Fake::default();
    let _life = with(&fake, 3, &json!({"worker": {"drainTimeoutSeconds": 60}})).await;
    fake.with(|state| state.scheduler.moving = 5);
    let victim = name(&worker(&fake));
    let pod = format!("{victim}-abc-xyz");
    fake.delete(PODS, &pod);
    assert!(fake.get(PODS, &pod).is_some(), "its hook holds it");
    fake.until("another one took its place", |fake| {
        let workers = fake.workers("simple-default");
        workers.len() == 3 && workers.iter().all(|worker| name(worker) != victim)
    })
    .await;
    let path = (PODS.to_owned(), "ns".to_owned(), pod);
    fake.with(|state| state.end_held(&path));
    assert!(
        fake.with(|state| state.lost.is_empty()),
        "its results were moved first"
    );
    until_ready(&fake, "the cluster is ready again").await;
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_scales_each_of_its_groups_within_its_bounds() {
    let fake = Fake::default();
    let _life = with(&fake, 0, &json!({})).await;
    fake.create(GROUPS, json!({
        "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskWorkerGroup",
        "metadata": {"name": "more", "namespace": "ns"},
        "spec": {"cluster": "simple", "worker": {"replicas": 0, "spec": {"containers": [{"name": "w"}]}}},
    }));
    fake.create(AUTOSCALERS, json!({
        "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskAutoscaler",
        "metadata": {"name": "simple", "namespace": "ns"},
        "spec": {"cluster": "simple", "minimum": 0, "maximum": 3, "groups": [{"name": "more", "maximum": 2}]},
    }));
    fake.with(|state| state.scheduler.desired = 9);
    fake.until("both are at their maximum", |fake| {
        fake.workers("simple-default").len() == 3 && fake.workers("more").len() == 2
    })
    .await;
    fake.until("that is said", |fake| {
        let status = &fake.get(AUTOSCALERS, "simple").unwrap()["status"];
        status["target"] == 3 && status["groups"][0]["target"] == 2
    })
    .await;
    fake.with(|state| state.scheduler.desired = 3);
    fake.until("the further group empties first", |fake| {
        fake.workers("more").is_empty()
    })
    .await;
    assert_eq!(fake.workers("simple-default").len(), 3);
}
