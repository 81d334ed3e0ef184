//! The API server and a node stop for a while: it is said, nothing is lost, and all goes on by itself afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace_alone},
    operator, wait,
};
use oxidask_operator_api::DaskCluster;
use serde_json::{Value, json};

use crate::manifest;

/// How long after its cause can be seen in the API a condition may take.
const SAID_WITHIN: Duration = Duration::from_secs(5);

/// Kubernetes' own controllers end when they cannot reach the API server, and start again after a pause.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(180);

/// Kubernetes looks away for 50 s before it calls a node unreachable.
const NODE_DEADLINE: Duration = Duration::from_secs(120);

const PODS: &str = "dask.org/cluster-name=simple";
const WORKERS: &str = "dask.org/cluster-name=simple,dask.org/component=worker";
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Stops processes of a node for a while. Arguments: seconds, what is stopped.
const STOP: &str = r#"
import os, signal, sys, time
from pathlib import Path

seconds, what = float(sys.argv[1]), sys.argv[2]

def named(name):
    return [pid for pid in processes() if Path(f"/proc/{pid}/comm").read_text().strip() == name]

def processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]

def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass

if what == "answers":
    stopped = named("kube-apiserver")
elif what == "api-server":
    stopped = named("kubelet")
else:
    stopped = [pid for pid in processes() if pid not in (1, os.getpid())]
assert stopped, "nothing to stop"
try:
    send(stopped, signal.SIGSTOP)
    if what == "api-server":
        # Without its kubelet it is not started again.
        send(named("kube-apiserver"), signal.SIGKILL)
    time.sleep(seconds)
finally:
    send(stopped, signal.SIGCONT)
"#;

const COMPUTE: &str = "
import sys
from dask.distributed import Client, get_worker, wait
def record(number):
    get_worker().log_event('finished', number)
    return number
with Client(sys.argv[1], timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    futures = client.map(record, range(40))
    wait(futures)
    client.publish_dataset(numbers=futures)
    print('computed')
";

const GATHER: &str = "
import collections, sys
from dask.distributed import Client
with Client(sys.argv[1], timeout=30) as client:
    assert client.gather(client.get_dataset('numbers')) == list(range(40))
    counts = collections.Counter(number for _, number in client.get_events('finished'))
    print('computed again', {n: c for n, c in counts.items() if c != 1})
";

#[test]
fn api_server_that_hangs_and_one_that_is_gone_for_half_a_minute_cost_nothing() {
    with_temp_namespace_alone(async |namespace, _alone| {
        operator::ensure(&namespace.cluster).await?;
        namespace
            .apply(&manifest::cluster("simple", &image("stock"), 2))
            .await?;
        until_ready(namespace, 2).await?;
        says(namespace, COMPUTE, "computed").await?;
        let before = uids(namespace, PODS).await?;
        let node = control_plane(namespace).await?;
        for (what, workers) in [("answers", 3), ("api-server", 4)] {
            // Asked for right before nobody can be asked any more.
            let stop = stop(namespace, &node, what, 30).await?;
            let replicas = format!("--replicas={workers}");
            let scale = ["scale", "daskworkergroup", "simple-default", &*replicas];
            eventually("scale", async || namespace.kubectl(&scale).await.map(drop)).await?;
            let began = Instant::now();
            ended(namespace, &stop).await?;
            until_ready(namespace, workers).await.context(what)?;
            println!(
                "{what}: {workers} workers {:.0} s later",
                began.elapsed().as_secs_f64()
            );
        }
        let after = uids(namespace, PODS).await?;
        ensure!(
            before.iter().all(|uid| after.contains(uid)),
            "pods were replaced"
        );
        says(namespace, GATHER, "computed again {}").await
    });
}

#[test]
fn workers_of_a_node_that_stops_are_named_and_run_on_others() {
    with_temp_namespace_alone(async |namespace, _alone| {
        operator::ensure(&namespace.cluster).await?;
        let Some(node) = node_without_operator(namespace).await? else {
            println!("only where a node has neither the control plane nor the operator");
            return Ok(());
        };
        namespace.apply(&prefers(namespace, &node).await?).await?;
        until_ready(namespace, 2).await?;
        let before = uids(namespace, WORKERS).await?;
        let nodes: Vec<_> = pods(namespace, WORKERS)
            .await?
            .into_iter()
            .filter_map(|pod| pod.spec?.node_name)
            .collect();
        ensure!(nodes.contains(&node), "no worker on {node}: {nodes:?}");
        let stop = stop(namespace, &node, "node", 100).await?;
        wait::until("the API shows it", NODE_DEADLINE, async || {
            let pods = pods(namespace, WORKERS).await?;
            let lost = pods.iter().any(|pod| condition(pod, "Ready") == "False");
            Ok(if lost {
                Ok(())
            } else {
                Err("all are ready".into())
            })
        })
        .await?;
        let shown = Instant::now();
        wait::until("NodeNotReady", SAID_WITHIN, async || {
            let said = said(namespace, "WorkersReady").await?;
            Ok(if said.starts_with("False NodeNotReady") {
                Ok(())
            } else {
                Err(said)
            })
        })
        .await?;
        println!(
            "said {:.1} s after the API showed it",
            shown.elapsed().as_secs_f64()
        );
        wait::until("workers elsewhere", NODE_DEADLINE, async || {
            let elsewhere = pods(namespace, WORKERS).await?.into_iter().filter(|pod| {
                let at = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                at != Some(&*node) && condition(pod, "Ready") == "True"
            });
            Ok(match elsewhere.count() {
                2 => Ok(()),
                count => Err(format!("{count}")),
            })
        })
        .await?;
        until_ready(namespace, 2).await?;
        ended(namespace, &stop).await?;
        wait::until("what was lost is gone", RECOVERY_DEADLINE, async || {
            let now = uids(namespace, WORKERS).await?;
            let old = now.iter().filter(|uid| before.contains(uid)).count();
            Ok(if now.len() == 2 && old < 2 {
                Ok(())
            } else {
                Err(format!("{} pods, {old} of them old", now.len()))
            })
        })
        .await?;
        until_ready(namespace, 2).await
    });
}

/// Starts the pod that stops something of a node; returns its name.
async fn stop(namespace: &Namespace, node: &str, what: &str, seconds: u32) -> Result<String> {
    let pod = json!({
        "metadata": {"generateName": "stop-"},
        "spec": {
            "nodeName": node,
            "hostPID": true,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "stop",
                "image": image("stock"),
                "imagePullPolicy": "IfNotPresent",
                "args": ["python", "-c", STOP, seconds.to_string(), what],
                "securityContext": {"privileged": true, "runAsUser": 0},
            }],
        },
    });
    let pod: Pod = serde_json::from_value(pod).context("failed to build the pod")?;
    let made = namespace
        .api::<Pod>()
        .create(&PostParams::default(), &pod)
        .await
        .context("failed to create the pod that stops something")?;
    Ok(made.name_any())
}

/// Waits until the pod that stopped something has let it go on.
async fn ended(namespace: &Namespace, pod: &str) -> Result<()> {
    let pods = namespace.api::<Pod>();
    wait::until(format!("end of {pod}"), RECOVERY_DEADLINE, async || {
        // Nobody answers for a while.
        let phase = match pods.get(pod).await {
            Ok(pod) => pod.status.unwrap_or_default().phase.unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        ensure!(phase != "Failed", "{pod} failed");
        Ok(if phase == "Succeeded" {
            Ok(())
        } else {
            Err(phase)
        })
    })
    .await
}

/// Asks until it is answered.
async fn eventually(what: &str, ask: impl AsyncFn() -> Result<()>) -> Result<()> {
    wait::until(what, RECOVERY_DEADLINE, async || {
        Ok(ask().await.map_err(|error| format!("{error:#}")))
    })
    .await
}

async fn control_plane(namespace: &Namespace) -> Result<String> {
    let nodes = nodes(namespace).await?;
    let node = nodes
        .iter()
        .find(|node| node.labels().contains_key(CONTROL_PLANE));
    node.map(ResourceExt::name_any)
        .context("no node has the control plane")
}

async fn node_without_operator(namespace: &Namespace) -> Result<Option<String>> {
    let operators = Api::<Pod>::namespaced(namespace.cluster.client.clone(), operator::NAMESPACE)
        .list(&ListParams::default())
        .await?;
    let taken: Vec<_> = operators
        .items
        .into_iter()
        .filter_map(|pod| pod.spec?.node_name)
        .collect();
    let free = nodes(namespace).await?.into_iter().find(|node| {
        !node.labels().contains_key(CONTROL_PLANE) && !taken.contains(&node.name_any())
    });
    Ok(free.map(|node| node.name_any()))
}

async fn nodes(namespace: &Namespace) -> Result<Vec<Node>> {
    Ok(Api::<Node>::all(namespace.cluster.client.clone())
        .list(&ListParams::default())
        .await?
        .items)
}

/// A cluster whose workers run on this node if they can and leave it soon when it is lost, and whose scheduler does not.
async fn prefers(namespace: &Namespace, node: &str) -> Result<String> {
    let words = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
    let cluster = manifest::cluster("simple", &image("stock"), 2);
    let json = namespace.cluster.kubectl.feed(&words, &cluster).await?;
    let mut cluster: Value = serde_json::from_str(&json).context("kubectl printed no JSON")?;
    cluster["metadata"] = json!({"name": "simple"});
    let host = |operator: &str| {
        json!({"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": operator, "values": [node]},
        ]})
    };
    cluster["spec"]["worker"]["spec"]["affinity"] = json!({"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": host("In")}],
    }});
    cluster["spec"]["scheduler"]["spec"]["affinity"] = json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [host("NotIn")]},
    }});
    let leave = |key: &str| {
        json!({
            "key": format!("node.kubernetes.io/{key}"),
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 8,
        })
    };
    cluster["spec"]["worker"]["spec"]["tolerations"] =
        json!([leave("not-ready"), leave("unreachable")]);
    Ok(cluster.to_string())
}

async fn until_ready(namespace: &Namespace, workers: i64) -> Result<()> {
    let what = format!("{workers} workers and Ready");
    wait::until(what, RECOVERY_DEADLINE, async || {
        let ready = match said(namespace, "Ready").await {
            Ok(ready) => ready,
            Err(error) => return Ok(Err(format!("{error:#}"))),
        };
        let groups = ["get", "daskworkergroup", "simple-default", "-o"];
        let count = "jsonpath={.status.readyReplicas}";
        let count = namespace.kubectl(&[&groups[..], &[count]].concat()).await;
        let count = count.unwrap_or_default();
        Ok(
            if ready.starts_with("True") && count == workers.to_string() {
                Ok(())
            } else {
                Err(format!("{count} workers, {ready}"))
            },
        )
    })
    .await
}

/// Status, reason and message of a condition of the cluster.
async fn said(namespace: &Namespace, type_: &str) -> Result<String> {
    let cluster = namespace.api::<DaskCluster>().get("simple").await?;
    let conditions = cluster.status.unwrap_or_default().conditions;
    let said = conditions.into_iter().find(|said| said.type_ == type_);
    Ok(said.map_or_else(String::new, |said| {
        format!("{} {}: {}", said.status, said.reason, said.message)
    }))
}

async fn says(namespace: &Namespace, program: &str, line: &str) -> Result<()> {
    let address = format!("tcp://simple-scheduler.{}.svc:8786", namespace.name);
    let output = namespace
        .python(&image("stock"), program, &[&address])
        .await?;
    ensure!(
        output.lines().any(|printed| printed == line),
        "no line {line:?} in: {output}"
    );
    Ok(())
}

async fn pods(namespace: &Namespace, label: &str) -> Result<Vec<Pod>> {
    let pods = namespace.api::<Pod>();
    Ok(pods.list(&ListParams::default().labels(label)).await?.items)
}

async fn uids(namespace: &Namespace, label: &str) -> Result<Vec<String>> {
    let pods = pods(namespace, label).await?;
    Ok(pods.iter().filter_map(ResourceExt::uid).collect())
}

/// Status of a pod's condition; empty if it has none.
fn condition<'a>(pod: &'a Pod, type_: &str) -> &'a str {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let mut found = conditions.filter(|condition| condition.type_ == type_);
    found.next().map_or("", |condition| &condition.status)
}
