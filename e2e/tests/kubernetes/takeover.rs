//! From the stock operator to ours by one `helm upgrade`, and back, under the hands of a running cluster.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::{Api, ResourceExt, api::ListParams};
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace_alone},
    operator::{self, Whose},
    wait,
};
use oxidask_operator_api::{DaskAutoscaler, DaskCluster, DaskJob};

use crate::manifest;

const CLUSTER: &str = "dask.org/cluster-name=handed";

/// How long either operator may take to change a number of pods; the stock one looks every few seconds.
const SCALE_DEADLINE: Duration = Duration::from_secs(60);

const GONE_DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn running_cluster_is_taken_over_by_helm_upgrade_and_given_back_without_a_restart() {
    with_temp_namespace_alone(async |namespace, _alone| {
        if Whose::wanted()? != Whose::Ours {
            println!("only for the operator that the chart installs");
            return Ok(());
        }
        let Ok(chart) = std::env::var("OXIDASK_STOCK_CHART") else {
            println!("OXIDASK_STOCK_CHART is not set: it names the chart of dask-kubernetes");
            return Ok(());
        };
        let outcome = there_and_back(namespace, &chart).await;
        // For the tests that follow.
        let restored = match operator::uninstall(&namespace.cluster).await {
            Ok(()) => operator::install(&namespace.cluster, &[]).await,
            failed => failed,
        };
        outcome.and(restored)
    });
}

async fn there_and_back(namespace: &Namespace, chart: &str) -> Result<()> {
    operator::uninstall(&namespace.cluster).await?;
    install_stock(namespace, chart).await?;
    let pods = image("stock");
    let cluster = manifest::cluster("handed", &pods, 2);
    let job = manifest::job("work", &pods, 1, "import time; time.sleep(600)");
    let autoscaler = manifest::autoscaler("work", 1, 2);
    let all = [cluster, job, autoscaler].join("\n---\n");
    namespace.apply(&all).await?;
    until_workers(namespace, 2).await.context("stock")?;
    let before = uids(namespace).await?;
    ensure!(
        !finalizers(namespace).await?.is_empty(),
        "the stock operator set no finalizer: nothing is shown"
    );

    // The values that the stock release has, and the image, as an administrator would do it.
    operator::install(&namespace.cluster, &["--reset-then-reuse-values"]).await?;
    wait::until("no finalizer of kopf", SCALE_DEADLINE, async || {
        let left = finalizers(namespace).await?;
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        })
    })
    .await?;
    scale(namespace, 3).await.context("ours")?;
    let after = uids(namespace).await?;
    let lost: Vec<_> = before.iter().filter(|uid| !after.contains(uid)).collect();
    ensure!(lost.is_empty(), "pods were replaced: {lost:?}");

    operator::uninstall(&namespace.cluster).await?;
    install_stock(namespace, chart).await?;
    let group = ["scale", "daskworkergroup", "handed-default", "--replicas=4"];
    namespace.kubectl(&group).await?;
    until_workers(namespace, 4).await.context("stock again")?;
    let last = uids(namespace).await?;
    let lost: Vec<_> = after.iter().filter(|uid| !last.contains(uid)).collect();
    ensure!(
        lost.is_empty(),
        "pods were replaced on the way back: {lost:?}"
    );

    operator::uninstall(&namespace.cluster).await?;
    operator::install(&namespace.cluster, &[]).await?;
    namespace
        .kubectl(&[
            "delete",
            "daskcluster,daskjob,daskautoscaler",
            "--all",
            "--wait=false",
        ])
        .await?;
    namespace
        .until_none::<DaskCluster>("", GONE_DEADLINE)
        .await?;
    namespace
        .until_none::<Service>("dask.org/component", GONE_DEADLINE)
        .await?;
    namespace.until_none::<Pod>(CLUSTER, GONE_DEADLINE).await
}

/// Puts the stock CRDs in the place of ours, and the stock operator in the release that ours has in the other tests.
async fn install_stock(namespace: &Namespace, chart: &str) -> Result<()> {
    let cluster = &namespace.cluster;
    let crds = Path::new(chart).join("crds");
    let crds = crds.to_str().context("the chart's path is not UTF-8")?;
    cluster.kubectl.run(&["replace", "-f", crds]).await?;
    let operator = image("stock-operator");
    let (name, tag) = operator.rsplit_once(':').context("the image has no tag")?;
    let values = [
        "fullnameOverride=operator".to_owned(),
        format!("image.name={name}"),
        format!("image.tag={tag}"),
        format!("kopfArgs={{--namespace={}}}", namespace.name),
    ];
    let mut words = vec!["upgrade", "--install", "operator", chart];
    words.extend([
        "-n",
        operator::NAMESPACE,
        "--create-namespace",
        "--skip-crds",
        "--wait",
    ]);
    for value in &values {
        words.extend(["--set", value]);
    }
    cluster.helm.run(&words).await.map(drop)
}

async fn scale(namespace: &Namespace, count: usize) -> Result<()> {
    let replicas = format!("--replicas={count}");
    namespace
        .kubectl(&["scale", "daskworkergroup", "handed-default", &replicas])
        .await?;
    until_workers(namespace, count).await
}

async fn until_workers(namespace: &Namespace, count: usize) -> Result<()> {
    let workers = format!("{CLUSTER},dask.org/component=worker");
    let of_cluster = ListParams::default().labels(&workers);
    wait::until(format!("{count} workers"), SCALE_DEADLINE, async || {
        let pods = namespace.api::<Pod>().list(&of_cluster).await?.items;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        Ok(if ready == count && pods.len() == count {
            Ok(())
        } else {
            Err(format!("{ready} of {} ready", pods.len()))
        })
    })
    .await
}

fn is_ready(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Identities of the cluster's pods.
async fn uids(namespace: &Namespace) -> Result<Vec<String>> {
    let pods = namespace.api::<Pod>();
    let pods = pods.list(&ListParams::default().labels(CLUSTER)).await?;
    Ok(pods.items.iter().filter_map(ResourceExt::uid).collect())
}

/// Objects that wait for kopf before they can go.
async fn finalizers(namespace: &Namespace) -> Result<Vec<String>> {
    let mut names = with_finalizer(namespace.api::<DaskCluster>()).await?;
    names.extend(with_finalizer(namespace.api::<DaskAutoscaler>()).await?);
    names.extend(with_finalizer(namespace.api::<DaskJob>()).await?);
    names.extend(with_finalizer(namespace.api::<Service>()).await?);
    names.extend(with_finalizer(namespace.api::<Deployment>()).await?);
    names.extend(with_finalizer(namespace.api::<Pod>()).await?);
    Ok(names)
}

async fn with_finalizer<K>(api: Api<K>) -> Result<Vec<String>>
where
    K: kube::Resource + Clone + std::fmt::Debug + for<'de> k8s_openapi::serde::Deserialize<'de>,
{
    let objects = api.list(&ListParams::default()).await?.items;
    let held = |object: &&K| object.finalizers().iter().any(|name| name.contains("kopf"));
    Ok(objects
        .iter()
        .filter(held)
        .map(ResourceExt::name_any)
        .collect())
}
