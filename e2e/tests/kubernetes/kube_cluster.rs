//! `dask_kubernetes.operator.KubeCluster`, unmodified, from a pod.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace},
    operator,
};

const PROGRAM: &str = include_str!("python/kube_cluster.py");

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
    operator::ensure(&namespace.cluster).await?;
    namespace.apply(RIGHTS).await?;
    let output = namespace
        .python(&image("dask-kubernetes"), PROGRAM, &[pods, &namespace.name])
        .await?;
    println!("{output}");
    ensure!(
        output.lines().any(|line| line == "done"),
        "the client did not come to its end: {output}"
    );
    namespace
        .until_none::<Pod>("dask.org/cluster-name", Duration::from_secs(30))
        .await
}
