//! An API server in memory, for whole scenarios without a cluster.
//!
//! It keeps objects, versions and watches, knows the status subresource, the
//! three kinds of patches, owner references and finalizers; and it plays the
//! part of kubelet and Deployment controller: a Deployment gets a ready pod at
//! once. Requests can be made to fail, or to stop the caller for good.

mod objects;
mod patch;
pub mod scheduler;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

#[allow(unused_imports)]
pub use serve::{client, client_of};

/// Kind of object (`apps/v1/deployments`), namespace, name.
pub type Path = (String, String, String);

pub const CLUSTERS: &str = "kubernetes.dask.org/v1/daskclusters";
pub const GROUPS: &str = "kubernetes.dask.org/v1/daskworkergroups";
pub const JOBS: &str = "kubernetes.dask.org/v1/daskjobs";
pub const AUTOSCALERS: &str = "kubernetes.dask.org/v1/daskautoscalers";
pub const DEPLOYMENTS: &str = "apps/v1/deployments";
pub const SERVICES: &str = "v1/services";
pub const PODS: &str = "v1/pods";
pub const SECRETS: &str = "v1/secrets";
pub const POLICIES: &str = "networking.k8s.io/v1/networkpolicies";
pub const BUDGETS: &str = "policy/v1/poddisruptionbudgets";
pub const EXPERIMENTS: &str = "oxidask.io/v1alpha1/scalingexperiments";
pub const CONFIG_MAPS: &str = "v1/configmaps";
pub const EVENTS: &str = "events.k8s.io/v1/events";

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out, and its answer never comes.
    DieAfter,
    /// It is not carried out, and no answer comes.
    DieBefore,
    /// It is not carried out, and its answer never comes; the process lives.
    Hang,
    /// It is refused with this status.
    Status(u16),
}

#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<Path, Value>,
    version: u64,
    serial: u64,
    /// The time that objects are stamped with; goes with tokio's.
    clock: oxidask_operator::clock::Clock,
    /// Every change with its version, for watches that start later.
    log: Vec<(u64, String, Value)>,
    watches: Vec<Watch>,
    /// `METHOD path`, of all requests but watches and Events.
    pub calls: Vec<String>,
    /// Rights that requests needed: kind with its subresource, and verb.
    pub rights: BTreeSet<(String, &'static str)>,
    /// Who wrote something, in order; leases do not count.
    pub writers: Vec<&'static str>,
    /// Whose requests for the lease get no answer.
    pub cut_off: Option<&'static str>,
    /// Watches can begin no earlier than at this version.
    pub oldest: u64,
    /// Which of the following requests fails, and how.
    pub fault: Option<(usize, Fault)>,
    /// Kinds without a status subresource.
    pub without_status: Vec<String>,
    /// Whether Deployments get pods, and whether these become ready.
    pub no_pods: bool,
    pub unready_pods: bool,
    /// Groups whose workers' pods find no node.
    pub unschedulable: Vec<String>,
    /// Kinds of which the API server creates none.
    pub refused: Vec<String>,
    /// Kinds of which it cannot create any at the moment.
    pub broken: Vec<String>,
    /// The resource type ScalingExperiment is not installed.
    pub without_experiments: bool,
    /// What pods printed.
    pub logs: BTreeMap<String, String>,
    /// Deployments deleted while the fake scheduler had not retired them.
    pub lost: Vec<String>,
    pub scheduler: scheduler::Book,
}

struct Watch {
    kind: String,
    namespace: Option<String>,
    selector: Vec<String>,
    sender: UnboundedSender<Bytes>,
}

/// A handle to the server.
#[derive(Clone, Default)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    /// Notified when a request met [`Fault::DieAfter`] or [`Fault::DieBefore`].
    pub died: Arc<tokio::sync::Notify>,
}

impl Fake {
    pub fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }

    /// What a user does with `kubectl create`.
    pub fn create(&self, kind: &str, object: Value) {
        self.with(|state| {
            let namespace = object["metadata"]["namespace"]
                .as_str()
                .unwrap_or("ns")
                .to_owned();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            state.put(&(kind.to_owned(), namespace, name), object);
        });
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.with(|state| {
            state
                .objects
                .get(&(kind.to_owned(), "ns".to_owned(), name.to_owned()))
                .cloned()
        })
    }

    /// All objects of a kind whose labels match.
    pub fn list(&self, kind: &str, label: &str, value: &str) -> Vec<Value> {
        self.with(|state| {
            let of_kind = state.objects.iter().filter(|(path, _)| path.0 == kind);
            of_kind
                .filter(|(_, object)| object["metadata"]["labels"][label] == value)
                .map(|(_, object)| object.clone())
                .collect()
        })
    }

    /// What a user does with `kubectl patch --type=merge`.
    pub fn patch(&self, kind: &str, name: &str, change: &Value) {
        self.with(|state| {
            let path = (kind.to_owned(), "ns".to_owned(), name.to_owned());
            let mut object = state.objects[&path].clone();
            patch::merge(&mut object, change);
            state.put(&path, object);
        });
    }

    /// What a user does with `kubectl delete`.
    pub fn delete(&self, kind: &str, name: &str) {
        self.with(|state| state.delete(&(kind.to_owned(), "ns".to_owned(), name.to_owned())));
    }

    /// Waits until `done`, for at most two (virtual) minutes.
    pub async fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..1200 {
            if done(self) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let (left, calls) = self.with(|state| {
            let last = state.calls.len().saturating_sub(12);
            let objects: Vec<String> = state
                .objects
                .iter()
                .filter(|(path, _)| path.0 != EVENTS)
                .map(|(path, object)| format!("{} {}: {}", path.0, path.2, object["status"]))
                .collect();
            (objects.join("\n"), state.calls[last..].to_vec())
        });
        panic!("not within two minutes: {what}; there are\n{left}\nlast requests: {calls:#?}");
    }

    pub fn workers(&self, group: &str) -> Vec<Value> {
        self.list(DEPLOYMENTS, "dask.org/workergroup-name", group)
    }
}

/// A cluster as users write it.
pub fn cluster(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": cluster_spec(replicas),
    })
}

pub fn cluster_spec(replicas: i64) -> Value {
    json!({
        "worker": {"replicas": replicas, "spec": {"containers": [
            {"name": "worker", "image": "dask", "args": ["dask-worker", "--name", "$(DASK_WORKER_NAME)"]},
        ]}},
        "scheduler": {
            "spec": {"containers": [{"name": "scheduler", "image": "dask", "ports": [
                {"name": "tcp-comm", "containerPort": 8786}, {"name": "http-dashboard", "containerPort": 8787},
            ]}]},
            "service": {"type": "ClusterIP", "ports": [
                {"name": "tcp-comm", "port": 8786, "targetPort": "tcp-comm"},
                {"name": "http-dashboard", "port": 8787, "targetPort": "http-dashboard"},
            ]},
        },
    })
}
