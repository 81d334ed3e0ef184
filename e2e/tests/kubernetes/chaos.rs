//! The operator ended at random moments, the API server gone for a while: what was asked for comes about all the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::api::ListParams;
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace_alone},
    operator,
    random::Random,
    wait,
};
use oxidask_operator_api::DaskCluster;

use crate::{kube_cluster, manifest};

const DEADLINE: Duration = Duration::from_secs(120);
const WORKERS: &str = "dask.org/cluster-name=simple,dask.org/component=worker";

#[test]
fn scaling_loses_no_result_while_the_operator_is_killed_at_random_moments() {
    with_temp_namespace_alone(async |namespace, alone| {
        let random = &mut Random::from_environment();
        operator::ensure(&namespace.cluster).await?;
        let pods = image("stock");
        let scaled = kube_cluster::scales(namespace, &pods);
        let mut scaled = std::pin::pin!(scaled);
        let mut kills = 0;
        loop {
            let pause = Duration::from_millis(500 + 100 * random.below(40) as u64);
            tokio::select! {
                outcome = &mut scaled => {
                    println!("the operator was killed {kills} times");
                    ensure!(kills >= 3, "the scenario ended after {kills} kills: {outcome:?}");
                    return outcome;
                }
                () = tokio::time::sleep(pause) => {
                    operator::kill(namespace, alone).await?;
                    kills += 1;
                }
            }
        }
    });
}

#[test]
fn cluster_killed_at_every_step_of_its_life_has_what_it_should_have() {
    with_temp_namespace_alone(async |namespace, alone| {
        let random = &mut Random::from_environment();
        operator::ensure(&namespace.cluster).await?;
        namespace
            .apply(&manifest::cluster("simple", &image("stock"), 3))
            .await?;
        for workers in [3, 1, 4, 2] {
            scale(namespace, workers).await?;
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_millis(50 * random.below(20) as u64)).await;
                operator::kill(namespace, alone).await?;
            }
            until_ready(namespace, workers).await?;
        }
        namespace
            .kubectl(&["delete", "daskcluster", "simple", "--wait=false"])
            .await?;
        operator::kill(namespace, alone).await?;
        namespace.until_none::<Deployment>("", DEADLINE).await?;
        namespace
            .until_none::<Pod>("dask.org/cluster-name", DEADLINE)
            .await
    });
}

async fn scale(namespace: &Namespace, replicas: usize) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    namespace
        .kubectl(&[
            "scale",
            "daskclusters.kubernetes.dask.org",
            "simple",
            &replicas,
        ])
        .await
        .map(drop)
}

/// Waits until the cluster is ready with exactly so many workers.
async fn until_ready(namespace: &Namespace, workers: usize) -> Result<()> {
    let clusters = namespace.api::<DaskCluster>();
    let deployments = namespace.api::<Deployment>();
    wait::until(
        format!("{workers} workers and Ready"),
        DEADLINE,
        async || {
            let cluster = clusters.get("simple").await?;
            let generation = cluster.metadata.generation;
            let conditions = cluster.status.unwrap_or_default().conditions;
            let is_ready = conditions.iter().any(|said| {
                said.type_ == "Ready"
                    && said.status == "True"
                    && said.observed_generation == generation
            });
            let found = deployments
                .list(&ListParams::default().labels(WORKERS))
                .await?
                .items
                .len();
            Ok(if is_ready && found == workers {
                Ok(())
            } else {
                Err(format!("{found} workers, ready {is_ready}"))
            })
        },
    )
    .await
    .context("after kills of the operator")
}
