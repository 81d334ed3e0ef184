//! The children of a cluster: made when missing, changed when the cluster's
//! spec changed since they were made.
//!
//! A child that was made by the stock operator has no hash of what it was made
//! from; the present spec counts as that. So a running scheduler never
//! restarts because the operator changed.

use std::sync::Arc;

use kube::{Resource as _, ResourceExt as _};
use oxidask_operator_api::{DaskCluster, DaskWorkerGroup};
use serde_json::{Value, json};
use tracing::info;

use super::{Seen, certificates};
use crate::api;
use crate::build;
use crate::context::Context;
use crate::error::Error;
use crate::labels::{MIRRORED_REPLICAS, RESTART_SCHEDULER, SPEC_HASH, TLS};
use crate::names;
use crate::owners::is_same;
use crate::views::{DeploymentView, ServiceView};

/// Makes and changes what has to be; `seen` gets what was made.
pub(super) async fn apply(context: &Context, seen: &mut Seen) -> Result<(), Error> {
    let missing = [
        seen.deployment.is_none(),
        seen.service.is_none(),
        seen.group.is_none(),
    ];
    if missing.contains(&true) && was_made(&seen.cluster) {
        // When a cluster is deleted its children may be seen to go first.
        let current = api::get::<DaskCluster>(&context.client, &seen.namespace, &seen.name).await?;
        if !is_same(current.as_ref(), &seen.cluster) {
            return Ok(());
        }
    }
    certificates::ensure(context, seen).await?;
    let cluster = Arc::clone(&seen.cluster);
    let told = async {
        if missing == [true; 3] {
            let note = "Creating Dask cluster components.".to_owned();
            context.events.normal(&*cluster, "Creating", note).await;
        }
    };
    // The scheduler's pod, for which all wait, does not wait for the Event.
    let (made, ()) = tokio::join!(deployment(context, seen), told);
    made?;
    service(context, seen).await?;
    group(context, seen).await
}

/// Whether the cluster had its children before.
fn was_made(cluster: &DaskCluster) -> bool {
    cluster
        .status
        .as_ref()
        .is_some_and(|status| status.phase.is_some())
}

/// Pods of the scheduler: none while the cluster is suspended.
fn scheduler_replicas(cluster: &DaskCluster) -> i64 {
    i64::from(cluster.spec.suspend != Some(true))
}

/// Whether the scheduler's pod is of another spec than the cluster's.
pub(super) fn scheduler_is_outdated(seen: &Seen) -> bool {
    let made_from = seen
        .deployment
        .as_ref()
        .and_then(|d| d.annotations().get(SPEC_HASH));
    made_from.is_some_and(|made_from| *made_from != build::scheduler_hash(&seen.cluster))
}

async fn deployment(context: &Context, seen: &mut Seen) -> Result<(), Error> {
    let cluster = &seen.cluster;
    let replicas = scheduler_replicas(cluster);
    let manifest = build::scheduler_deployment(cluster, replicas, &context.site());
    let Some(found) = &seen.deployment else {
        let made =
            api::apply::<DeploymentView>(&context.client, &seen.namespace, &manifest).await?;
        info!(
            namespace = seen.namespace,
            name = seen.name,
            "scheduler deployment created"
        );
        seen.deployment = Some(Arc::new(made));
        return Ok(());
    };
    let name = names::scheduler(&seen.name);
    let (namespace, client) = (&seen.namespace, &context.client);
    if !found.annotations().contains_key(SPEC_HASH) {
        let mut annotations = json!({SPEC_HASH: build::scheduler_hash(cluster)});
        if let Some(restart) = cluster.annotations().get(RESTART_SCHEDULER) {
            annotations[RESTART_SCHEDULER] = json!(restart);
        }
        let patch = json!({"metadata": {"annotations": annotations}});
        api::merge::<DeploymentView>(client, namespace, &name, &patch).await?;
    } else if found.annotations().get(RESTART_SCHEDULER)
        != cluster.annotations().get(RESTART_SCHEDULER)
    {
        restart(context, seen, &name, &manifest).await?;
        let note = "The scheduler is replaced by one of the present spec.".to_owned();
        context
            .events
            .normal(&*seen.cluster, "SchedulerRestarted", note)
            .await;
        return Ok(());
    }
    if found.spec.replicas != Some(replicas) {
        let patch = json!({"spec": {"replicas": replicas}});
        let made = api::merge::<DeploymentView>(client, namespace, &name, &patch).await?;
        seen.deployment = Some(Arc::new(made));
    }
    Ok(())
}

/// Gives the scheduler's Deployment the template of the present spec. Its
/// selector stays, because it cannot change: what it selects on is put into
/// the template's labels.
async fn restart(
    context: &Context,
    seen: &Seen,
    name: &str,
    manifest: &Value,
) -> Result<(), Error> {
    let (client, namespace) = (&context.client, &seen.namespace);
    let Some(stored) =
        api::get::<k8s_openapi::api::apps::v1::Deployment>(client, namespace, name).await?
    else {
        return Ok(());
    };
    let mut template = manifest["spec"]["template"].clone();
    let selector = stored
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.clone());
    for (label, value) in selector.into_iter().flatten() {
        template["metadata"]["labels"][label] = json!(value);
    }
    // An annotation asks for the restart even where the spec is the same.
    template["metadata"]["annotations"][RESTART_SCHEDULER] =
        manifest["metadata"]["annotations"][RESTART_SCHEDULER].clone();
    let mut annotations = json!(stored.annotations());
    for ours in [SPEC_HASH, RESTART_SCHEDULER, TLS] {
        annotations[ours] = manifest["metadata"]["annotations"][ours].clone();
    }
    drop_nulls(&mut annotations);
    drop_nulls(&mut template["metadata"]["annotations"]);
    let operations = json!([
        {"op": "add", "path": "/spec/template", "value": template},
        {"op": "add", "path": "/spec/strategy", "value": {"type": "Recreate"}},
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
    ]);
    api::replace::<DeploymentView>(client, namespace, name, operations).await?;
    Ok(())
}

fn drop_nulls(object: &mut Value) {
    if let Value::Object(members) = object {
        members.retain(|_, value| !value.is_null());
    }
}

async fn service(context: &Context, seen: &mut Seen) -> Result<(), Error> {
    let hash = build::service_hash(&seen.cluster);
    if let Some(found) = &seen.service {
        match found.annotations().get(SPEC_HASH) {
            Some(made_from) if *made_from == hash => return Ok(()),
            Some(_) => {}
            None => {
                let patch = json!({"metadata": {"annotations": {SPEC_HASH: hash}}});
                let name = names::scheduler(&seen.name);
                api::merge::<ServiceView>(&context.client, &seen.namespace, &name, &patch).await?;
                return Ok(());
            }
        }
    }
    let manifest = build::scheduler_service(&seen.cluster);
    let made = api::apply::<ServiceView>(&context.client, &seen.namespace, &manifest).await?;
    info!(
        namespace = seen.namespace,
        name = seen.name,
        "scheduler service applied"
    );
    seen.service = Some(Arc::new(made));
    Ok(())
}

async fn group(context: &Context, seen: &mut Seen) -> Result<(), Error> {
    let (client, namespace) = (&context.client, &seen.namespace);
    let Some(found) = &seen.group else {
        let manifest = build::default_group(&seen.cluster);
        let made = api::apply::<DaskWorkerGroup>(client, namespace, &manifest).await?;
        info!(namespace, name = seen.name, "default worker group created");
        seen.group = Some(Arc::new(made));
        return Ok(());
    };
    if found.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let Some(operations) = group_changes(&seen.cluster, found) else {
        return Ok(());
    };
    let name = names::default_group(&seen.name);
    let made = api::replace::<DaskWorkerGroup>(client, namespace, &name, operations).await?;
    seen.group = Some(Arc::new(made));
    Ok(())
}

/// What has to change in the default group so that it follows its cluster, as
/// a JSON patch.
///
/// The number of workers is handed on when the cluster's number changed since
/// it was last handed on, and only then: in between the group may be scaled by
/// itself, and whoever scaled last wins.
fn group_changes(cluster: &DaskCluster, group: &DaskWorkerGroup) -> Option<Value> {
    let annotations = group.annotations();
    let (replicas, hash) = (cluster.spec.worker.replicas, build::group_hash(cluster));
    let mut wanted = annotations.clone();
    wanted.insert(MIRRORED_REPLICAS.to_owned(), replicas.to_string());
    wanted.insert(SPEC_HASH.to_owned(), hash);
    if wanted == *annotations {
        return None;
    }
    let mut operations =
        vec![json!({"op": "add", "path": "/metadata/annotations", "value": wanted})];
    let changed = |name: &str| {
        annotations
            .get(name)
            .is_some_and(|before| before != &wanted[name])
    };
    if changed(SPEC_HASH) {
        let mut worker = json!(cluster.spec.worker);
        worker["replicas"] = json!(group.spec.worker.replicas);
        operations.push(json!({"op": "replace", "path": "/spec/worker", "value": worker}));
    }
    if changed(MIRRORED_REPLICAS) {
        operations.push(json!({"op": "add", "path": "/spec/worker/replicas", "value": replicas}));
    }
    Some(Value::Array(operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(replicas: i64, image: &str) -> DaskCluster {
        serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "ns", "uid": "u"},
            "spec": {"worker": {"replicas": replicas, "spec": {"containers": [{"name": "w", "image": image}]}}},
        }))
        .unwrap()
    }

    fn group_of(cluster: &DaskCluster) -> DaskWorkerGroup {
        serde_json::from_value(build::default_group(cluster)).unwrap()
    }

    #[test]
    fn an_unchanged_cluster_does_not_undo_a_scale_of_its_group() {
        let mut group = group_of(&cluster(2, "a"));
        group.spec.worker.replicas = 7;
        assert_eq!(group_changes(&cluster(2, "a"), &group), None);
    }

    #[test]
    fn a_change_of_the_clusters_number_is_handed_on() {
        let operations = group_changes(&cluster(5, "a"), &group_of(&cluster(2, "a"))).unwrap();
        assert_eq!(
            operations[1],
            json!({"op": "add", "path": "/spec/worker/replicas", "value": 5})
        );
        assert_eq!(operations.as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_change_of_the_pod_keeps_the_groups_own_number() {
        let mut group = group_of(&cluster(2, "a"));
        group.spec.worker.replicas = 7;
        let operations = group_changes(&cluster(2, "b"), &group).unwrap();
        assert_eq!(operations[1]["path"], "/spec/worker");
        assert_eq!(operations[1]["value"]["replicas"], 7);
        assert_eq!(
            operations[1]["value"]["spec"]["containers"][0]["image"],
            "b"
        );
    }

    #[test]
    fn a_group_of_the_stock_operator_keeps_its_number_and_its_pods() {
        let mut group = group_of(&cluster(2, "old"));
        group.metadata.annotations = None;
        group.spec.worker.replicas = 7;
        let operations = group_changes(&cluster(2, "new"), &group).unwrap();
        assert_eq!(
            operations.as_array().unwrap().len(),
            1,
            "annotations only: {operations}"
        );
    }
}
