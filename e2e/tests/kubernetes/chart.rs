//! The charts: checked, rendered, installed over the stock chart, upgraded, taken away.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use oxidask_e2e::{
    cluster::{self, Cluster},
    image,
    namespace::{Namespace, with_temp_namespace_alone},
    operator::{self, Whose},
    wait,
};
use oxidask_operator_api::DaskCluster;

use crate::manifest;

/// Values as users of the stock chart have them.
const STOCK_VALUES: &str = include_str!("values-stock.yaml");

/// All that is new in our chart, switched on.
const OUR_VALUES: &str = "
replicas: 2
networkPolicy: {enabled: true}
podDisruptionBudget: {enabled: true}
metrics:
  operator:
    service: {enabled: true}
    serviceMonitor: {enabled: true}
    prometheusRule: {enabled: true}
";

const READY_DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn charts_pass_helm_lint() {
    cluster::run(async |cluster| {
        let chart = operator::chart()?;
        let crds = format!("{chart}/charts/oxidask-crds");
        cluster
            .helm
            .run(&["lint", "--strict", &crds, &chart])
            .await
            .map(drop)
    });
}

#[test]
fn rendered_manifests_are_those_that_were_reviewed() {
    cluster::run(async |cluster| {
        insta::assert_snapshot!("chart_defaults", render(&cluster, "").await?);
        insta::assert_snapshot!("chart_stock_values", render(&cluster, STOCK_VALUES).await?);
        insta::assert_snapshot!("chart_all_of_ours", render(&cluster, OUR_VALUES).await?);
        Ok(())
    });
}

#[test]
fn misspelt_value_is_refused_by_name() {
    cluster::run(async |cluster| {
        let Err(error) = render(&cluster, "replica: 2").await else {
            anyhow::bail!("`replica` was accepted")
        };
        ensure!(
            format!("{error:#}").contains("'replica' not allowed"),
            "{error:#}"
        );
        Ok(())
    });
}

#[test]
fn clusters_outlive_an_uninstalled_chart_and_are_taken_up_by_the_next_release() {
    with_temp_namespace_alone(async |namespace, _alone| {
        if Whose::wanted()? != Whose::Ours {
            println!("only for the operator that the chart installs");
            return Ok(());
        }
        operator::ensure(&namespace.cluster).await?;
        namespace
            .apply(&manifest::cluster("lasting", &image("stock"), 1))
            .await?;
        until_workers(namespace, 1).await?;
        let before = pods(namespace).await?;

        let uninstalled = operator::uninstall(&namespace.cluster).await;
        let there = namespace.api::<DaskCluster>().get_opt("lasting").await?;
        namespace
            .kubectl(&["scale", "daskcluster", "lasting", "--replicas=2"])
            .await?;
        operator::install(&namespace.cluster, &[]).await?;
        uninstalled?;
        ensure!(there.is_some(), "the cluster went with the chart");
        until_workers(namespace, 2).await?;
        let after = pods(namespace).await?;
        ensure!(
            before.iter().all(|pod| after.contains(pod)),
            "pods were replaced: {before:?}, {after:?}"
        );
        Ok(())
    });
}

/// What `helm template` prints with these values, without the CRDs, which have a check of their own.
async fn render(cluster: &Cluster, values: &str) -> Result<String> {
    let chart = operator::chart()?;
    let words = [
        "template",
        "release",
        &chart,
        "--namespace",
        "dask-operator",
        "--set",
        "crds.install=false",
        "-f",
        "-",
    ];
    cluster.helm.feed(&words, values).await
}

async fn until_workers(namespace: &Namespace, count: i64) -> Result<()> {
    let clusters = namespace.api::<DaskCluster>();
    wait::until(format!("{count} workers"), READY_DEADLINE, async || {
        let status = clusters.get("lasting").await?.status.unwrap_or_default();
        let ready = status.ready_replicas.unwrap_or_default();
        Ok(if ready == count {
            Ok(())
        } else {
            Err(format!("{ready} are ready"))
        })
    })
    .await
}

/// Names of the cluster's pods.
async fn pods(namespace: &Namespace) -> Result<Vec<String>> {
    let of_cluster = ListParams::default().labels("dask.org/cluster-name=lasting");
    let pods = namespace.api::<Pod>().list(&of_cluster).await?;
    Ok(pods
        .items
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect())
}
