//! `/metrics`: Dask's own names where users have dashboards; each has a row in `docs/metrics.md`.

use axum::extract::State;
use axum::response::Response;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::{Cluster, Shared, Snapshot, WorkerRow, with_type};

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// Values of the labels, and the value.
type Sample = (Vec<String>, f64);

/// A metric: what stands in `docs/metrics.md`.
pub(super) struct Family {
    /// Without the namespace.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
    samples: fn(&Snapshot) -> Vec<Sample>,
}

/// One value without labels.
macro_rules! plain {
    ($kind:ident $name:literal, $help:literal, |$s:ident| $value:expr) => {
        Family {
            name: $name,
            kind: Kind::$kind,
            labels: &[],
            help: $help,
            samples: |$s: &Snapshot| vec![(Vec::new(), ($value) as f64)],
        }
    };
}

/// One value for each prefix, or each semaphore.
macro_rules! each {
    ($kind:ident $name:literal [$label:literal], $help:literal, $rows:ident |$row:ident| $value:expr) => {
        Family {
            name: $name,
            kind: Kind::$kind,
            labels: &[$label],
            help: $help,
            samples: |s: &Snapshot| {
                s.$rows
                    .iter()
                    .map(|$row| (vec![$row.name.clone()], ($value) as f64))
                    .collect()
            },
        }
    };
}

/// All metrics.
pub(super) const FAMILIES: &[Family] = &[
    plain!(Gauge "scheduler_clients", "Number of clients connected", |s| s.clients),
    plain!(Counter "scheduler_client_connections_added_total", "Total number of client connections added", |s| s.clients_added_total),
    plain!(Counter "scheduler_client_connections_removed_total", "Total number of client connections removed", |s| s.clients_removed_total),
    plain!(Gauge "scheduler_desired_workers", "Number of workers scheduler needs for task graph", |s| s.desired_workers),
    Family {
        name: "scheduler_workers",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Number of workers known by scheduler",
        samples: worker_states,
    },
    plain!(Counter "scheduler_workers_added_total", "Total number of workers added", |s| s.workers_added_total),
    plain!(Counter "scheduler_workers_removed_total", "Total number of workers removed", |s| s.workers_removed_total),
    Family {
        name: "scheduler_tasks",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Number of tasks known by scheduler",
        samples: |s| {
            s.tasks
                .iter()
                .map(|(state, count)| (vec![(*state).to_owned()], *count as f64))
                .collect()
        },
    },
    each!(Counter "scheduler_tasks_suspicious_total" ["task_prefix_name"], "Total number of times a task has been marked suspicious", prefixes |p| p.suspicious_total),
    each!(Counter "scheduler_tasks_compute_seconds_total" ["task_prefix_name"], "Total amount of compute time spent in each prefix", prefixes |p| p.compute_seconds_total),
    each!(Counter "scheduler_tasks_transfer_seconds_total" ["task_prefix_name"], "Total amount of transfer time spent in each prefix", prefixes |p| p.transfer_seconds_total),
    each!(Gauge "scheduler_tasks_output_bytes" ["task_prefix_name"], "Current number of bytes in memory (without duplicates) for each prefix", prefixes |p| p.output_bytes),
    each!(Gauge "semaphore_max_leases" ["name"], "Maximum leases allowed per semaphore", semaphores |x| x.max_leases),
    each!(Gauge "semaphore_active_leases" ["name"], "Amount of currently active leases per semaphore", semaphores |x| x.active_leases),
    each!(Gauge "semaphore_pending_leases" ["name"], "Amount of currently pending leases per semaphore", semaphores |x| x.pending_leases),
    each!(Counter "semaphore_acquire_total" ["name"], "Total number of leases acquired per semaphore", semaphores |x| x.acquire_total),
    each!(Counter "semaphore_release_total" ["name"], "Total number of leases released per semaphore", semaphores |x| x.release_total),
    each!(Gauge "semaphore_average_pending_lease_time_s" ["name"], "Moving average of the time it took to acquire a lease per semaphore", semaphores |x| x.average_pending_lease_time),
    plain!(Counter "scheduler_malformed_messages_total", "Total number of connections closed because of a message that could not be understood", |s| s.malformed_messages_total),
    plain!(Gauge "scheduler_start_time_seconds", "Start of the scheduler in Unix time", |s| s.started),
];

fn worker_states(s: &Snapshot) -> Vec<Sample> {
    let idle = s.workers_with(WorkerRow::is_idle);
    let saturated = s.workers_with(WorkerRow::is_saturated);
    let running = s.workers_with(WorkerRow::is_running);
    let paused = s.workers_with(|worker| worker.status == "paused");
    [
        ("idle", idle),
        ("partially_saturated", running - idle - saturated),
        ("saturated", saturated),
        ("paused", paused),
        ("retiring", s.workers.len() as u64 - paused - running),
    ]
    .into_iter()
    .map(|(state, count)| (vec![state.to_owned()], count as f64))
    .collect()
}

pub(super) async fn metrics<C: Cluster>(State(shared): State<Shared<C>>) -> Response {
    let body = render(&shared.cluster.snapshot(), &shared.namespace);
    with_type("text/plain; version=0.0.4; charset=utf-8", body)
}

/// The metrics in the text format of Prometheus, with those of the process.
pub fn render(snapshot: &Snapshot, namespace: &str) -> String {
    let mut families: Vec<MetricFamily> = FAMILIES
        .iter()
        .map(|family| family.collect(snapshot, namespace))
        .filter(|family| !family.get_metric().is_empty())
        .collect();
    families.extend(super::process::families());
    let mut body = Vec::new();
    // Writing to memory does not fail, and families without samples are left out above.
    let _ = TextEncoder::new().encode(&families, &mut body);
    String::from_utf8_lossy(&body).into_owned()
}

impl Family {
    fn collect(&self, snapshot: &Snapshot, namespace: &str) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(match namespace {
            "" => self.name.to_owned(),
            namespace => format!("{namespace}_{}", self.name),
        });
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
        });
        let metrics = (self.samples)(snapshot)
            .into_iter()
            .map(|(values, value)| self.metric(values, value))
            .collect();
        family.set_metric(metrics);
        family
    }

    fn metric(&self, values: Vec<String>, value: f64) -> Metric {
        let labels = self
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| {
                let mut label = LabelPair::default();
                label.set_name((*name).to_owned());
                label.set_value(value);
                label
            })
            .collect();
        let mut metric = Metric::default();
        metric.set_label(labels);
        match self.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        metric
    }
}
