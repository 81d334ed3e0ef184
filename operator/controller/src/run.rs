//! The operator as a whole: watches, workers on the queue, and their end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use kube::core::DeserializeGuard;
use kube::{Client, ResourceExt as _};
use oxidask_operator_api::{
    DaskAutoscaler, DaskCluster, DaskJob, DaskWorkerGroup, GROUP, PodSpec, ScalingExperiment,
    VERSION, experiment as ours,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::context::{Action, Capabilities, Context, Memory, Settings};
use crate::error::{Class, Error, backoff};
use crate::events::Events;
use crate::labels::{COMPONENT, EXPERIMENT_RUNNER, JOB_RUNNER, SCHEDULER, WORKER};
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::queue::{Key, Kind, Queue};
use crate::scheduler::SchedulerApi;
use crate::stores::{Stores, Triggers};
use crate::watch::{Selection, guarded, plain, watch};
use crate::{autoscaler, cluster, connected, experiment, job, worker_group};

/// How long running reconciliations and retirements get to end at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether the CRDs changed.
const REDISCOVER: Duration = Duration::from_secs(300);
/// How soon experiments are watched after their resource type was discovered.
const APPEARS: Duration = Duration::from_secs(5);
/// How long a resource waits for the permission that the operator lacks.
const FORBIDDEN: Duration = Duration::from_secs(60);
/// A reconciliation that takes longer than this is stuck.
const STUCK: Duration = Duration::from_secs(300);

/// What an operator is made of.
pub struct Parts {
    /// To the API server.
    pub client: Client,
    /// How schedulers are asked.
    pub scheduler: Arc<dyn SchedulerApi>,
    /// Where the numbers go.
    pub metrics: Metrics,
    /// Where Events go.
    pub events: Events,
    /// The user's settings.
    pub settings: Settings,
    /// The namespaces to work on.
    pub namespaces: Namespaces,
}

/// An operator that can be run.
#[derive(Clone)]
pub struct Operator {
    context: Context,
    namespaces: Arc<Namespaces>,
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Watches that have not shown a complete list yet.
    unlisted: AtomicUsize,
    running: AtomicBool,
    /// Another process leads.
    standing_by: AtomicBool,
    listed: Notify,
}

impl Operator {
    /// An operator of these parts; nothing happens yet.
    pub fn new(parts: Parts) -> Self {
        let context = Context {
            client: parts.client,
            stores: Stores::default(),
            queue: Arc::new(Queue::default()),
            metrics: parts.metrics,
            events: parts.events,
            scheduler: parts.scheduler,
            settings: parts.settings,
            capabilities: Arc::new(RwLock::new(Capabilities::default())),
            clock: Clock::new(),
            memory: Arc::new(Memory::default()),
            end: CancellationToken::new(),
        };
        Self {
            context,
            namespaces: Arc::new(parts.namespaces),
            progress: Arc::new(Progress::default()),
        }
    }

    /// Works until `shutdown`, then lets what is under way end. Can be run once.
    pub async fn run(&self, shutdown: CancellationToken) {
        let _end = self.context.end.clone().drop_guard();
        let discovered = self.discover_until_found();
        if shutdown.run_until_cancelled(discovered).await.is_none() {
            return;
        }
        let mut tasks = JoinSet::new();
        self.watch_all(&mut tasks);
        let rediscover = self.clone();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(REDISCOVER).await;
                if let Ok(found) = discover(&rediscover.context.client).await {
                    rediscover.set_capabilities(found);
                }
            }
        });
        // Once more, because the resource types may have been on their way in
        // when they were first looked for.
        let known = async {
            self.all_listed().await;
            self.discover_until_found().await;
        };
        if shutdown.run_until_cancelled(known).await.is_none() {
            return;
        }
        self.progress.running.store(true, Ordering::Relaxed);
        info!("all resources are known, work begins");
        tasks.spawn(connected::count(self.context.clone()));
        let mut workers = JoinSet::new();
        for _ in 0..self.context.settings.concurrency.max(1) {
            workers.spawn(work(self.context.clone(), shutdown.clone()));
        }
        shutdown.cancelled().await;
        info!("shutting down: what is under way ends first");
        let ended = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            warn!("reconciliations did not end in time; the next process goes on with them");
        }
    }

    /// Whether work goes on, or why not: for the liveness probe.
    ///
    /// # Errors
    /// A sentence, if a reconciliation is stuck.
    pub fn health(&self) -> Result<(), String> {
        let depth = self.context.queue.depth();
        if depth.longest > STUCK {
            return Err(format!(
                "a reconciliation has been running for {:?}",
                depth.longest
            ));
        }
        if depth.oldest > STUCK {
            return Err(format!(
                "a resource has been waiting for {:?}",
                depth.oldest
            ));
        }
        Ok(())
    }

    /// Whether everything is known and work has begun, or another process
    /// leads: for the readiness probe.
    pub fn is_ready(&self) -> bool {
        self.progress.running.load(Ordering::Relaxed)
            || self.progress.standing_by.load(Ordering::Relaxed)
    }

    /// Notes whether another process leads.
    pub fn stand_by(&self, standing_by: bool) {
        self.progress
            .standing_by
            .store(standing_by, Ordering::Relaxed);
    }

    /// Brings the metrics that are read off the state up to date.
    pub fn sample_metrics(&self) {
        let context = &self.context;
        context.metrics.queue(context.queue.depth());
        let mut counts = [("Created", 0), ("Pending", 0), ("Running", 0), ("Error", 0)];
        for cluster in context.stores.clusters.all() {
            let phase = cluster
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            if let Some((_, count)) = counts.iter_mut().find(|(name, _)| Some(*name) == phase) {
                *count += 1;
            }
        }
        context.metrics.phases(&counts);
        let clusters = context.stores.clusters.all();
        let infos: Vec<_> = clusters.iter().map(|cluster| info_of(cluster)).collect();
        context.metrics.clusters(&infos);
        let mut jobs = BTreeMap::new();
        for job in context.stores.jobs.all() {
            let status = job.status.as_ref().and_then(|s| s.job_status.clone());
            *jobs.entry(status.unwrap_or_default()).or_default() += 1;
        }
        context.metrics.jobs(&jobs);
    }

    async fn discover_until_found(&self) {
        let mut failures = 0;
        loop {
            match discover(&self.context.client).await {
                Ok(found) => return self.set_capabilities(found),
                Err(error) => {
                    warn!(
                        error = error.sentence(),
                        "the resource types of {GROUP} cannot be found; install the chart oxidask-crds, or the files of crds/"
                    );
                    tokio::time::sleep(backoff(failures, 0.0).min(Duration::from_secs(5))).await;
                    failures += 1;
                }
            }
        }
    }

    fn set_capabilities(&self, found: Capabilities) {
        let mut known = self
            .context
            .capabilities
            .write()
            .expect("no holder of this lock panics");
        if *known != found {
            info!(?found, "what the installed resource types can do");
            *known = found;
        }
    }

    fn watch_all(&self, tasks: &mut JoinSet<()>) {
        let scopes: Vec<Option<String>> = match self.namespaces.names() {
            None => vec![None],
            Some(names) => names
                .into_iter()
                .map(|name| Some(name.to_owned()))
                .collect(),
        };
        let triggers = Triggers {
            queue: Arc::clone(&self.context.queue),
            stores: self.context.stores.clone(),
            memory: Arc::clone(&self.context.memory),
            metrics: self.context.metrics.clone(),
        };
        let component = |one: &str| Some(format!("{COMPONENT}{one}"));
        for scope in scopes {
            let (stores, t) = (&self.context.stores, &triggers);
            let of = |labels| Selection {
                namespace: scope.clone(),
                labels,
                within: Arc::clone(&self.namespaces),
            };
            let all = of(None);
            let (a, b, c, d) = (t.clone(), t.clone(), t.clone(), t.clone());
            self.watch_one::<DeserializeGuard<DaskCluster>, _>(
                tasks,
                all.clone(),
                &stores.clusters,
                guarded,
                move |x| a.cluster(x),
            );
            self.watch_one::<DeserializeGuard<DaskWorkerGroup>, _>(
                tasks,
                all.clone(),
                &stores.groups,
                guarded,
                move |x| b.group(x),
            );
            self.watch_one::<DeserializeGuard<DaskJob>, _>(
                tasks,
                all.clone(),
                &stores.jobs,
                guarded,
                move |x| c.job(x),
            );
            self.watch_one::<DeserializeGuard<DaskAutoscaler>, _>(
                tasks,
                all,
                &stores.autoscalers,
                guarded,
                move |x| d.autoscaler(x),
            );
            let (a, b, c) = (t.clone(), t.clone(), t.clone());
            let both = component(&format!(" in ({SCHEDULER},{WORKER})"));
            self.watch_one(tasks, of(both), &stores.deployments, plain, move |x| {
                a.deployment(x)
            });
            self.watch_one(
                tasks,
                of(component(&format!("={SCHEDULER}"))),
                &stores.services,
                plain,
                move |x| b.service(x),
            );
            let four = component(&format!(
                " in ({SCHEDULER},{WORKER},{JOB_RUNNER},{EXPERIMENT_RUNNER})"
            ));
            self.watch_one(tasks, of(four), &stores.pods, plain, move |x| c.pod(x));
            self.watch_experiments(tasks, of(None), t.clone());
        }
    }

    /// Watches experiments as soon as their resource type is installed: the
    /// stock chart does not bring it, and everything else works without.
    fn watch_experiments(&self, tasks: &mut JoinSet<()>, selection: Selection, to: Triggers) {
        let context = self.context.clone();
        let known = context.can().experiments;
        let progress = Arc::clone(&self.progress);
        if known {
            progress.unlisted.fetch_add(1, Ordering::Relaxed);
        }
        tasks.spawn(async move {
            while !context.can().experiments {
                tokio::time::sleep(APPEARS).await;
            }
            let listed = move || {
                if known {
                    progress.unlisted.fetch_sub(1, Ordering::Relaxed);
                    progress.listed.notify_waiters();
                }
            };
            watch::<DeserializeGuard<ScalingExperiment>, _>(
                context.client.clone(),
                selection,
                Arc::clone(&context.stores.experiments),
                context.metrics.clone(),
                guarded,
                move |x| to.experiment(x),
                listed,
            )
            .await;
        });
    }

    fn watch_one<W, K>(
        &self,
        tasks: &mut JoinSet<()>,
        selection: Selection,
        store: &Arc<crate::store::Store<K>>,
        decode: fn(W) -> Option<K>,
        changed: impl Fn(&K) + Send + 'static,
    ) where
        W: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
        K: kube::Resource<DynamicType = ()> + PartialEq + Send + Sync + 'static,
    {
        self.progress.unlisted.fetch_add(1, Ordering::Relaxed);
        let progress = Arc::clone(&self.progress);
        let listed = move || {
            progress.unlisted.fetch_sub(1, Ordering::Relaxed);
            progress.listed.notify_waiters();
        };
        let (client, metrics) = (self.context.client.clone(), self.context.metrics.clone());
        tasks.spawn(watch(
            client,
            selection,
            Arc::clone(store),
            metrics,
            decode,
            changed,
            listed,
        ));
    }

    async fn all_listed(&self) {
        loop {
            let listed = self.progress.listed.notified();
            if self.progress.unlisted.load(Ordering::Relaxed) == 0 {
                return;
            }
            listed.await;
        }
    }
}

/// What a cluster is made of, for its metric.
fn info_of(cluster: &DaskCluster) -> [String; 6] {
    let image = |pod: &PodSpec| {
        let containers = pod.0.get("containers");
        let image = containers.and_then(|containers| containers[0]["image"].as_str());
        image.unwrap_or_default().to_owned()
    };
    let rust = cluster.spec.rust.clone().unwrap_or_default();
    let replaced = [("scheduler", rust.scheduler), ("worker", rust.worker)];
    let replaced = replaced.into_iter().filter(|(_, on)| *on);
    let replaced: Vec<&str> = replaced.map(|(name, _)| name).collect();
    [
        cluster.namespace().unwrap_or_default(),
        cluster.name_any(),
        image(&cluster.spec.scheduler.spec),
        image(&cluster.spec.worker.spec),
        replaced.join("+"),
        cluster.spec.tls_on().is_some().to_string(),
    ]
}

/// What the installed CRDs can do.
async fn discover(client: &Client) -> Result<Capabilities, Error> {
    let list = client
        .list_api_group_resources(&format!("{GROUP}/{VERSION}"))
        .await
        .map_err(Error::api(format!(
            "list the resource types of {GROUP}/{VERSION}"
        )))?;
    let experiments = match client
        .list_api_group_resources(&format!("{}/{}", ours::GROUP, ours::VERSION))
        .await
    {
        Ok(list) => list
            .resources
            .iter()
            .any(|resource| resource.name == "scalingexperiments/status"),
        Err(kube::Error::Api(status)) if status.code == 404 => false,
        Err(error) => {
            let what = format!(
                "list the resource types of {}/{}",
                ours::GROUP,
                ours::VERSION
            );
            return Err(Error::api(what)(error));
        }
    };
    let has = |name: &str| list.resources.iter().any(|resource| resource.name == name);
    Ok(Capabilities {
        cluster_status: has("daskclusters/status"),
        group_status: has("daskworkergroups/status"),
        autoscaler_status: has("daskautoscalers/status"),
        experiments,
    })
}

/// Takes keys off the queue until the end.
async fn work(context: Context, shutdown: CancellationToken) {
    while let Some(key) = shutdown.run_until_cancelled(context.queue.next()).await {
        let began = Instant::now();
        let outcome = reconcile(&context, &key).await;
        let result = settle(&context, &key, outcome).await;
        context
            .metrics
            .reconciled(key.kind, result, began.elapsed());
        context.queue.done(&key);
    }
}

async fn reconcile(context: &Context, key: &Key) -> Result<Action, Error> {
    // Boxed: the five futures are of very different sizes.
    match key.kind {
        Kind::Cluster => Box::pin(cluster::reconcile(context, key)).await,
        Kind::WorkerGroup => Box::pin(worker_group::reconcile(context, key)).await,
        Kind::Job => Box::pin(job::reconcile(context, key)).await,
        Kind::Autoscaler => Box::pin(autoscaler::reconcile(context, key)).await,
        Kind::Experiment => Box::pin(experiment::reconcile(context, key)).await,
    }
}

/// Decides when a key comes again. Gives the word for the metric.
async fn settle(context: &Context, key: &Key, outcome: Result<Action, Error>) -> &'static str {
    let error = match outcome {
        Ok(action) => {
            context.memory.is_new_error(key, None);
            if let Action::After(delay) = action {
                context.queue.add_after(key.clone(), delay);
            }
            return "ok";
        }
        Err(error) => error,
    };
    let (kind, namespace, name) = (key.kind.as_str(), &key.namespace, &key.name);
    let reason = error.reason();
    let failures = context.memory.failures(key);
    if context.memory.is_new_error(key, Some(&reason)) {
        warn!(
            kind,
            namespace,
            name,
            error = error.sentence(),
            "a reconciliation failed"
        );
    }
    match error.class() {
        Class::Transient => {
            context
                .queue
                .add_after(key.clone(), backoff(failures, jitter(key)));
            "retry"
        }
        // Waits for a change; once in a while it is tried all the same, because
        // what was refused may depend on something that is not watched.
        Class::Terminal => {
            context
                .queue
                .add_after(key.clone(), backoff(failures + 2, jitter(key)));
            "terminal"
        }
        Class::Forbidden => {
            context.queue.add_after(key.clone(), FORBIDDEN);
            "forbidden"
        }
    }
}

/// A number from 0 to 1 that differs between resources.
fn jitter(key: &Key) -> f64 {
    let sum: u32 = key
        .name
        .bytes()
        .chain(key.namespace.bytes())
        .map(u32::from)
        .sum();
    f64::from(sum % 100) / 100.0
}
