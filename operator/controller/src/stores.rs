//! One store per watched kind, and which resources a change concerns.

use std::sync::Arc;
use std::time::Duration;

use kube::{Resource, ResourceExt as _};
use oxidask_operator_api::{
    DaskAutoscaler, DaskCluster, DaskJob, DaskWorkerGroup, ScalingExperiment,
};

use crate::context::Memory;
use crate::labels::{self, CLUSTER, COMPONENT, EXPERIMENT, GROUP};
use crate::metrics::Metrics;
use crate::queue::{Key, Kind, Queue};
use crate::store::Store;
use crate::views::{DeploymentView, PodView, ServiceView};

/// How long changes of children are collected before their parent is looked
/// at: a group of a hundred workers starts with a few looks, not hundreds.
const COLLECT: Duration = Duration::from_millis(100);

/// What the operator has seen of the cluster it works on.
#[derive(Clone, Debug)]
pub struct Stores {
    /// DaskClusters.
    pub clusters: Arc<Store<DaskCluster>>,
    /// DaskWorkerGroups, indexed by cluster.
    pub groups: Arc<Store<DaskWorkerGroup>>,
    /// DaskJobs.
    pub jobs: Arc<Store<DaskJob>>,
    /// DaskAutoscalers, indexed by cluster.
    pub autoscalers: Arc<Store<DaskAutoscaler>>,
    /// ScalingExperiments, if the resource type is installed.
    pub experiments: Arc<Store<ScalingExperiment>>,
    /// Deployments of schedulers and workers; those of workers are indexed by
    /// group.
    pub deployments: Arc<Store<DeploymentView>>,
    /// Services of schedulers.
    pub services: Arc<Store<ServiceView>>,
    /// Pods of schedulers, workers and runners, indexed by [`pods_of`].
    pub pods: Arc<Store<PodView>>,
}

impl Default for Stores {
    fn default() -> Self {
        Self {
            clusters: Arc::new(Store::new(|_| None)),
            groups: Arc::new(Store::new(|group| Some(group.spec.cluster.clone()))),
            jobs: Arc::new(Store::new(|_| None)),
            autoscalers: Arc::new(Store::new(|autoscaler| {
                Some(autoscaler.spec.cluster.clone())
            })),
            experiments: Arc::new(Store::new(|_| None)),
            deployments: Arc::new(Store::new(|deployment| label(deployment, GROUP))),
            services: Arc::new(Store::new(|_| None)),
            pods: Arc::new(Store::new(|pod| {
                let component = label(pod, COMPONENT)?;
                let of = if component == labels::WORKER {
                    GROUP
                } else {
                    CLUSTER
                };
                Some(pods_of(&component, &label(pod, of)?))
            })),
        }
    }
}

/// The index word of the pods of one component of a cluster, group, job or
/// experiment.
pub fn pods_of(component: &str, name: &str) -> String {
    format!("{component}/{name}")
}

fn label<K: Resource>(object: &K, name: &str) -> Option<String> {
    object.meta().labels.as_ref()?.get(name).cloned()
}

/// Puts into the queue what a change concerns.
#[derive(Clone, Debug)]
pub(crate) struct Triggers {
    pub(crate) queue: Arc<Queue>,
    pub(crate) stores: Stores,
    pub(crate) memory: Arc<Memory>,
    pub(crate) metrics: Metrics,
}

impl Triggers {
    fn soon(&self, kind: Kind, namespace: Option<String>, name: Option<String>) {
        if let (Some(namespace), Some(name)) = (namespace, name) {
            self.queue
                .add_after(Key::new(kind, namespace, name), COLLECT);
        }
    }

    /// The experiment that an object was made for.
    fn experiment_of<K: Resource>(&self, object: &K) {
        if let (Some(namespace), Some(name)) =
            (object.meta().namespace.clone(), label(object, EXPERIMENT))
        {
            self.soon(Kind::Experiment, Some(namespace), Some(name));
        }
    }

    pub(crate) fn experiment(&self, experiment: &ScalingExperiment) {
        self.queue.add(Key::new(
            Kind::Experiment,
            experiment.namespace().unwrap_or_default(),
            experiment.name_any(),
        ));
    }

    pub(crate) fn cluster(&self, cluster: &DaskCluster) {
        self.experiment_of(cluster);
        let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
        self.queue.add(Key::new(Kind::Cluster, &namespace, &name));
        for group in self.stores.groups.indexed(&namespace, &name) {
            self.queue
                .add(Key::new(Kind::WorkerGroup, &namespace, group.name_any()));
        }
        for autoscaler in self.stores.autoscalers.indexed(&namespace, &name) {
            if autoscaler.owner_references().is_empty() {
                self.queue.add(Key::new(
                    Kind::Autoscaler,
                    &namespace,
                    autoscaler.name_any(),
                ));
            }
        }
        if self.stores.jobs.get(&namespace, &name).is_some() {
            self.queue.add(Key::new(Kind::Job, &namespace, &name));
        }
    }

    pub(crate) fn group(&self, group: &DaskWorkerGroup) {
        self.experiment_of(group);
        let namespace = group.namespace().unwrap_or_default();
        self.queue
            .add(Key::new(Kind::WorkerGroup, &namespace, group.name_any()));
        self.soon(
            Kind::Cluster,
            Some(namespace),
            Some(group.spec.cluster.clone()),
        );
    }

    pub(crate) fn job(&self, job: &DaskJob) {
        self.queue.add(Key::new(
            Kind::Job,
            job.namespace().unwrap_or_default(),
            job.name_any(),
        ));
    }

    pub(crate) fn autoscaler(&self, autoscaler: &DaskAutoscaler) {
        let namespace = autoscaler.namespace().unwrap_or_default();
        self.queue
            .add(Key::new(Kind::Autoscaler, namespace, autoscaler.name_any()));
    }

    pub(crate) fn deployment(&self, deployment: &DeploymentView) {
        self.experiment_of(deployment);
        match label(deployment, GROUP) {
            Some(group) => {
                let namespace = deployment.namespace().unwrap_or_default();
                let key = Key::new(Kind::WorkerGroup, namespace, group);
                self.heard_of(deployment, &key);
                self.queue.add_after(key, COLLECT);
            }
            None => {
                let (namespace, cluster) = (deployment.namespace(), label(deployment, CLUSTER));
                // Workers speak TLS as the scheduler does that runs.
                if deployment.annotations().contains_key(labels::TLS)
                    && let (Some(namespace), Some(cluster)) = (&namespace, &cluster)
                {
                    for group in self.stores.groups.indexed(namespace, cluster) {
                        self.soon(Kind::WorkerGroup, group.namespace(), Some(group.name_any()));
                    }
                }
                self.soon(Kind::Cluster, namespace, cluster);
            }
        }
    }

    /// Measures how long a creation of ours took to come back.
    fn heard_of(&self, deployment: &DeploymentView, group: &Key) {
        let is_new = deployment.metadata.generation == Some(1) && !deployment.is_ready();
        if is_new && let Some(lag) = self.memory.lag(group, &deployment.name_any()) {
            self.metrics.watch_lag(lag);
        }
    }

    pub(crate) fn service(&self, service: &ServiceView) {
        if let (Some(namespace), Some(cluster)) = (service.namespace(), label(service, CLUSTER)) {
            self.queue.add(Key::new(Kind::Cluster, namespace, cluster));
        }
    }

    pub(crate) fn pod(&self, pod: &PodView) {
        self.experiment_of(pod);
        let cluster = label(pod, CLUSTER);
        match label(pod, COMPONENT).as_deref() {
            Some(labels::WORKER) => {
                self.soon(Kind::WorkerGroup, pod.namespace(), label(pod, GROUP))
            }
            Some(labels::JOB_RUNNER) => {
                if let (Some(namespace), Some(job)) = (pod.namespace(), cluster) {
                    self.queue.add(Key::new(Kind::Job, namespace, job));
                }
            }
            // Done above.
            Some(labels::EXPERIMENT_RUNNER) => {}
            _ => self.soon(Kind::Cluster, pod.namespace(), cluster),
        }
    }
}
