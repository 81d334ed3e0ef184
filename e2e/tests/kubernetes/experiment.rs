//! Scaling experiments: sweeps that are interrupted, cells that fail, deletion in the middle.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Service},
};
use kube::api::ListParams;
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace, with_temp_namespace_alone},
    operator, wait,
};
use oxidask_operator_api::experiment::ExperimentRow;
use oxidask_operator_api::{
    DaskCluster, DaskWorkerGroup, ScalingExperiment, ScalingExperimentStatus,
};
use serde_json::json;

use crate::manifest;

/// How long a sweep of a dozen cells may take: each needs workers of its own.
const SWEEP_DEADLINE: Duration = Duration::from_secs(480);

/// How long after its deletion an experiment's objects may be seen.
const GONE_DEADLINE: Duration = Duration::from_secs(60);

const PROGRAM: &str = include_str!("python/cell.py");

#[test]
fn pi_over_nodes_and_cores_is_measured_although_the_operator_is_killed_in_the_middle() {
    with_temp_namespace_alone(async |namespace, alone| {
        operator::ensure(&namespace.cluster).await?;
        let what = "workload: {python: {}}\n  sizes: [20000]\n  nodes: [1, 2, 3]\n  cores: [1, 2]\n  report: {enabled: false}";
        namespace.apply(&experiment("pi", what, 120)).await?;
        let mut spread = Vec::new();
        let mut kills = 0;
        let status = until(namespace, "pi", "the end", async |status| {
            if status.rows.len() > 2 * kills && kills < 2 {
                kills += 1;
                operator::kill(namespace, alone).await?;
            }
            note_spread(namespace, &mut spread).await?;
            Ok(status.end_time.is_some())
        })
        .await?;
        ensure!(kills == 2, "it ended before the operator was killed");
        ensure!(status.phase.as_deref() == Some("Complete"), "{status:?}");
        ensure!(status.progress.as_deref() == Some("6/6"), "{status:?}");
        let cells: Vec<(i64, i64)> = status
            .rows
            .iter()
            .map(|row| (row.nodes, row.cores))
            .collect();
        ensure!(
            cells == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)],
            "{cells:?}"
        );
        ensure!(
            status.rows.iter().all(|row| row.seconds.is_some()),
            "{status:?}"
        );
        ensure!(
            status.table.iter().all(|row| row.speedup.is_some()),
            "{status:?}"
        );
        ensure!(
            spread.contains(&3),
            "three workers were never on three nodes: {spread:?}"
        );
        let results = namespace.api::<ConfigMap>().get("pi-results").await?;
        let rows = results.data.unwrap_or_default().remove("rows.json");
        ensure!(
            rows.is_some_and(|rows| rows.contains("\"workload\":\"python\"")),
            "no rows"
        );
        let shown = namespace
            .kubectl(&["get", "scalingexperiment", "pi"])
            .await?;
        ensure!(
            shown.contains("Complete") && shown.contains("6/6") && shown.contains(" s, "),
            "{shown}"
        );
        gone(namespace, "pi", false).await?;
        namespace
            .kubectl(&["delete", "scalingexperiment", "pi"])
            .await?;
        gone(namespace, "pi", true).await
    });
}

#[test]
fn cell_with_more_workers_than_nodes_is_unschedulable_and_the_others_are_measured() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let what = "workload: {python: {}}\n  sizes: [2000]\n  nodes: [4, 1]\n  cores: [1]\n  report: {enabled: false}";
        namespace.apply(&experiment("wide", what, 60)).await?;
        let status = until(namespace, "wide", "the end", async |status| {
            Ok(status.end_time.is_some())
        })
        .await?;
        let row = |nodes: i64| -> Result<&ExperimentRow> {
            let found = status.rows.iter().find(|row| row.nodes == nodes);
            found.with_context(|| format!("no row of {nodes} nodes in {status:?}"))
        };
        ensure!(
            row(4)?.reason.as_deref() == Some("Unschedulable"),
            "{status:?}"
        );
        let error = row(4)?.error.clone().unwrap_or_default();
        ensure!(error.contains("3 of 4 workers are ready"), "{error}");
        ensure!(error.contains("topology spread constraints"), "{error}");
        ensure!(row(1)?.seconds.is_some(), "{status:?}");
        ensure!(status.failed == Some(1), "{status:?}");
        ensure!(status.phase.as_deref() == Some("Complete"), "{status:?}");
        Ok(())
    });
}

#[test]
fn experiment_deleted_in_the_middle_of_a_cell_leaves_nothing() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let what = "workload: {python: {}}\n  sizes: [1000000000]\n  nodes: [2]\n  cores: [1]";
        namespace.apply(&experiment("long", what, 120)).await?;
        wait::until("a running cell", SWEEP_DEADLINE, async || {
            let label = ListParams::default().labels("dask.org/component=experiment-runner");
            let pods = namespace.api::<Pod>().list(&label).await?;
            let phase = |pod: &Pod| pod.status.as_ref()?.phase.clone();
            let phases: Vec<_> = pods.items.iter().filter_map(phase).collect();
            Ok(if phases == ["Running"] {
                Ok(())
            } else {
                Err(format!("{phases:?}"))
            })
        })
        .await?;
        namespace
            .kubectl(&["delete", "scalingexperiment", "long", "--wait=false"])
            .await?;
        gone(namespace, "long", true).await
    });
}

#[test]
fn experiment_that_cannot_be_run_is_refused_by_the_api_server_with_the_field() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        for (what, word) in [
            (
                "workload: {pi: {}, matmul: {}}\n  sizes: [1]\n  nodes: [1]\n  cores: [1]",
                "exactly one",
            ),
            (
                "workload: {pi: {}}\n  sizes: [1]\n  nodes: [1, 1]\n  cores: [1]",
                "Duplicate",
            ),
            (
                "workload: {pi: {}}\n  sizes: [0]\n  nodes: [1]\n  cores: [1]",
                "greater than or equal to 1",
            ),
            (
                "workload: {pi: {}}\n  sizes: [1, 2]\n  nodes: [1, 2, 3]\n  cores: [1, 2]\n  repeats: 100",
                "1000 cells",
            ),
            (
                "workload: {pi: {}}\n  sizes: []\n  nodes: [1]\n  cores: [1]",
                "sizes",
            ),
        ] {
            let Err(error) = namespace.apply(&experiment("bad", what, 60)).await else {
                anyhow::bail!("accepted: {what}");
            };
            let error = format!("{error:#}");
            ensure!(error.contains(word), "{what}: {error}");
        }
        let what =
            "workload: {python: {}}\n  sizes: [1]\n  nodes: [1]\n  cores: [1]\n  suspend: true";
        namespace.apply(&experiment("still", what, 60)).await?;
        let change = r#"{"spec": {"nodes": [2]}}"#;
        let patch = [
            "patch",
            "scalingexperiment",
            "still",
            "--type=merge",
            "-p",
            change,
        ];
        let Err(error) = namespace.kubectl(&patch).await else {
            anyhow::bail!("the nodes of an experiment were changed");
        };
        ensure!(
            format!("{error:#}").contains("cannot be changed"),
            "{error:#}"
        );
        Ok(())
    });
}

/// An experiment with a Python runner on our own scheduler and workers. `what`: fields of its spec, each on a line
/// indented by two.
fn experiment(name: &str, what: &str, start_seconds: u32) -> String {
    let image = image("dask");
    let runner = json!({"spec": {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "runner",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["python", "-c", PROGRAM],
        }],
    }});
    let spec = manifest::cluster_spec(name, &image, 0)
        .replace(
            "args: [dask-worker",
            "resources: {requests: {cpu: 50m}}\n        args: [dask-worker",
        )
        .replace('\n', "\n    ");
    format!(
        "
apiVersion: oxidask.io/v1alpha1
kind: ScalingExperiment
metadata:
  name: {name}
spec:
  {what}
  limits: {{startSeconds: {start_seconds}, cellSeconds: 120}}
  runner: {runner}
  cluster:
    spec:
{spec}"
    )
}

/// Waits for something about the status.
pub(crate) async fn until(
    namespace: &Namespace,
    name: &str,
    what: &str,
    mut done: impl AsyncFnMut(&ScalingExperimentStatus) -> Result<bool>,
) -> Result<ScalingExperimentStatus> {
    let experiments = namespace.api::<ScalingExperiment>();
    wait::until(format!("{what} of {name}"), SWEEP_DEADLINE, async || {
        let status = experiments.get(name).await?.status.unwrap_or_default();
        Ok(if done(&status).await? {
            Ok(status)
        } else {
            Err(format!("{:?}: {:?}", status.progress, status.message))
        })
    })
    .await
}

/// Notes on how many nodes the workers are while a runner runs.
async fn note_spread(namespace: &Namespace, spread: &mut Vec<usize>) -> Result<()> {
    let of =
        |component: &str| ListParams::default().labels(&format!("dask.org/component={component}"));
    let pods = namespace.api::<Pod>();
    let running = |pod: &&Pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                == Some("Running")
    };
    let runners = pods.list(&of("experiment-runner")).await?.items;
    if !runners.iter().any(|pod| running(&pod)) {
        return Ok(());
    }
    let workers = pods.list(&of("worker")).await?.items;
    let running: Vec<&Pod> = workers.iter().filter(running).collect();
    let mut nodes: Vec<_> = running
        .iter()
        .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref())
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    ensure!(
        nodes.len() == running.len(),
        "{} workers share {} nodes",
        running.len(),
        nodes.len()
    );
    if spread.last() != Some(&nodes.len()) {
        spread.push(nodes.len());
    }
    Ok(())
}

/// Waits until the cluster is gone, and all else too if `all`.
pub(crate) async fn gone(namespace: &Namespace, name: &str, all: bool) -> Result<()> {
    let cluster = format!("dask.org/cluster-name={name}");
    let workers = format!("dask.org/component in (scheduler, worker), {cluster}");
    namespace
        .until_none::<DaskCluster>(&cluster, GONE_DEADLINE)
        .await?;
    namespace
        .until_none::<DaskWorkerGroup>("", GONE_DEADLINE)
        .await?;
    namespace
        .until_none::<Deployment>(&cluster, GONE_DEADLINE)
        .await?;
    namespace
        .until_none::<Service>(&cluster, GONE_DEADLINE)
        .await?;
    namespace.until_none::<Pod>(&workers, GONE_DEADLINE).await?;
    if all {
        namespace.until_none::<Pod>(&cluster, GONE_DEADLINE).await?;
        let results = format!("oxidask.io/experiment={name}");
        namespace
            .until_none::<ConfigMap>(&results, GONE_DEADLINE)
            .await?;
    }
    Ok(())
}
