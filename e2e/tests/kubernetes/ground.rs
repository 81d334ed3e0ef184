//! The cluster itself: what every other test takes for granted.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use oxidask_e2e::{cluster, image, namespace::with_temp_namespace};

#[test]
fn every_node_is_ready_and_takes_pods() {
    cluster::run(async |cluster| {
        let nodes = Api::<Node>::all(cluster.client)
            .list(&ListParams::default())
            .await?
            .items;
        ensure!(!nodes.is_empty(), "the cluster has no node");
        for node in nodes {
            let spec = node.spec.unwrap_or_default();
            let taints = spec.taints.unwrap_or_default();
            ensure!(
                taints.is_empty(),
                "{:?} has taints: {taints:?}",
                node.metadata.name
            );
            let ready = node
                .status
                .and_then(|status| status.conditions)
                .into_iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True");
            ensure!(ready, "{:?} is not ready", node.metadata.name);
        }
        Ok(())
    });
}

#[test]
fn pod_of_the_stock_image_finds_services_by_name() {
    with_temp_namespace(async |namespace| -> Result<()> {
        let program = "import dask, socket; print(dask.__version__, socket.gethostbyname('kubernetes.default.svc'))";
        let output = namespace.python(&image("stock"), program, &[]).await?;
        ensure!(output.split_whitespace().count() == 2, "{output}");
        Ok(())
    });
}
