//! The tutorial's notebooks on the cluster of `examples/cluster.yaml`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Service},
};
use kube::{Api, api::ListParams};
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace},
    operator,
};
use oxidask_operator_api::DaskWorkerGroup;
use serde_json::{Value, json};

/// Name of the cluster in the example.
const CLUSTER: &str = "dask.org/cluster-name=simple";

/// How long after its deletion a cluster's objects may be seen, the pods' grace period included.
const GONE_DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn tutorial_notebooks_execute_on_the_example_cluster_which_is_gone_after_its_deletion() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let node = node(namespace).await?;
        namespace.apply(&example(namespace, &node).await?).await?;
        let output = namespace.run_pod(notebooks(namespace, &node)).await?;
        println!("{output}");
        ensure!(output.contains("5 notebooks executed"), "{output}");

        namespace
            .kubectl(&["delete", "daskcluster", "simple", "--wait=false"])
            .await?;
        namespace
            .until_none::<DaskWorkerGroup>(CLUSTER, GONE_DEADLINE)
            .await?;
        namespace
            .until_none::<Deployment>(CLUSTER, GONE_DEADLINE)
            .await?;
        namespace
            .until_none::<Service>(CLUSTER, GONE_DEADLINE)
            .await?;
        namespace.until_none::<Pod>(CLUSTER, GONE_DEADLINE).await
    });
}

/// The example as it is, but for the image that was built here and what [`share`] adds.
async fn example(namespace: &Namespace, node: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/cluster.yaml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let text = text.replace("ghcr.io/oxidask/dask:latest", &image("notebook"));
    let words = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
    let json = namespace.cluster.kubectl.feed(&words, &text).await?;
    let mut cluster: Value = serde_json::from_str(&json).context("kubectl printed no JSON")?;
    // kubectl lays in the namespace of its configuration.
    cluster["metadata"] = json!({"name": cluster["metadata"]["name"]});
    for part in ["scheduler", "worker"] {
        let pod = &mut cluster["spec"][part]["spec"];
        share(pod, node);
        // The example leaves the default of 30 s, which stands for what a user would wait for.
        pod["terminationGracePeriodSeconds"] = 5.into();
    }
    Ok(cluster.to_string())
}

/// A pod that executes all notebooks.
fn notebooks(namespace: &Namespace, node: &str) -> Value {
    let folder = format!("/shared/{}", namespace.name);
    let script = format!(
        "mkdir -m 777 {folder} && python -c \"$NOTEBOOKS\" /home/dask; status=$?; rm -rf {folder}; exit $status"
    );
    let mut pod = json!({
        "containers": [{
            "name": "client",
            "image": image("notebook"),
            "imagePullPolicy": "IfNotPresent",
            "args": ["sh", "-c", script],
            "env": [
                {"name": "NOTEBOOKS", "value": include_str!("python/notebooks.py")},
                {"name": "DASK_SCHEDULER_ADDRESS", "value": "tcp://simple-scheduler:8786"},
                {"name": "TUTORIAL_SIZE", "value": "small"},
                {"name": "TUTORIAL_FOLDER", "value": folder},
            ],
        }],
    });
    share(&mut pod, node);
    pod
}

/// Programs that write files need a folder that all pods see, which this cluster has only within one node.
fn share(pod: &mut Value, node: &str) {
    pod["nodeName"] = node.into();
    pod["volumes"] = json!([{"name": "shared", "hostPath": {"path": "/tmp"}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
}

/// The last node: the first is the control plane, which has most to do.
async fn node(namespace: &Namespace) -> Result<String> {
    let nodes = Api::<Node>::all(namespace.cluster.client.clone())
        .list(&ListParams::default())
        .await?;
    let mut names = nodes
        .items
        .into_iter()
        .filter_map(|node| node.metadata.name);
    names.next_back().context("the cluster has no node")
}
