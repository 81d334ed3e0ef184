//! The chart gives the operator the rights that it uses: all of them, and no others but those named here.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

mod fake;
mod life;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use fake::{AUTOSCALERS, CLUSTERS, Fake, GROUPS, JOBS, PODS, cluster, cluster_spec};
use life::Life;

/// Kind with its subresource, and verb.
type Right = (String, String);

/// Rights that the scenario below does not use, with the reason that they are needed.
const ELSEWHERE: &[(&str, &[&str], &str)] = &[
    // Owner references are checked on OpenShift only.
    (
        "kubernetes.dask.org/daskclusters/finalizers",
        &["update"],
        "owners",
    ),
    (
        "kubernetes.dask.org/daskworkergroups/finalizers",
        &["update"],
        "owners",
    ),
    (
        "kubernetes.dask.org/daskjobs/finalizers",
        &["update"],
        "owners",
    ),
    (
        "oxidask.io/scalingexperiments/finalizers",
        &["update"],
        "owners",
    ),
    (
        "oxidask.io/scalingexperiments",
        &["get", "patch", "delete"],
        "tests/experiment*.rs",
    ),
    (
        "oxidask.io/scalingexperiments/status",
        &["patch"],
        "tests/experiment*.rs",
    ),
    (
        "kubernetes.dask.org/daskworkergroups",
        &["delete"],
        "experiments",
    ),
    ("pods/log", &["get"], "experiments"),
    ("configmaps", &["create", "patch", "get"], "experiments"),
    // What the stock operator left is taken off every kind.
    // Looks at what is stored, after a child went: tests/scenarios.rs.
    ("kubernetes.dask.org/daskclusters", &["get"], "drift"),
    ("kubernetes.dask.org/daskworkergroups", &["get"], "drift"),
    ("pods", &["get"], "a runner that was lost"),
    // An Event that comes again.
    ("events.k8s.io/events", &["patch"], "events"),
    ("kubernetes.dask.org/daskautoscalers", &["get"], "takeover"),
    ("apps/deployments", &["get"], "takeover"),
    ("services", &["get"], "takeover"),
    ("pods", &["patch"], "takeover"),
];

#[tokio::test(start_paused = true)]
async fn the_chart_gives_what_the_operator_uses() {
    let granted = granted();
    let used = used().await;
    let missing: Vec<&Right> = used.difference(&granted).collect();
    assert!(
        missing.is_empty(),
        "used and not given by the chart: {missing:?}"
    );
    let elsewhere: BTreeSet<Right> = ELSEWHERE
        .iter()
        .flat_map(|(kind, verbs, _)| {
            verbs
                .iter()
                .map(|verb| ((*kind).to_owned(), (*verb).to_owned()))
        })
        .collect();
    let unused: Vec<&Right> = granted
        .difference(&used)
        .filter(|right| !elsewhere.contains(right))
        .collect();
    assert!(
        unused.is_empty(),
        "given by the chart and not used: {unused:?}"
    );
}

/// The rules in the chart, which need no rendering.
fn granted() -> BTreeSet<Right> {
    let text = include_str!("../../../charts/oxidask-operator/templates/_helpers.tpl");
    let (_, rules) = text.split_once("{{- define \"oxidask.rules\" -}}").unwrap();
    let (rules, _) = rules.split_once("{{- end }}").unwrap();
    let rules: Value = serde_saphyr::from_str(rules).unwrap();
    let words = |rule: &Value, of: &str| -> Vec<String> {
        let words = rule[of].as_array().unwrap().iter();
        words
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    let mut granted = BTreeSet::new();
    for rule in rules.as_array().unwrap() {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                for verb in words(rule, "verbs") {
                    let kind = if group.is_empty() {
                        resource.clone()
                    } else {
                        format!("{group}/{resource}")
                    };
                    granted.insert((kind, verb));
                }
            }
        }
    }
    granted
}

/// What is asked of the API server while every field and kind is used.
async fn used() -> BTreeSet<Right> {
    let fake = Fake::default();
    let _life = Life::begin(&fake);
    let mut manifest = cluster("simple", 3);
    for (field, value) in [
        ("tls", json!({"enabled": true})),
        ("networkPolicy", json!({"enabled": true})),
        ("podDisruptionBudget", json!({"protectScheduler": true})),
        ("idleTimeout", json!(60)),
    ] {
        manifest["spec"][field] = value;
    }
    fake.create(CLUSTERS, manifest);
    fake.create(GROUPS, json!({
        "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskWorkerGroup", "metadata": {"name": "more", "namespace": "ns"},
        "spec": {"cluster": "simple", "worker": {"replicas": 1, "spec": {"containers": [{"name": "w"}]}}},
    }));
    fake.create(AUTOSCALERS, json!({
        "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskAutoscaler", "metadata": {"name": "simple", "namespace": "ns"},
        "spec": {"cluster": "simple", "minimum": 1, "maximum": 3},
    }));
    fake.create(JOBS, json!({
        "apiVersion": "kubernetes.dask.org/v1", "kind": "DaskJob", "metadata": {"name": "pi", "namespace": "ns"},
        "spec": {"job": {"spec": {"containers": [{"name": "job"}]}}, "cluster": {"spec": cluster_spec(1)}, "backoffLimit": 1, "ttlSecondsAfterFinished": 5},
    }));
    for _ in 0..2 {
        fake.until("a runner", |fake| fake.get(PODS, "pi-runner").is_some())
            .await;
        fake.patch(PODS, "pi-runner", &json!({"status": {"phase": "Failed"}}));
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    fake.until("the job is gone", |fake| fake.get(JOBS, "pi").is_none())
        .await;
    let spec = json!({"spec": {"networkPolicy": null, "podDisruptionBudget": null}});
    fake.patch(CLUSTERS, "simple", &spec);
    fake.until("the autoscaler shrank the group", |fake| {
        fake.workers("simple-default").len() == 1
    })
    .await;
    fake.with(|state| state.scheduler.idle_since = Some(1000.0));
    fake.until("the idle cluster is gone", |fake| {
        fake.get(CLUSTERS, "simple").is_none()
    })
    .await;
    fake.with(|state| {
        let rights = state.rights.iter();
        rights
            // Which resource types there are may be asked by everybody.
            .filter(|(kind, _)| kind.split('/').count() > 2 || kind.starts_with("v1/"))
            .map(|(kind, verb)| (without_version(kind), (*verb).to_owned()))
            .collect()
    })
}

/// `apps/v1/deployments` as a role names it: `apps/deployments`, `v1/pods` as `pods`.
fn without_version(kind: &str) -> String {
    let parts = kind.split('/').filter(|part| !part.starts_with("v1"));
    parts.collect::<Vec<_>>().join("/")
}
