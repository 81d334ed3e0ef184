//! The fields that dask-kubernetes does not have do on a real cluster what they say.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api,
    api::{EvictParams, ListParams},
};
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace},
    operator, wait,
};
use oxidask_operator_api::{DaskCluster, DaskWorkerGroup};

use crate::manifest;

const DEADLINE: Duration = Duration::from_secs(90);
const PODS: &str = "dask.org/cluster-name=simple";
const WORKERS: &str = "dask.org/cluster-name=simple,dask.org/component=worker";
const SCHEDULER: &str = "dask.org/cluster-name=simple,dask.org/component=scheduler";

#[test]
fn nthreads_is_what_clients_see_of_each_worker() {
    with_temp_namespace(async |namespace| {
        let plain = simple(2).replace(r#", --nthreads, "1""#, "");
        start(namespace, &manifest::with_worker(&plain, "nthreads: 3")).await?;
        let program = "
import sys
from dask.distributed import Client
with Client(sys.argv[1], timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    print('threads', sorted(client.nthreads().values()))
";
        says(namespace, program, "tcp", "threads [3, 3]").await
    });
}

#[test]
fn suspended_cluster_has_no_pods_and_comes_back_with_its_number_of_workers() {
    with_temp_namespace(async |namespace| {
        start(namespace, &simple(2)).await?;
        change(namespace, r#"{"spec": {"suspend": true}}"#).await?;
        namespace.until_none::<Pod>(PODS, DEADLINE).await?;
        until_condition(namespace, "Suspended", "True", "Suspended").await?;
        ensure!(names::<Deployment>(namespace, SCHEDULER).await?.len() == 1);
        change(namespace, r#"{"spec": {"suspend": false}}"#).await?;
        until_condition(namespace, "Ready", "True", "Ready").await?;
        ensure!(names::<Pod>(namespace, WORKERS).await?.len() == 2);
        Ok(())
    });
}

#[test]
fn idle_cluster_is_scaled_to_zero_suspended_or_deleted_as_its_action_says() {
    with_temp_namespace(async |namespace| {
        start(namespace, &simple(1)).await?;
        let idle =
            |action: &str| format!(r#"{{"spec": {{"idleTimeout": 3, "idleAction": "{action}"}}}}"#);
        change(namespace, &idle("scaleToZero")).await?;
        namespace.until_none::<Pod>(WORKERS, DEADLINE).await?;
        ensure!(
            names::<Pod>(namespace, SCHEDULER).await?.len() == 1,
            "the scheduler went too"
        );
        change(namespace, &idle("suspend")).await?;
        namespace.until_none::<Pod>(PODS, DEADLINE).await?;
        let cluster = namespace.api::<DaskCluster>().get("simple").await?;
        ensure!(cluster.spec.suspend == Some(true));
        let again = r#"{"spec": {"suspend": false, "idleAction": "delete"}}"#;
        change(namespace, again).await?;
        namespace.until_none::<DaskCluster>("", DEADLINE).await
    });
}

#[test]
fn drain_timeout_ends_a_worker_that_does_not_finish_and_no_earlier() {
    with_temp_namespace(async |namespace| {
        let cluster = manifest::with_worker(&simple(2), "drainTimeoutSeconds: 8");
        start(namespace, &cluster).await?;
        let program = "
import sys, time
from dask.distributed import Client, fire_and_forget
with Client(sys.argv[1], timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    for number in range(2):
        fire_and_forget(client.submit(time.sleep, 600 + number))
    while len([t for t in client.processing().values() if t]) < 2:
        time.sleep(0.1)
    print('busy')
";
        says(namespace, program, "tcp", "busy").await?;
        let began = Instant::now();
        scale(namespace, 1).await?;
        until_count::<Pod>(namespace, WORKERS, 1).await?;
        let took = began.elapsed();
        println!("a busy worker went after {:.1} s", took.as_secs_f64());
        // Its own grace of 5 s comes on top.
        ensure!(
            (Duration::from_secs(7)..Duration::from_secs(20)).contains(&took),
            "after {took:?}"
        );
        Ok(())
    });
}

#[test]
fn tls_refuses_a_plain_client_and_serves_one_with_the_secret() {
    with_temp_namespace(async |namespace| tls(namespace, &image("stock")).await);
}

#[test]
fn tls_of_our_image_refuses_a_plain_client_and_serves_one_with_the_secret() {
    with_temp_namespace(async |namespace| tls(namespace, &image("dask")).await);
}

async fn tls(namespace: &Namespace, pods: &str) -> Result<()> {
    let cluster = manifest::cluster("simple", pods, 2);
    let cluster = manifest::with(&cluster, "tls: {enabled: true}");
    start(namespace, &cluster).await?;
    let plain = "
import sys
from dask.distributed import Client
try:
    Client(sys.argv[1], timeout=5)
    print('let in')
except Exception as error:
    print('refused', type(error).__name__)
";
    let output = run(namespace, plain, "tcp", &[]).await?;
    ensure!(
        output.contains("refused") && !output.contains("let in"),
        "{output}"
    );
    let secret = namespace.api::<Secret>().get("simple-tls").await?;
    let text = |key: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        let value = value.with_context(|| format!("no {key}"))?;
        String::from_utf8(value.0.clone()).context("not PEM")
    };
    let files = [text("ca.crt")?, text("tls.crt")?, text("tls.key")?];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let program = "
import sys
from dask.distributed import Client
from distributed import Security
address, ca, cert, key = sys.argv[1:]
security = Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)
with Client(address, security=security, timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    workers = client.scheduler_info()['workers']
    assert all(address.startswith('tls://') for address in workers), workers
    print('sum', client.submit(sum, client.map(abs, range(-5, 5))).result())
";
    let output = run(namespace, program, "tls", &files).await?;
    ensure!(output.contains("sum 25"), "{output}");
    // The operator speaks TLS too: a scale-down asks the scheduler first.
    let retired = Instant::now();
    scale(namespace, 1).await?;
    until_count::<Pod>(namespace, WORKERS, 1).await?;
    ensure!(
        retired.elapsed() < Duration::from_secs(30),
        "after {:?}",
        retired.elapsed()
    );
    Ok(())
}

#[test]
fn network_policies_are_made_as_asked_and_taken_away() {
    with_temp_namespace(async |namespace| {
        let field = "networkPolicy: {enabled: true, clients: [{namespaceSelector: {}}]}";
        start(namespace, &manifest::with(&simple(1), field)).await?;
        let policies = namespace.api::<NetworkPolicy>();
        let to_scheduler = policies
            .get("simple-scheduler")
            .await?
            .spec
            .unwrap_or_default();
        let ports = to_scheduler.ingress.unwrap_or_default();
        ensure!(
            ports.len() == 2
                && ports[1]
                    .ports
                    .as_ref()
                    .is_some_and(|ports| ports.len() == 2)
        );
        policies.get("simple-pods").await?;
        change(namespace, r#"{"spec": {"networkPolicy": null}}"#).await?;
        namespace.until_none::<NetworkPolicy>("", DEADLINE).await
    });
}

#[test]
fn disruption_budget_keeps_the_scheduler_and_all_workers_but_one_from_eviction() {
    with_temp_namespace(async |namespace| {
        let field = "podDisruptionBudget: {protectScheduler: true}";
        start(namespace, &manifest::with(&simple(2), field)).await?;
        let pods = namespace.api::<Pod>();
        let scheduler = names::<Pod>(namespace, SCHEDULER).await?;
        stays(&pods, &scheduler[0]).await?;
        let budgets = namespace.api::<PodDisruptionBudget>();
        let allowed = async || {
            let status = budgets
                .get("simple-default")
                .await?
                .status
                .unwrap_or_default();
            anyhow::Ok((status.expected_pods, status.disruptions_allowed))
        };
        let before = allowed().await?;
        ensure!(before == (2, 1), "{before:?}");
        let workers = names::<Pod>(namespace, WORKERS).await?;
        pods.evict(&workers[0], &EvictParams::default()).await?;
        let after = allowed().await?;
        ensure!(after == (2, 0), "{after:?}");
        change(namespace, r#"{"spec": {"podDisruptionBudget": null}}"#).await?;
        namespace
            .until_none::<PodDisruptionBudget>("", DEADLINE)
            .await
    });
}

/// Asks for an eviction for a while; the client itself asks again when it is refused for now.
async fn stays(pods: &Api<Pod>, name: &str) -> Result<()> {
    let params = EvictParams::default();
    let evicted = pods.evict(name, &params);
    match tokio::time::timeout(Duration::from_secs(5), evicted).await {
        Ok(Ok(_)) => bail!("{name} was evicted"),
        Ok(Err(kube::Error::Api(status))) if status.code != 429 => bail!("{status}"),
        _ => Ok(()),
    }
}

#[test]
fn injected_programs_run_in_the_stock_image_and_compute() {
    with_temp_namespace(async |namespace| {
        let field = "rust: {scheduler: true, worker: true}";
        start(namespace, &manifest::with(&simple(2), field)).await?;
        let program = "
import sys
from dask.distributed import Client
with Client(sys.argv[1], timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    print('sum', client.submit(sum, client.map(abs, range(-5, 5))).result())
";
        says(namespace, program, "tcp", "sum 25").await?;
        for (pods, program) in [(SCHEDULER, "dask-scheduler"), (WORKERS, "dask-worker")] {
            let pod = names::<Pod>(namespace, pods).await?.remove(0);
            let read = "import os; print(os.readlink('/proc/1/exe'))";
            let running = namespace
                .kubectl(&["exec", &pod, "--", "python3", "-c", read])
                .await?;
            ensure!(
                running.trim() == format!("/opt/oxidask/{program}"),
                "{running}"
            );
        }
        until_condition(namespace, "CommandRecognised", "True", "Recognised").await
    });
}

#[test]
fn command_that_is_not_recognised_is_said_and_runs_as_it_is() {
    with_temp_namespace(async |namespace| {
        let args = r#"args: [sh, -c, "exec dask-worker --name $(DASK_WORKER_NAME)"]"#;
        let cluster = simple(1);
        let line = cluster
            .lines()
            .find(|line| line.contains("args: [dask-worker"));
        let line = line.context("no worker in the manifest")?.trim();
        let cluster = manifest::with(&cluster.replace(line, args), "rust: {worker: true}");
        start(namespace, &cluster).await?;
        until_condition(
            namespace,
            "CommandRecognised",
            "False",
            "CommandNotRecognised",
        )
        .await
    });
}

#[test]
fn autoscaler_scales_a_further_group_within_its_own_bounds() {
    with_temp_namespace(async |namespace| {
        start(namespace, &simple(0)).await?;
        namespace
            .apply(&manifest::group("more", "simple", &image("stock"), 0))
            .await?;
        let autoscaler = manifest::autoscaler("simple", 0, 1);
        let bounds = "maximum: 1, groups: [{name: more, minimum: 0, maximum: 2}]}";
        namespace
            .apply(&autoscaler.replace("maximum: 1}", bounds))
            .await?;
        let program = "
import sys, time
from dask.distributed import Client, fire_and_forget
with Client(sys.argv[1], timeout=30) as client:
    for number in range(40):
        fire_and_forget(client.submit(time.sleep, 60 + number))
    print('asked')
";
        says(namespace, program, "tcp", "asked").await?;
        let groups = namespace.api::<DaskWorkerGroup>();
        wait::until("both groups at their maximum", DEADLINE, async || {
            let mut sizes = Vec::new();
            for name in ["simple-default", "more"] {
                sizes.push(groups.get(name).await?.spec.worker.replicas);
            }
            Ok(if sizes == [1, 2] {
                Ok(())
            } else {
                Err(format!("{sizes:?}"))
            })
        })
        .await
    });
}

#[test]
fn worker_whose_pod_is_evicted_hands_its_results_over_first() {
    with_temp_namespace(async |namespace| {
        let cluster = manifest::with_worker(&simple(2), "drainTimeoutSeconds: 60");
        start(namespace, &cluster).await?;
        let compute = "
import sys
from dask.distributed import Client, get_worker, wait
def record(number):
    get_worker().log_event('finished', number)
    return number
with Client(sys.argv[1], timeout=30) as client:
    client.wait_for_workers(2, timeout=60)
    futures = client.map(record, range(40))
    wait(futures)
    assert all(client.has_what().values()), client.has_what()
    client.publish_dataset(numbers=futures)
    print('computed')
";
        says(namespace, compute, "tcp", "computed").await?;
        let pods = namespace.api::<Pod>();
        let before = names::<Pod>(namespace, WORKERS).await?;
        let began = Instant::now();
        pods.evict(&before[0], &EvictParams::default()).await?;
        wait::until("another worker in its place", DEADLINE, async || {
            let now = names::<Pod>(namespace, WORKERS).await?;
            Ok(if now.len() == 2 && !now.contains(&before[0]) {
                Ok(())
            } else {
                Err(now.join(", "))
            })
        })
        .await?;
        println!(
            "evicted, drained and replaced in {:.1} s",
            began.elapsed().as_secs_f64()
        );
        let gather = "
import collections, sys
from dask.distributed import Client
with Client(sys.argv[1], timeout=30) as client:
    numbers = client.gather(client.get_dataset('numbers'))
    assert numbers == list(range(40)), numbers
    counts = collections.Counter(number for _, number in client.get_events('finished'))
    print('computed again', {n: c for n, c in counts.items() if c != 1})
";
        says(namespace, gather, "tcp", "computed again {}").await
    });
}

fn simple(replicas: u32) -> String {
    manifest::cluster("simple", &image("stock"), replicas)
}

/// Applies the manifest of a cluster and waits until it is ready.
async fn start(namespace: &Namespace, cluster: &str) -> Result<()> {
    operator::ensure(&namespace.cluster).await?;
    namespace.apply(cluster).await?;
    until_condition(namespace, "Ready", "True", "Ready").await
}

async fn change(namespace: &Namespace, patch: &str) -> Result<()> {
    let words = [
        "patch",
        "daskcluster",
        "simple",
        "--type=merge",
        "-p",
        patch,
    ];
    namespace.kubectl(&words).await.map(drop)
}

async fn scale(namespace: &Namespace, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    let words = [
        "scale",
        "daskworkergroups.kubernetes.dask.org",
        "simple-default",
        &replicas,
    ];
    namespace.kubectl(&words).await.map(drop)
}

/// Runs a client program, which is given the scheduler's address and `more`.
async fn run(namespace: &Namespace, program: &str, scheme: &str, more: &[&str]) -> Result<String> {
    let address = format!("{scheme}://simple-scheduler.{}.svc:8786", namespace.name);
    let arguments = [&[&*address], more].concat();
    namespace.python(&image("stock"), program, &arguments).await
}

async fn says(namespace: &Namespace, program: &str, scheme: &str, line: &str) -> Result<()> {
    let output = run(namespace, program, scheme, &[]).await?;
    ensure!(
        output.lines().any(|printed| printed == line),
        "no line {line:?} in: {output}"
    );
    Ok(())
}

async fn until_condition(
    namespace: &Namespace,
    type_: &str,
    status: &str,
    reason: &str,
) -> Result<()> {
    let clusters = namespace.api::<DaskCluster>();
    wait::until(format!("{type_} {status} {reason}"), DEADLINE, async || {
        let cluster = clusters.get("simple").await?;
        let generation = cluster.metadata.generation;
        let conditions = cluster.status.unwrap_or_default().conditions;
        let Some(said) = conditions.into_iter().find(|said| said.type_ == type_) else {
            return Ok(Err(format!("no condition {type_}")));
        };
        let is_wanted = said.status == status && said.reason == reason;
        Ok(if is_wanted && said.observed_generation == generation {
            Ok(())
        } else {
            Err(format!("{} {}: {}", said.status, said.reason, said.message))
        })
    })
    .await
}

async fn until_count<K>(namespace: &Namespace, label: &str, count: usize) -> Result<()>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + for<'de> k8s_openapi::serde::Deserialize<'de>,
{
    wait::until(format!("{count} with {label}"), DEADLINE, async || {
        let names = names::<K>(namespace, label).await?;
        Ok(if names.len() == count {
            Ok(())
        } else {
            Err(names.join(", "))
        })
    })
    .await
}

/// Names of the objects of one kind that have a label, in order.
async fn names<K>(namespace: &Namespace, label: &str) -> Result<Vec<String>>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + for<'de> k8s_openapi::serde::Deserialize<'de>,
{
    let listed = namespace
        .api::<K>()
        .list(&ListParams::default().labels(label))
        .await?;
    let mut names: Vec<String> = listed
        .items
        .iter()
        .filter_map(|object| object.meta().name.clone())
        .collect();
    names.sort_unstable();
    Ok(names)
}
