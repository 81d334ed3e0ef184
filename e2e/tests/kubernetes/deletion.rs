//! Deletion in any order, with the operator there or not, leaves nothing and never hangs.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace, with_temp_namespace_alone},
    operator,
    random::Random,
};
use oxidask_operator_api::{DaskAutoscaler, DaskCluster, DaskJob, DaskWorkerGroup};

use crate::manifest;

/// Half a minute more than the pods' grace period.
const GONE_DEADLINE: Duration = Duration::from_secs(60);

/// Objects of each of the four kinds: 5, or a quarter of what `OXIDASK_DELETED_OBJECTS` says.
fn each() -> usize {
    let wanted = std::env::var("OXIDASK_DELETED_OBJECTS").ok();
    wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(20) / 4
}

#[test]
fn objects_deleted_in_random_order_leave_nothing() {
    with_temp_namespace(async |namespace| {
        let random = &mut Random::from_environment();
        create_all(namespace).await?;
        delete_all(namespace, random).await?;
        nothing_is_left(namespace).await
    });
}

#[test]
fn objects_deleted_while_the_operator_is_down_leave_nothing_once_it_is_back() {
    with_temp_namespace_alone(async |namespace, alone| {
        let random = &mut Random::from_environment();
        create_all(namespace).await?;
        operator::stop(namespace, alone).await?;
        let deleted = delete_all(namespace, random).await;
        operator::start_again(namespace, alone).await?;
        deleted?;
        nothing_is_left(namespace).await
    });
}

#[test]
fn namespace_with_clusters_goes_while_the_operator_is_down() {
    with_temp_namespace_alone(async |namespace, alone| {
        create_all(namespace).await?;
        operator::stop(namespace, alone).await?;
        let gone = namespace.delete().await;
        operator::start_again(namespace, alone).await?;
        gone
    });
}

async fn create_all(namespace: &Namespace) -> Result<()> {
    operator::ensure(&namespace.cluster).await?;
    let pods = image("stock");
    let mut manifests = Vec::new();
    for number in 0..each() {
        let cluster = format!("cluster-{number}");
        manifests.push(manifest::cluster(&cluster, &pods, 1));
        manifests.push(manifest::group(
            &format!("{cluster}-more"),
            &cluster,
            &pods,
            0,
        ));
        manifests.push(manifest::autoscaler(&cluster, 0, 2));
        manifests.push(manifest::job(
            &format!("job-{number}"),
            &pods,
            0,
            "import time; time.sleep(60)",
        ));
    }
    namespace.apply(&manifests.join("\n---\n")).await
}

async fn delete_all(namespace: &Namespace, random: &mut Random) -> Result<()> {
    let mut objects: Vec<String> = (0..each())
        .flat_map(|number| {
            [
                format!("daskcluster/cluster-{number}"),
                format!("daskworkergroup/cluster-{number}-more"),
                format!("daskautoscaler/cluster-{number}"),
                format!("daskjob/job-{number}"),
            ]
        })
        .collect();
    random.shuffle(&mut objects);
    for object in &objects {
        // One that went with its owner is as good.
        namespace
            .kubectl(&["delete", object, "--wait=false", "--ignore-not-found"])
            .await?;
    }
    Ok(())
}

async fn nothing_is_left(namespace: &Namespace) -> Result<()> {
    namespace
        .until_none::<DaskCluster>("", GONE_DEADLINE)
        .await?;
    namespace
        .until_none::<DaskWorkerGroup>("", GONE_DEADLINE)
        .await?;
    namespace
        .until_none::<DaskAutoscaler>("", GONE_DEADLINE)
        .await?;
    namespace.until_none::<DaskJob>("", GONE_DEADLINE).await?;
    namespace
        .until_none::<Deployment>("", GONE_DEADLINE)
        .await?;
    namespace.until_none::<Service>("", GONE_DEADLINE).await?;
    namespace.until_none::<Pod>("", GONE_DEADLINE).await
}
