//! Kubernetes' own objects, cut down to what the operator reads of them.
//!
//! Watches decode into these, so that ten thousand Deployments take a few
//! megabytes and a field that we do not know cannot make a list unreadable.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, core::v1::Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is read of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[resource(inherit = Deployment)]
#[serde(default)]
pub struct DeploymentView {
    /// Name, labels, annotations, owners.
    pub metadata: ObjectMeta,
    /// The wanted number of pods.
    pub spec: DeploymentSpecView,
    /// The number of ready pods.
    pub status: DeploymentStatusView,
}

/// What is read of a Deployment's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentSpecView {
    /// Wanted pods.
    pub replicas: Option<i64>,
}

/// What is read of a Deployment's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatusView {
    /// Pods that are ready.
    pub ready_replicas: i64,
    /// What the Deployment's controller could not do, for example because of
    /// a quota.
    pub conditions: Vec<ConditionView>,
}

/// What is read of a condition of a pod or Deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionView {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What is read of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[resource(inherit = Service)]
#[serde(default)]
pub struct ServiceView {
    /// Name, labels, annotations, owners.
    pub metadata: ObjectMeta,
    /// Type and ports.
    pub spec: ServiceSpecView,
    /// The load balancer's addresses.
    pub status: ServiceStatusView,
}

/// What is read of a Service's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceSpecView {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The ports.
    pub ports: Vec<ServicePortView>,
}

/// What is read of a port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePortView {
    /// Its name.
    pub name: String,
    /// The port of the Service.
    pub port: u16,
    /// The port of the pod: a number, or the name of a container's port.
    pub target_port: Value,
}

/// What is read of a Service's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatusView {
    /// Of a Service of type LoadBalancer.
    pub load_balancer: LoadBalancerView,
}

/// What is read of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadBalancerView {
    /// Its addresses; none while it is being made.
    pub ingress: Vec<Value>,
}

/// What is read of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Resource)]
#[resource(inherit = Pod)]
#[serde(default)]
pub struct PodView {
    /// Name, labels, annotations, owners.
    pub metadata: ObjectMeta,
    /// The ports of its containers.
    pub spec: PodSpecView,
    /// Phase, address and what keeps it from running.
    pub status: PodStatusView,
}

/// What is read of a pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpecView {
    /// The containers.
    pub containers: Vec<ContainerView>,
    /// The node it is on.
    pub node_name: Option<String>,
}

/// What is read of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerView {
    /// Its ports.
    pub ports: Vec<ContainerPortView>,
    /// What is done before it ends.
    pub lifecycle: LifecycleView,
}

/// What is read of a container's hooks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LifecycleView {
    /// The hook before the signal to end.
    pub pre_stop: HookView,
}

/// What is read of a hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HookView {
    /// A program.
    pub exec: Option<ExecView>,
}

/// What is read of a program of a hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecView {}

/// What is read of a container's port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPortView {
    /// Its name.
    pub name: String,
    /// Its number.
    pub container_port: u16,
}

/// What is read of a pod's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatusView {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// For example `Evicted`.
    pub reason: String,
    /// `Ready`, `PodScheduled` and others.
    pub conditions: Vec<ConditionView>,
    /// State of each init container.
    pub init_container_statuses: Vec<ContainerStatusView>,
    /// State of each container.
    pub container_statuses: Vec<ContainerStatusView>,
}

/// What is read of a container's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatusView {
    /// The container.
    pub name: String,
    /// By state (`waiting`, `running`, `terminated`), its reason and message.
    pub state: BTreeMap<String, StateView>,
}

/// What is read of a container's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateView {
    /// One word, for example `ImagePullBackOff`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Of a container that ended.
    pub exit_code: Option<i64>,
    /// When a container started that runs or ended: RFC 3339.
    pub started_at: Option<String>,
    /// When a container ended: RFC 3339.
    pub finished_at: Option<String>,
}

impl DeploymentView {
    /// Whether its pod is ready.
    pub fn is_ready(&self) -> bool {
        self.status.ready_replicas > 0
    }

    /// Why it has no pod at all, if the API server refuses one.
    pub fn refused(&self) -> Option<&ConditionView> {
        self.status
            .conditions
            .iter()
            .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")
    }
}

impl PodView {
    /// Whether it takes traffic.
    pub fn is_ready(&self) -> bool {
        self.metadata.deletion_timestamp.is_none()
            && self
                .status
                .conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
    }

    /// Whether Kubernetes took its readiness away because its node does not
    /// answer: then, and only then, it is not ready without a reason while the
    /// kubelet's last word was that all containers are.
    fn is_on_a_lost_node(&self) -> bool {
        let says = |type_: &str, status: &str| {
            let mut conditions = self.status.conditions.iter();
            conditions.any(|c| c.type_ == type_ && c.status == status && c.reason.is_empty())
        };
        says("Ready", "False") && says("ContainersReady", "True")
    }

    /// Whether it is to go, and its worker is drained before it does.
    pub fn is_drained_first(&self) -> bool {
        let hook = |container: &ContainerView| container.lifecycle.pre_stop.exec.is_some();
        self.metadata.deletion_timestamp.is_some() && self.spec.containers.iter().any(hook)
    }

    /// The Deployment it belongs to: the name of its ReplicaSet without the
    /// hash of the template.
    pub fn deployment(&self) -> Option<&str> {
        let owners = self.metadata.owner_references.as_ref()?;
        let set = owners.iter().find(|owner| owner.kind == "ReplicaSet")?;
        let hash = self.metadata.labels.as_ref()?.get("pod-template-hash")?;
        set.name.strip_suffix(hash.as_str())?.strip_suffix('-')
    }

    /// What keeps the pod from running, as one word and a sentence.
    pub fn trouble(&self) -> Option<(String, String)> {
        let status = &self.status;
        if let Some(c) = status.conditions.iter().find(|c| {
            c.type_ == "PodScheduled" && c.status == "False" && c.reason == "Unschedulable"
        }) {
            return Some((c.reason.clone(), c.message.clone()));
        }
        for container in status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
        {
            if let Some(waiting) = container.state.get("waiting")
                && !matches!(
                    waiting.reason.as_str(),
                    "" | "ContainerCreating" | "PodInitializing"
                )
            {
                let message = format!("container {}: {}", container.name, waiting.message);
                // The kubelet says the one while it tries and the other while it
                // waits; to the owner it is one and the same.
                let reason = match waiting.reason.as_str() {
                    "ErrImagePull" => "ImagePullBackOff",
                    reason => reason,
                };
                return Some((reason.to_owned(), message));
            }
        }
        if self.is_on_a_lost_node() {
            let node = self.spec.node_name.as_deref().unwrap_or_default();
            let message = format!("its node {node} does not answer");
            return Some(("NodeNotReady".to_owned(), message));
        }
        if status.phase == "Failed" {
            let reason = if status.reason.is_empty() {
                "Failed"
            } else {
                &status.reason
            };
            return Some((reason.to_owned(), "the pod failed".to_owned()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(conditions: &Value) -> PodView {
        serde_json::from_value(json!({
            "metadata": {"name": "w"},
            "spec": {"nodeName": "node-2"},
            "status": {"phase": "Running", "conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn pod_that_lost_its_readiness_with_its_node_names_the_node() {
        let lost = pod(&json!([
            {"type": "Ready", "status": "False"},
            {"type": "ContainersReady", "status": "True"},
        ]));
        let (reason, message) = lost.trouble().unwrap();
        assert_eq!(reason, "NodeNotReady");
        assert!(message.contains("node-2"), "{message}");
    }

    #[test]
    fn pod_that_starts_or_waits_for_a_gate_has_no_trouble() {
        for reason in ["ContainersNotReady", "ReadinessGatesNotReady"] {
            let pod = pod(&json!([
                {"type": "Ready", "status": "False", "reason": reason},
                {"type": "ContainersReady", "status": "True"},
            ]));
            assert_eq!(pod.trouble(), None);
        }
    }
}
