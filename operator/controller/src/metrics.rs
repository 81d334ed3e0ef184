//! The operator's metrics. The registry is a value: tests make their own.
//!
//! Every metric has a row in `docs/metrics.md`; a test compares the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oxidask_operator_api::ScalingExperimentStatus;
use prometheus::core::Collector as _;
use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::queue::{Depth, Kind};

/// Seconds; from a reconciliation without a request to a large scale-up.
const RECONCILE_BUCKETS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];
/// Seconds; from an idle worker to one full of results.
const DRAIN_BUCKETS: &[f64] = &[0.05, 0.2, 1.0, 5.0, 15.0, 60.0, 300.0];
/// Seconds from creation to the first time that everything was ready.
const READY_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Seconds that jobs run.
const JOB_BUCKETS: &[f64] = &[1.0, 10.0, 60.0, 600.0, 3600.0, 36_000.0];
/// Seconds; the API server tells its watches within milliseconds.
const LAG_BUCKETS: &[f64] = &[0.005, 0.02, 0.1, 0.5, 2.0, 15.0];
/// Labels of `dask_operator_cluster_info`.
const INFO_LABELS: [&str; 6] = [
    "namespace",
    "cluster",
    "scheduler_image",
    "worker_image",
    "rust",
    "tls",
];

/// Handles to all metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_seconds: HistogramVec,
    queue_due: IntGauge,
    queue_running: IntGauge,
    queue_oldest: prometheus::Gauge,
    watch_events: IntCounterVec,
    watch_failures: IntCounterVec,
    api_requests: IntCounterVec,
    clusters: IntGaugeVec,
    workers: IntGaugeVec,
    time_to_ready: HistogramVec,
    retired: IntCounterVec,
    drain_seconds: HistogramVec,
    target: IntGaugeVec,
    /// By namespace and autoscaler: the groups that `target` has a series of.
    targets: Mutex<BTreeMap<(String, String), BTreeSet<String>>>,
    decisions: IntCounterVec,
    jobs: IntGaugeVec,
    jobs_finished: IntCounterVec,
    job_seconds: HistogramVec,
    cluster_info: IntGaugeVec,
    watch_lag: HistogramVec,
    drain_bytes: IntCounter,
    leader: IntGauge,
    created: IntCounter,
    experiment_cells: IntGaugeVec,
    experiment_seconds: GaugeVec,
    experiment_speedup: GaugeVec,
    experiment_efficiency: GaugeVec,
    cells_ended: IntCounterVec,
}

/// Labels of a line of an experiment's table.
const OF_TABLE: &[&str] = &["namespace", "experiment", "nodes", "cores", "size"];

impl Metrics {
    /// A new registry with every metric in it.
    ///
    /// # Panics
    /// Never: the names are constants and differ, as a test shows.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry
                .register(Box::new(metric.clone()))
                .expect("a new name");
            metric
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry
                .register(Box::new(metric.clone()))
                .expect("a new name");
            metric
        };
        let real = |name: &str, help: &str, labels: &[&str]| {
            let metric = GaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry
                .register(Box::new(metric.clone()))
                .expect("a new name");
            metric
        };
        let plain = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help).expect("a valid name");
            registry
                .register(Box::new(metric.clone()))
                .expect("a new name");
            metric
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let metric = HistogramVec::new(opts, labels).expect("a valid name");
            registry
                .register(Box::new(metric.clone()))
                .expect("a new name");
            metric
        };
        let queue_oldest = prometheus::Gauge::new(
            "dask_operator_queue_oldest_seconds",
            "How long the oldest resource that is due has been waiting",
        )
        .expect("a valid name");
        registry
            .register(Box::new(queue_oldest.clone()))
            .expect("a new name");
        let created = IntCounter::new(
            "dask_operator_workers_created_total",
            "Worker Deployments created",
        )
        .expect("a valid name");
        registry
            .register(Box::new(created.clone()))
            .expect("a new name");
        let drain_bytes = IntCounter::new(
            "dask_operator_drain_bytes_total",
            "Bytes of results moved away from workers that were retired",
        )
        .expect("a valid name");
        registry
            .register(Box::new(drain_bytes.clone()))
            .expect("a new name");
        let inner = Inner {
            reconciles: counter(
                "dask_operator_reconcile_total",
                "Reconciliations by kind and result (ok, retry, terminal, forbidden)",
                &["kind", "result"],
            ),
            reconcile_seconds: histogram(
                "dask_operator_reconcile_duration_seconds",
                "Duration of reconciliations by kind and result",
                &["kind", "result"],
                RECONCILE_BUCKETS,
            ),
            queue_due: plain(
                "dask_operator_queue_depth",
                "Resources that are due and not yet taken",
            ),
            queue_running: plain("dask_operator_reconciling", "Resources being reconciled"),
            queue_oldest,
            watch_events: counter(
                "dask_operator_watch_events_total",
                "Events received by kind",
                &["kind"],
            ),
            watch_failures: counter(
                "dask_operator_watch_failures_total",
                "Watches that failed and were started again, by kind",
                &["kind"],
            ),
            api_requests: counter(
                "dask_operator_api_requests_total",
                "Requests to the API server by method and status code (0: no answer)",
                &["method", "code"],
            ),
            clusters: gauge("dask_operator_clusters", "Clusters by phase", &["phase"]),
            workers: gauge(
                "dask_operator_workers",
                "Workers by namespace, group and state (desired, existing, ready, connected, draining)",
                &["namespace", "group", "state"],
            ),
            time_to_ready: histogram(
                "dask_operator_cluster_time_to_ready_seconds",
                "From the creation of a cluster to the first time that it was ready",
                &[],
                READY_BUCKETS,
            ),
            retired: counter(
                "dask_operator_workers_retired_total",
                "Workers retired, by outcome (unconnected, retired, deadline, suspended)",
                &["outcome"],
            ),
            drain_seconds: histogram(
                "dask_operator_drain_duration_seconds",
                "From the choice of workers to retire to the deletion of the last of them",
                &[],
                DRAIN_BUCKETS,
            ),
            target: gauge(
                "dask_operator_autoscaler_target",
                "Workers that the autoscaler last asked for",
                &["namespace", "autoscaler", "group"],
            ),
            decisions: counter(
                "dask_operator_autoscaler_decisions_total",
                "Decisions of autoscalers by reason",
                &["reason"],
            ),
            jobs_finished: counter(
                "dask_operator_jobs_finished_total",
                "Jobs that ended, by status",
                &["status"],
            ),
            leader: plain(
                "dask_operator_leader",
                "1 while this process is the one that acts",
            ),
            jobs: gauge("dask_operator_jobs", "Jobs by status", &["status"]),
            job_seconds: histogram(
                "dask_operator_job_duration_seconds",
                "From the first time that a job was seen running to its end, by status",
                &["status"],
                JOB_BUCKETS,
            ),
            cluster_info: gauge(
                "dask_operator_cluster_info",
                "1 for each cluster, with what it is made of",
                &INFO_LABELS,
            ),
            watch_lag: histogram(
                "dask_operator_watch_lag_seconds",
                "From the creation of a worker's Deployment to the watch showing it",
                &[],
                LAG_BUCKETS,
            ),
            drain_bytes,
            targets: Mutex::default(),
            created,
            experiment_cells: gauge(
                "dask_operator_experiment_cells",
                "Cells of an experiment by state (all, measured, failed)",
                &["namespace", "experiment", "state"],
            ),
            experiment_seconds: real(
                "dask_operator_experiment_seconds",
                "Median seconds of an experiment's cell",
                OF_TABLE,
            ),
            experiment_speedup: real(
                "dask_operator_experiment_speedup",
                "How many times faster a cell is than the one with the fewest threads",
                OF_TABLE,
            ),
            experiment_efficiency: real(
                "dask_operator_experiment_efficiency",
                "Speed-up by the number of threads compared with that cell's",
                OF_TABLE,
            ),
            cells_ended: counter(
                "dask_operator_experiment_cells_ended_total",
                "Cells that this process saw end, by reason (Measured, or why there is no time)",
                &["reason"],
            ),
            registry: registry.clone(),
        };
        Self(Arc::new(inner))
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    pub fn text(&self) -> String {
        let mut buffer = Vec::new();
        TextEncoder::new()
            .encode(&self.0.registry.gather(), &mut buffer)
            .expect("metrics of valid names can be written to memory");
        String::from_utf8(buffer).expect("the text format is UTF-8")
    }

    /// Names and help texts of all metrics, those without a value included.
    pub fn descriptions(&self) -> Vec<(String, String)> {
        let inner = &self.0;
        let collectors: [&dyn prometheus::core::Collector; 28] = [
            &inner.reconciles,
            &inner.reconcile_seconds,
            &inner.queue_due,
            &inner.queue_running,
            &inner.queue_oldest,
            &inner.watch_events,
            &inner.watch_failures,
            &inner.api_requests,
            &inner.clusters,
            &inner.workers,
            &inner.time_to_ready,
            &inner.retired,
            &inner.drain_seconds,
            &inner.target,
            &inner.decisions,
            &inner.jobs,
            &inner.jobs_finished,
            &inner.job_seconds,
            &inner.cluster_info,
            &inner.watch_lag,
            &inner.drain_bytes,
            &inner.leader,
            &inner.created,
            &inner.experiment_cells,
            &inner.experiment_seconds,
            &inner.experiment_speedup,
            &inner.experiment_efficiency,
            &inner.cells_ended,
        ];
        let mut all: Vec<(String, String)> = collectors
            .iter()
            .flat_map(|metric| metric.desc())
            .map(|desc| (desc.fq_name.clone(), desc.help.clone()))
            .collect();
        all.sort();
        all.dedup();
        all
    }

    pub(crate) fn reconciled(&self, kind: Kind, result: &str, took: Duration) {
        self.0
            .reconciles
            .with_label_values(&[kind.as_str(), result])
            .inc();
        self.0
            .reconcile_seconds
            .with_label_values(&[kind.as_str(), result])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn queue(&self, depth: Depth) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.0.queue_due.set(count(depth.due));
        self.0.queue_running.set(count(depth.running));
        self.0.queue_oldest.set(depth.oldest.as_secs_f64());
    }

    pub(crate) fn watch_event(&self, kind: &str) {
        self.0.watch_events.with_label_values(&[kind]).inc();
    }

    pub(crate) fn watch_failed(&self, kind: &str) {
        self.0.watch_failures.with_label_values(&[kind]).inc();
    }

    pub(crate) fn api_request(&self, method: &str, code: u16) {
        self.0
            .api_requests
            .with_label_values(&[method, &code.to_string()])
            .inc();
    }

    pub(crate) fn phases(&self, counts: &[(&str, i64)]) {
        self.0.clusters.reset();
        for (phase, count) in counts {
            self.0.clusters.with_label_values(&[*phase]).set(*count);
        }
    }

    pub(crate) fn workers(&self, namespace: &str, group: &str, counts: &[(&str, i64)]) {
        for (state, count) in counts {
            self.0
                .workers
                .with_label_values(&[namespace, group, state])
                .set(*count);
        }
    }

    /// Workers of a group that its scheduler knows; `None`: it does not answer.
    pub(crate) fn connected(&self, namespace: &str, group: &str, count: Option<usize>) {
        let labels = [namespace, group, "connected"];
        match count {
            Some(count) => {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.0.workers.with_label_values(&labels).set(count);
            }
            // There is no series for one that never answered.
            None => drop(self.0.workers.remove_label_values(&labels)),
        }
    }

    pub(crate) fn group_gone(&self, namespace: &str, group: &str) {
        for state in ["desired", "existing", "ready", "draining", "connected"] {
            // There is no series yet for a group that was never reconciled.
            let _ = self
                .0
                .workers
                .remove_label_values(&[namespace, group, state]);
        }
    }

    pub(crate) fn cluster_ready(&self, after: Duration) {
        self.0
            .time_to_ready
            .with_label_values(&[] as &[&str])
            .observe(after.as_secs_f64());
    }

    pub(crate) fn retired(&self, outcome: &str, count: usize) {
        self.0
            .retired
            .with_label_values(&[outcome])
            .inc_by(count as u64);
    }

    pub(crate) fn drained(&self, took: Duration) {
        self.0
            .drain_seconds
            .with_label_values(&[] as &[&str])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn autoscaled(
        &self,
        namespace: &str,
        name: &str,
        group: &str,
        target: i64,
        reason: &str,
    ) {
        self.0
            .target
            .with_label_values(&[namespace, name, group])
            .set(target);
        let mut targets = self
            .0
            .targets
            .lock()
            .expect("no holder of this lock panics");
        let of = (namespace.to_owned(), name.to_owned());
        targets.entry(of).or_default().insert(group.to_owned());
        drop(targets);
        self.0.decisions.with_label_values(&[reason]).inc();
    }

    pub(crate) fn autoscaler_gone(&self, namespace: &str, name: &str) {
        let mut targets = self
            .0
            .targets
            .lock()
            .expect("no holder of this lock panics");
        let groups = targets.remove(&(namespace.to_owned(), name.to_owned()));
        for group in groups.into_iter().flatten() {
            let labels = [namespace, name, &group];
            let _ = self.0.target.remove_label_values(&labels);
        }
    }

    pub(crate) fn job_finished(&self, status: &str, ran: Option<Duration>) {
        self.0.jobs_finished.with_label_values(&[status]).inc();
        if let Some(ran) = ran {
            let seconds = self.0.job_seconds.with_label_values(&[status]);
            seconds.observe(ran.as_secs_f64());
        }
    }

    pub(crate) fn jobs(&self, counts: &BTreeMap<String, i64>) {
        self.0.jobs.reset();
        for (status, count) in counts {
            self.0.jobs.with_label_values(&[status]).set(*count);
        }
    }

    /// One series for each cluster: the values of [`INFO_LABELS`].
    pub(crate) fn clusters(&self, infos: &[[String; INFO_LABELS.len()]]) {
        self.0.cluster_info.reset();
        for info in infos {
            self.0.cluster_info.with_label_values(info).set(1);
        }
    }

    pub(crate) fn watch_lag(&self, lag: Duration) {
        let seconds = self.0.watch_lag.with_label_values(&[] as &[&str]);
        seconds.observe(lag.as_secs_f64());
    }

    pub(crate) fn drained_bytes(&self, bytes: u64) {
        self.0.drain_bytes.inc_by(bytes);
    }

    /// Shows the table of an experiment.
    pub(crate) fn experiment(
        &self,
        namespace: &str,
        experiment: &str,
        status: &ScalingExperimentStatus,
    ) {
        let (done, failed) = (status.done.unwrap_or(0), status.failed.unwrap_or(0));
        for (state, count) in [
            ("all", status.cells.unwrap_or(0)),
            ("measured", done - failed),
            ("failed", failed),
        ] {
            self.0
                .experiment_cells
                .with_label_values(&[namespace, experiment, state])
                .set(count);
        }
        for row in &status.table {
            let (nodes, cores, size) = (
                row.nodes.to_string(),
                row.cores.to_string(),
                row.size.to_string(),
            );
            let labels = [namespace, experiment, &nodes, &cores, &size];
            for (metric, value) in [
                (&self.0.experiment_seconds, row.seconds),
                (&self.0.experiment_speedup, row.speedup),
                (&self.0.experiment_efficiency, row.efficiency),
            ] {
                if let Some(value) = value {
                    metric.with_label_values(&labels).set(value);
                }
            }
        }
    }

    /// Counts a cell that ended. `reason`: why it has no time.
    pub(crate) fn cell_ended(&self, reason: Option<&str>) {
        self.0
            .cells_ended
            .with_label_values(&[reason.unwrap_or("Measured")])
            .inc();
    }

    /// Takes away what is shown of an experiment that is gone.
    pub(crate) fn experiment_gone(&self, namespace: &str, experiment: &str) {
        let inner = &self.0;
        for state in ["all", "measured", "failed"] {
            let _ = inner
                .experiment_cells
                .remove_label_values(&[namespace, experiment, state]);
        }
        for metric in [
            &inner.experiment_seconds,
            &inner.experiment_speedup,
            &inner.experiment_efficiency,
        ] {
            for family in metric.collect() {
                for series in family.get_metric() {
                    let value = |label: &str| {
                        let mut pairs = series.get_label().iter();
                        pairs
                            .find(|pair| pair.name() == label)
                            .map_or("", |pair| pair.value())
                    };
                    let labels: Vec<&str> = OF_TABLE.iter().map(|label| value(label)).collect();
                    if labels.starts_with(&[namespace, experiment]) {
                        let _ = metric.remove_label_values(&labels);
                    }
                }
            }
        }
    }

    /// Notes whether this process is the one that acts.
    pub fn leading(&self, leading: bool) {
        self.0.leader.set(leading.into());
    }

    pub(crate) fn worker_created(&self) {
        self.0.created.inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_row_in_the_documentation_and_every_row_a_metric() {
        let text = include_str!("../../../docs/metrics.md");
        let rows: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|name| name.starts_with("dask_operator_"))
            .collect();
        let metrics = Metrics::new().descriptions();
        let names: Vec<&str> = metrics.iter().map(|(name, _)| name.as_str()).collect();
        let mut sorted = rows.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, names);
    }
}
