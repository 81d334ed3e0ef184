//! Pods that the strictest of Kubernetes' pod security standards lets in: the operator's, ours, and those with our
//! programs brought in.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace as CoreNamespace, Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace, with_temp_namespace_alone},
    operator::{self, Whose},
    wait,
};
use oxidask_operator_api::DaskCluster;
use serde_json::{Value, json};

use crate::manifest;

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const READY_DEADLINE: Duration = Duration::from_secs(90);

const COMPUTE: &str = "
import sys
from dask.distributed import Client
with Client(sys.argv[1], timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    print('sum', client.submit(sum, client.map(abs, range(-5, 5))).result())
";

#[test]
fn cluster_of_our_image_computes_where_only_restricted_pods_are_let_in() {
    with_temp_namespace(async |namespace| computes(namespace, &image("dask"), "").await);
}

#[test]
fn injected_programs_compute_where_only_restricted_pods_are_let_in() {
    with_temp_namespace(async |namespace| {
        let field = "rust: {scheduler: true, worker: true}";
        computes(namespace, &image("stock"), field).await
    });
}

#[test]
fn operator_of_the_chart_is_a_restricted_pod() {
    with_temp_namespace_alone(async |namespace, alone| {
        if Whose::wanted()? != Whose::Ours {
            println!("only for the operator that the chart installs");
            return Ok(());
        }
        operator::ensure(&namespace.cluster).await?;
        enforce(namespace, operator::NAMESPACE, Some("restricted")).await?;
        let again = operator::kill(namespace, alone).await;
        enforce(namespace, operator::NAMESPACE, None).await?;
        again.context("a new pod of the operator was not let in")
    });
}

async fn computes(namespace: &Namespace, pods: &str, field: &str) -> Result<()> {
    operator::ensure(&namespace.cluster).await?;
    enforce(namespace, &namespace.name, Some("restricted")).await?;
    let cluster = manifest::with(&manifest::cluster("strict", pods, 2), field);
    namespace.apply(&cluster).await?;
    // As it is, the manifest asks for more than is allowed: its pods are not let in, and the status says why.
    wait::until("pods are refused", READY_DEADLINE, async || {
        let ready = ready(namespace).await?;
        Ok(if ready.contains("PodSecurity") {
            Ok(())
        } else {
            Err(ready)
        })
    })
    .await?;
    namespace
        .kubectl(&["delete", "daskcluster", "strict", "--wait=true"])
        .await?;
    namespace.until_none::<Pod>("", READY_DEADLINE).await?;
    namespace
        .apply(&restricted(namespace, &cluster).await?)
        .await?;
    wait::until("Ready", READY_DEADLINE, async || {
        let ready = ready(namespace).await?;
        Ok(if ready.starts_with("True") {
            Ok(())
        } else {
            Err(ready)
        })
    })
    .await?;
    let address = format!("tcp://strict-scheduler.{}.svc:8786", namespace.name);
    let mut client = json!({
        "containers": [{
            "name": "client",
            "image": image("stock"),
            "imagePullPolicy": "IfNotPresent",
            "args": ["python", "-c", COMPUTE, address],
        }],
    });
    restrict(&mut client);
    let output = namespace.run_pod(client).await?;
    ensure!(output.contains("sum 25"), "{output}");
    let pods = namespace.api::<Pod>().list(&ListParams::default()).await?;
    ensure!(pods.items.len() >= 4, "{} pods", pods.items.len());
    Ok(())
}

/// Sets or takes away the standard that a namespace's pods must meet.
async fn enforce(namespace: &Namespace, name: &str, level: Option<&str>) -> Result<()> {
    let namespaces: Api<CoreNamespace> = Api::all(namespace.cluster.client.clone());
    let patch = json!({"metadata": {"labels": {ENFORCE: level}}});
    namespaces
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("failed to label namespace {name}"))
        .map(drop)
}

/// Status, reason and message of the cluster's condition `Ready`.
async fn ready(namespace: &Namespace) -> Result<String> {
    let cluster = namespace.api::<DaskCluster>().get("strict").await?;
    let conditions = cluster.status.unwrap_or_default().conditions;
    let said = conditions.into_iter().find(|said| said.type_ == "Ready");
    Ok(said.map_or_else(String::new, |said| {
        format!("{} {}: {}", said.status, said.reason, said.message)
    }))
}

/// The manifest with pods that give up everything that the standard asks for, and more.
async fn restricted(namespace: &Namespace, cluster: &str) -> Result<String> {
    let words = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
    let json = namespace.cluster.kubectl.feed(&words, cluster).await?;
    let mut cluster: Value = serde_json::from_str(&json).context("kubectl printed no JSON")?;
    cluster["metadata"] = json!({"name": cluster["metadata"]["name"]});
    for part in ["scheduler", "worker"] {
        restrict(&mut cluster["spec"][part]["spec"]);
    }
    Ok(cluster.to_string())
}

fn restrict(pod: &mut Value) {
    pod["securityContext"] = json!({
        "runAsNonRoot": true,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    pod["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
    let container = &mut pod["containers"][0];
    container["securityContext"] = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    container["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/tmp"}]);
}
