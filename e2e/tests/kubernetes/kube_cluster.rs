//! `dask_kubernetes.operator.KubeCluster`, unmodified, from a pod.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace},
    operator,
};

/// The client has every right in its own namespace and none outside.
const RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: client}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: default}]
";

#[test]
fn kube_cluster_works_with_stock_images() {
    with_temp_namespace(async |namespace| works(namespace, &image("stock")).await);
}

#[test]
fn kube_cluster_works_with_our_image() {
    with_temp_namespace(async |namespace| works(namespace, &image("dask")).await);
}

async fn works(namespace: &Namespace, pods: &str) -> Result<()> {
    let program = include_str!("python/kube_cluster.py");
    run(namespace, program, &[pods, &namespace.name]).await?;
    namespace
        .until_none::<Pod>("dask.org/cluster-name", Duration::from_secs(30))
        .await
}

#[test]
fn scaling_of_stock_images_loses_no_result() {
    with_temp_namespace(async |namespace| scales(namespace, &image("stock")).await);
}

#[test]
fn scaling_of_our_image_loses_no_result() {
    with_temp_namespace(async |namespace| scales(namespace, &image("dask")).await);
}

pub(crate) async fn scales(namespace: &Namespace, pods: &str) -> Result<()> {
    // A seed that failed is given again by the variable of this name.
    let seed =
        std::env::var("OXIDASK_SEED").unwrap_or_else(|_| (std::process::id() % 1000).to_string());
    let operations = std::env::var("OXIDASK_SCALE_OPERATIONS").unwrap_or_else(|_| "10".into());
    let program = include_str!("python/scaling.py");
    run(
        namespace,
        program,
        &[pods, &namespace.name, &operations, &seed],
    )
    .await
    .with_context(|| format!("with OXIDASK_SEED={seed}"))
}

/// Runs a program that uses KubeCluster until it says that it is done.
async fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<()> {
    operator::ensure(&namespace.cluster).await?;
    namespace.apply(RIGHTS).await?;
    let output = namespace
        .python(&image("dask-kubernetes"), program, arguments)
        .await?;
    println!("{output}");
    ensure!(
        output.lines().any(|line| line == "done"),
        "the client did not come to its end: {output}"
    );
    Ok(())
}
