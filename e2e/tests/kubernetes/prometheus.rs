//! A real Prometheus scrapes operator, scheduler and workers; dashboards and alerts ask it.

mod server;

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use oxidask_e2e::{
    cluster, image,
    namespace::{Namespace, with_temp_namespace},
    operator::{self, Whose},
    wait,
};
use serde_json::Value;

use self::server::Prometheus;
use crate::manifest;

/// Prometheus looks for pods and scrapes them every second; the first scrapes of a rate take a few.
const SCRAPED_DEADLINE: Duration = Duration::from_secs(60);

/// Metrics that are there only when something happened that a quiet run has not: an expression of these alone may
/// give nothing, but must be understood.
const MAY_BE_EMPTY: [&str; 8] = [
    "dask_operator_autoscaler_",
    "dask_operator_drain_",
    "dask_operator_job",
    "dask_operator_workers_retired_total",
    "dask_operator_watch_failures_total",
    "dask_scheduler_tasks_suspicious_total",
    "dask_operator_experiment_",
    "dask_operator_reconcile_total{result",
];

/// Keeps results of several prefixes on the workers for as long as the test looks.
const COMPUTE: &str = "
import sys
from dask.distributed import Client

with Client(sys.argv[1], timeout=60) as client:
    client.wait_for_workers(2, timeout=60)
    client.publish_dataset(kept=client.map(lambda x: bytes(1000), range(50)))
    print('sum', client.submit(sum, [1, 2]).result())
";

#[test]
fn alert_rules_pass_promtool() {
    cluster::run(async |_| {
        let alerts = format!("{}/alerts.yaml", operator::chart()?);
        server::promtool(&["check", "rules", &alerts]).await
    });
}

#[test]
fn every_expression_of_dashboards_and_alerts_is_answered_by_a_prometheus_that_scrapes_all() {
    with_temp_namespace(async |namespace| {
        if Whose::wanted()? != Whose::Ours || !namespace.cluster.pods_can_be_reached {
            println!("only where the chart's operator and pods can be reached from here");
            return Ok(());
        }
        operator::ensure(&namespace.cluster).await?;
        namespace
            .apply(&manifest::cluster("seen", &image("dask"), 2))
            .await?;
        let prometheus = Prometheus::start(namespace).await?;
        let address = format!("tcp://seen-scheduler.{}.svc:8786", namespace.name);
        namespace
            .python(&image("stock"), COMPUTE, &[&address])
            .await?;
        until_all_are_scraped(namespace, &prometheus).await?;
        let connected = format!(
            r#"dask_operator_workers{{namespace="{}",state="connected"}} == 2"#,
            namespace.name
        );
        answered(&prometheus, &connected).await?;
        for (place, expression) in expressions()? {
            answered(&prometheus, &expression).await.context(place)?;
        }
        Ok(())
    });
}

/// One operator, one scheduler, two workers.
async fn until_all_are_scraped(namespace: &Namespace, prometheus: &Prometheus) -> Result<()> {
    let up = format!(
        r#"sum by (job) (up{{job="operator"}}) or sum by (job) (up{{namespace="{}"}})"#,
        namespace.name
    );
    let wanted = BTreeSet::from(["operator 1", "scheduler 1", "worker 2"].map(str::to_owned));
    wait::until("scrapes of all", SCRAPED_DEADLINE, async || {
        let seen: BTreeSet<String> = prometheus
            .query(&up)
            .await?
            .iter()
            .map(|series| {
                let (job, value) = (&series["metric"]["job"], &series["value"][1]);
                format!(
                    "{} {}",
                    job.as_str().unwrap_or_default(),
                    value.as_str().unwrap_or_default()
                )
            })
            .collect();
        Ok(if seen == wanted {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        })
    })
    .await
}

/// Waits until the expression gives something, unless nothing may have happened that it tells of.
async fn answered(prometheus: &Prometheus, expression: &str) -> Result<()> {
    let may_be_empty = MAY_BE_EMPTY
        .iter()
        .any(|metric| expression.contains(metric));
    wait::until(
        format!("series of {expression}"),
        SCRAPED_DEADLINE,
        async || {
            let series = prometheus.query(expression).await?;
            Ok(if may_be_empty || !series.is_empty() {
                Ok(())
            } else {
                Err("none".into())
            })
        },
    )
    .await
}

/// Where each expression stands, and the expression as Grafana would send it.
fn expressions() -> Result<Vec<(String, String)>> {
    let chart = PathBuf::from(operator::chart()?);
    let mut found = Vec::new();
    for name in ["operator", "cluster"] {
        let path = chart.join(format!("dashboards/{name}.json"));
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let dashboard: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"]
                    .as_str()
                    .context("a target has no expression")?;
                let filled = expression
                    .replace("$__rate_interval", "30s")
                    .replace("$namespace", ".*")
                    .replace("$cluster", ".*");
                found.push((
                    format!("dashboard {name}, panel {}", panel["title"]),
                    filled,
                ));
            }
        }
    }
    let dashboards = found.len();
    let path = chart.join("alerts.yaml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    for line in text.lines() {
        if let Some(expression) = line.trim().strip_prefix("expr: ") {
            // What an alert compares is there all the time; that it is above its limit is not.
            let compared = expression
                .rsplit_once(" > ")
                .map_or(expression, |(left, _)| left);
            found.push(("alerts".to_owned(), compared.to_owned()));
        }
    }
    ensure!(
        dashboards > 20,
        "{dashboards} expressions in the dashboards"
    );
    ensure!(found.len() > dashboards, "no expression in the alerts");
    Ok(found)
}
