//! Objects that keep others away from a cluster's pods: NetworkPolicies and
//! PodDisruptionBudgets.

use oxidask_operator_api::{DaskCluster, DaskWorkerGroup};
use serde_json::{Value, json};

use super::{metadata, owner};
use crate::labels::{self, CLUSTER, COMPONENT, GROUP, Map, SPEC_HASH};
use crate::names;
use crate::spec_hash::spec_hash;

/// The NetworkPolicies of a cluster that wants them, with the name of each.
/// `operator`: the namespace that the operator runs in.
///
/// # Panics
/// As [`owner`].
pub fn network_policies(cluster: &DaskCluster, operator: &str) -> Vec<Value> {
    let Some(wanted) = cluster.spec.network_policy.as_ref().filter(|p| p.enabled) else {
        return Vec::new();
    };
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let members = json!({"podSelector": {"matchLabels": {CLUSTER: name}}});
    let clients = match &wanted.clients {
        Some(peers) => json!(peers),
        None => json!([{"podSelector": {}}]),
    };
    let operator = json!([{"namespaceSelector": {
        "matchLabels": {"kubernetes.io/metadata.name": operator},
    }}]);
    let ports = |names: &[&str]| {
        let ports = names.iter().map(|port| json!({"port": port}));
        Value::Array(ports.collect())
    };
    let mut to_scheduler = vec![json!({"from": operator})];
    // No peer at all would mean everybody.
    if clients.as_array().is_some_and(|peers| !peers.is_empty()) {
        let to = ports(&["tcp-comm", "http-dashboard"]);
        to_scheduler.push(json!({"from": clients, "ports": to}));
    }
    let pods = json!({
        "podSelector": {"matchLabels": {CLUSTER: name}},
        "policyTypes": ["Ingress"],
        // Workers listen on ports that they choose.
        "ingress": [{"from": [members]}],
    });
    let scheduler = json!({
        "podSelector": {"matchLabels": labels::scheduler_service(name)},
        "policyTypes": ["Ingress"],
        "ingress": to_scheduler,
    });
    [("pods", pods), ("scheduler", scheduler)]
        .map(|(part, spec)| {
            let name = names::network_policy(name, part);
            of_cluster(
                cluster,
                "networking.k8s.io/v1",
                "NetworkPolicy",
                &name,
                &spec,
            )
        })
        .into()
}

/// The budget of a cluster's scheduler, if it must not be evicted.
///
/// # Panics
/// As [`owner`].
pub fn scheduler_budget(cluster: &DaskCluster) -> Option<Value> {
    let wanted = cluster.spec.pod_disruption_budget.as_ref()?;
    if wanted.protect_scheduler != Some(true) {
        return None;
    }
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let spec = json!({
        "maxUnavailable": 0,
        "selector": {"matchLabels": labels::scheduler_service(name)},
    });
    let name = names::scheduler(name);
    Some(of_cluster(
        cluster,
        "policy/v1",
        "PodDisruptionBudget",
        &name,
        &spec,
    ))
}

/// The budget of a group's workers, if its cluster wants one.
///
/// # Panics
/// As [`owner`].
pub fn group_budget(group: &DaskWorkerGroup, cluster: &DaskCluster) -> Option<Value> {
    let wanted = cluster.spec.pod_disruption_budget.as_ref()?;
    let name = group.metadata.name.as_deref().unwrap_or_default();
    let most = match &wanted.max_unavailable_workers {
        Some(most) => json!(most),
        None => json!(1),
    };
    let spec = json!({
        "maxUnavailable": most,
        "selector": {"matchLabels": {GROUP: name, COMPONENT: labels::WORKER}},
    });
    let annotations = hash_of(&spec);
    let labels = labels::cluster(&group.spec.cluster);
    let namespace = group.metadata.namespace.as_deref();
    Some(json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, namespace, &labels, &annotations, owner(group)),
        "spec": spec,
    }))
}

fn of_cluster(cluster: &DaskCluster, version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    let of = cluster.metadata.name.as_deref().unwrap_or_default();
    let namespace = cluster.metadata.namespace.as_deref();
    let labels = labels::cluster(of);
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": metadata(name, namespace, &labels, &hash_of(spec), owner(cluster)),
        "spec": spec,
    })
}

fn hash_of(spec: &Value) -> Map {
    [(SPEC_HASH.to_owned(), spec_hash(spec))].into()
}
