//! From `kubectl apply` to `kubectl delete`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::api::ListParams;
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace},
    operator, wait,
};
use oxidask_operator_api::DaskWorkerGroup;

use crate::manifest;

/// How long the pods of a small cluster may take to be ready: images are on the nodes.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How long after its deletion a cluster's objects may be seen.
const GONE_DEADLINE: Duration = Duration::from_secs(30);

/// What a client of the stock package does with a cluster of two workers.
const COMPUTE: &str = r#"
import sys
import dask.array as da
from dask.distributed import Client

with Client(sys.argv[1], timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    array = da.arange(1_000_000, chunks=50_000)
    print("sum", int((array * 2).sum().compute()))
    print("squares", client.gather(client.map(lambda x: x * x, range(5))))
    print("workers", len(client.scheduler_info()["workers"]))
"#;

#[test]
fn cluster_of_stock_images_computes_and_is_gone_after_its_deletion() {
    with_temp_namespace(async |namespace| computes_and_goes(namespace, &image("stock")).await);
}

#[test]
fn cluster_of_our_image_computes_and_is_gone_after_its_deletion() {
    with_temp_namespace(async |namespace| computes_and_goes(namespace, &image("dask")).await);
}

async fn computes_and_goes(namespace: &Namespace, pods: &str) -> Result<()> {
    operator::ensure(&namespace.cluster).await?;
    namespace
        .apply(&manifest::cluster("simple", pods, 2))
        .await?;
    until_ready(
        namespace,
        "dask.org/cluster-name=simple,dask.org/component=scheduler",
        1,
    )
    .await?;
    until_ready(
        namespace,
        "dask.org/cluster-name=simple,dask.org/component=worker",
        2,
    )
    .await?;
    let address = format!("tcp://simple-scheduler.{}.svc:8786", namespace.name);
    let output = namespace
        .python(&image("stock"), COMPUTE, &[&address])
        .await?;
    for line in ["sum 999999000000", "squares [0, 1, 4, 9, 16]", "workers 2"] {
        ensure!(
            output.lines().any(|printed| printed == line),
            "no line {line:?} in: {output}"
        );
    }
    namespace
        .kubectl(&["delete", "daskcluster", "simple", "--wait=false"])
        .await?;
    let label = "dask.org/cluster-name=simple";
    namespace
        .until_none::<DaskWorkerGroup>(label, GONE_DEADLINE)
        .await?;
    namespace
        .until_none::<Deployment>(label, GONE_DEADLINE)
        .await?;
    namespace
        .until_none::<Service>(label, GONE_DEADLINE)
        .await?;
    namespace.until_none::<Pod>(label, GONE_DEADLINE).await
}

/// Waits until exactly `count` pods with this label are there and ready.
async fn until_ready(namespace: &Namespace, label: &str, count: usize) -> Result<()> {
    let pods = namespace.api::<Pod>();
    wait::until(
        format!("{count} ready pods with {label}"),
        READY_DEADLINE,
        async || {
            let pods = pods.list(&ListParams::default().labels(label)).await?.items;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            Ok(if ready == count && pods.len() == count {
                Ok(())
            } else {
                Err(format!("{ready} ready of {}", pods.len()))
            })
        },
    )
    .await
    .context("the cluster did not become ready")
}

fn is_ready(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
