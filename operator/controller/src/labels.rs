//! Labels, annotations and finalizers: the only place where their names live.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;
use oxidask_operator_api::SubMetadata;

/// Labels or annotations.
pub type Map = BTreeMap<String, String>;

/// Label: name of the DaskCluster.
pub const CLUSTER: &str = "dask.org/cluster-name";
/// Label: name of the DaskWorkerGroup.
pub const GROUP: &str = "dask.org/workergroup-name";
/// Label: what the object is, one of the `COMPONENT_` values.
pub const COMPONENT: &str = "dask.org/component";
/// Label: keeps a mesh's sidecar out of the pod, as upstream does.
pub const ISTIO: &str = "sidecar.istio.io/inject";
/// Label: tells the workers of a group apart, so that no two Deployments
/// select the same pods.
pub const WORKER_ID: &str = "oxidask.io/worker-id";

/// Value of [`COMPONENT`] on a scheduler's Deployment, pod and Service.
pub const SCHEDULER: &str = "scheduler";
/// Value of [`COMPONENT`] on a worker's Deployment and pod.
pub const WORKER: &str = "worker";
/// Value of [`COMPONENT`] on a cluster's default group.
pub const WORKER_GROUP: &str = "workergroup";
/// Value of [`COMPONENT`] on a job's runner pod.
pub const JOB_RUNNER: &str = "job-runner";

/// Value of [`COMPONENT`] on the runner pods of an experiment.
pub const EXPERIMENT_RUNNER: &str = "experiment-runner";

/// Label on everything that an experiment makes: its name.
pub const EXPERIMENT: &str = "oxidask.io/experiment";
/// Label on the workers of an experiment: how many of them there are.
pub const NODES: &str = "oxidask.io/nodes";
/// Label on the workers of an experiment: threads of each.
pub const CORES: &str = "oxidask.io/cores";
/// Label on a runner pod: place of its cell in their order, or `report`.
pub const CELL: &str = "oxidask.io/cell";
/// Label on a runner pod: which attempt at its cell it is, from 1.
pub const ATTEMPT: &str = "oxidask.io/attempt";

/// Annotation: hash of the part of the resource that a child was made from.
pub const SPEC_HASH: &str = "oxidask.io/spec-hash";
/// Annotation on a worker's Deployment: chosen to be retired, at this time
/// (RFC 3339). Written before anything is retired, so that another operator
/// process goes on with the same workers.
pub const RETIRING: &str = "oxidask.io/retiring-since";
/// Annotation on a default group: the `spec.worker.replicas` of the cluster
/// that was last handed on to it.
pub const MIRRORED_REPLICAS: &str = "oxidask.io/cluster-replicas";
/// Annotation on a DaskCluster: a change of its value replaces the scheduler
/// pod with one of the present spec.
pub const RESTART_SCHEDULER: &str = "oxidask.io/restart-scheduler";
/// Annotation on a scheduler's Deployment: name of the Secret whose
/// certificates it was started with. Its workers and the operator follow it.
pub const TLS: &str = "oxidask.io/tls-secret";
/// Annotation on a DaskCluster or DaskWorkerGroup: the NetworkPolicies and
/// PodDisruptionBudgets that were made for it, as `Kind/name` with spaces.
pub const GUARDS: &str = "oxidask.io/guards";
/// Annotation on a DaskJob: how many runner pods were replaced, and the uid of
/// the last of them.
pub const RETRIES: &str = "oxidask.io/runner-retries";
/// Annotation on a DaskAutoscaler: no decision before this time, in seconds
/// since the epoch. Upstream's name.
pub const COOLDOWN: &str = "kubernetes.dask.org/cooldown-until";

/// What upstream's framework puts on objects; nobody removes it after the
/// change of operators but us.
pub const KOPF_FINALIZER: &str = "kopf.zalando.org/KopfFinalizerMarker";
/// Prefix of the framework's bookkeeping annotations.
pub const KOPF_PREFIX: &str = "kopf.zalando.org";

/// Annotations that stay on the resource they are on.
const PRIVATE_PREFIXES: [&str; 3] = [KOPF_PREFIX, "kubectl.kubernetes.io", "oxidask.io/"];

/// Labels and annotations that a child inherits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inherited {
    /// Labels, without those of the component.
    pub labels: Map,
    /// Annotations.
    pub annotations: Map,
}

impl Inherited {
    /// Those of the parent's own metadata, then those of the part of its spec
    /// that the child is made from; the later win.
    pub fn new(parent: &ObjectMeta, part: Option<&SubMetadata>) -> Self {
        let mut inherited = Self {
            labels: parent.labels.clone().unwrap_or_default(),
            annotations: parent.annotations.clone().unwrap_or_default(),
        };
        inherited.annotations.retain(|name, _| {
            !PRIVATE_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
        });
        if let Some(part) = part {
            inherited
                .labels
                .extend(part.labels.clone().unwrap_or_default());
            inherited
                .annotations
                .extend(part.annotations.clone().unwrap_or_default());
        }
        inherited
    }

    /// Adds labels of `owner` that are not there yet.
    #[must_use]
    pub fn filled_from(mut self, owner: Option<&Map>) -> Self {
        for (name, value) in owner.into_iter().flatten() {
            self.labels
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        self
    }

    /// The labels with those of the component put over them.
    pub fn labels_with(&self, component: &Map) -> Map {
        let mut labels = self.labels.clone();
        labels.extend(component.clone());
        labels
    }
}

/// Labels of a scheduler's Service.
pub fn scheduler_service(cluster: &str) -> Map {
    map([(CLUSTER, cluster), (COMPONENT, SCHEDULER)])
}

/// Labels of a scheduler's Deployment and pod.
pub fn scheduler(cluster: &str) -> Map {
    map([(CLUSTER, cluster), (COMPONENT, SCHEDULER), (ISTIO, "false")])
}

/// Labels of a worker's Deployment and pod.
pub fn worker(cluster: &str, group: &str) -> Map {
    map([
        (CLUSTER, cluster),
        (GROUP, group),
        (COMPONENT, WORKER),
        (ISTIO, "false"),
    ])
}

/// Labels of a cluster's default group.
pub fn default_group(cluster: &str) -> Map {
    map([(CLUSTER, cluster), (COMPONENT, WORKER_GROUP)])
}

/// The label of everything that belongs to a cluster and is no pod.
pub fn cluster(cluster: &str) -> Map {
    map([(CLUSTER, cluster)])
}

/// Labels of a job's runner pod.
pub fn job_runner(cluster: &str) -> Map {
    map([
        (CLUSTER, cluster),
        (COMPONENT, JOB_RUNNER),
        (ISTIO, "false"),
    ])
}

/// Labels of an experiment's DaskCluster, which has the experiment's name.
pub fn experiment_cluster(experiment: &str) -> Map {
    map([(CLUSTER, experiment), (EXPERIMENT, experiment)])
}

/// Labels of an experiment's worker group, and with it of its workers.
pub fn experiment_group(experiment: &str, nodes: i64, cores: i64) -> Map {
    map([
        (EXPERIMENT, experiment),
        (NODES, &nodes.to_string()),
        (CORES, &cores.to_string()),
    ])
}

/// Labels of an experiment's runner pod. `cell`: see [`CELL`].
pub fn experiment_runner(experiment: &str, cell: &str, attempt: i64) -> Map {
    map([
        (CLUSTER, experiment),
        (EXPERIMENT, experiment),
        (COMPONENT, EXPERIMENT_RUNNER),
        (CELL, cell),
        (ATTEMPT, &attempt.to_string()),
        (ISTIO, "false"),
    ])
}

/// A label selector in the form of the scale subresource.
pub fn group_selector(group: &str) -> String {
    format!("{COMPONENT}={WORKER},{GROUP}={group}")
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> Map {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_wins_over_the_parent_and_the_component_over_both() {
        let parent = ObjectMeta {
            labels: Some(map([("a", "parent"), (COMPONENT, "mine")])),
            annotations: Some(map([
                ("kopf.zalando.org/last-handled-configuration", "{}"),
                ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
                ("note", "parent"),
            ])),
            ..ObjectMeta::default()
        };
        let part = SubMetadata {
            labels: Some(map([("a", "part")])),
            annotations: Some(map([("note", "part")])),
        };
        let inherited = Inherited::new(&parent, Some(&part));
        assert_eq!(inherited.annotations, map([("note", "part")]));
        let labels = inherited.labels_with(&scheduler_service("c"));
        assert_eq!(
            labels,
            map([("a", "part"), (CLUSTER, "c"), (COMPONENT, "scheduler")])
        );
    }
}
