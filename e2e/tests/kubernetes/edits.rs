//! Edits of a cluster that runs, and the fields of a job.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace},
    operator, wait,
};
use oxidask_operator_api::{DaskCluster, DaskJob, DaskWorkerGroup};

use crate::manifest;

const DEADLINE: Duration = Duration::from_secs(120);
const WORKERS: &str = "dask.org/cluster-name=simple,dask.org/component=worker";
const SCHEDULER: &str = "dask.org/cluster-name=simple,dask.org/component=scheduler";
const RUNNER: &str = "dask.org/component=job-runner";

#[test]
fn edit_of_the_pods_rolls_workers_without_loss_and_the_scheduler_only_when_asked() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        namespace
            .apply(&manifest::cluster("simple", &image("stock"), 2))
            .await?;
        until(namespace, "Ready", "Ready").await?;
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
    client.publish_dataset(numbers=futures)
    print('computed')
";
        says(namespace, compute, "computed").await?;
        let (scheduler, workers) = (
            names(namespace, SCHEDULER).await?,
            names(namespace, WORKERS).await?,
        );
        let env = r#"[{"op": "add", "path": "/spec/PART/spec/containers/0/env", "value": [{"name": "EDITED", "value": "yes"}]}]"#;
        for part in ["worker", "scheduler"] {
            let patch = env.replace("PART", part);
            namespace
                .kubectl(&[
                    "patch",
                    "daskcluster",
                    "simple",
                    "--type=json",
                    "-p",
                    &patch,
                ])
                .await?;
        }
        until(namespace, "SchedulerReady", "SpecChanged").await?;
        wait::until("all workers of the new spec", DEADLINE, async || {
            let now = names(namespace, WORKERS).await?;
            let old = now.iter().filter(|name| workers.contains(name)).count();
            Ok(if old == 0 && now.len() == 2 {
                Ok(())
            } else {
                Err(now.join(", "))
            })
        })
        .await?;
        ensure!(
            names(namespace, SCHEDULER).await? == scheduler,
            "the scheduler restarted unasked"
        );
        let gather = "
import collections, sys
from dask.distributed import Client
with Client(sys.argv[1], timeout=30) as client:
    assert client.gather(client.get_dataset('numbers')) == list(range(40))
    counts = collections.Counter(number for _, number in client.get_events('finished'))
    print('computed again', {n: c for n, c in counts.items() if c != 1})
    print('edited', set(client.run(lambda: __import__('os').environ.get('EDITED')).values()))
";
        let output = says(namespace, gather, "computed again {}").await?;
        ensure!(output.contains("edited {'yes'}"), "{output}");
        let restart = "oxidask.io/restart-scheduler=1";
        namespace
            .kubectl(&["annotate", "daskcluster", "simple", restart])
            .await?;
        wait::until("another scheduler", DEADLINE, async || {
            let now = names(namespace, SCHEDULER).await?;
            Ok(if now.len() == 1 && now != scheduler {
                Ok(())
            } else {
                Err(now.join(", "))
            })
        })
        .await?;
        until(namespace, "Ready", "Ready").await
    });
}

#[test]
fn job_that_fails_is_tried_again_as_often_as_it_says_and_goes_after_its_time() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let job = manifest::job("once", &image("stock"), 0, "raise SystemExit(3)");
        namespace
            .apply(&format!(
                "{job}\n  backoffLimit: 2\n  ttlSecondsAfterFinished: 5\n"
            ))
            .await?;
        let jobs = namespace.api::<DaskJob>();
        let mut runners = std::collections::BTreeSet::new();
        wait::until("the job failed", DEADLINE, async || {
            let pods = namespace
                .api::<Pod>()
                .list(&ListParams::default().labels(RUNNER))
                .await?;
            runners.extend(pods.items.into_iter().filter_map(|pod| pod.metadata.uid));
            let status = jobs.get("once").await?.status.unwrap_or_default();
            let word = status.job_status.unwrap_or_default();
            Ok(if word == "Failed" { Ok(()) } else { Err(word) })
        })
        .await?;
        ensure!(runners.len() == 3, "{} runner pods", runners.len());
        namespace
            .until_none::<DaskJob>("", Duration::from_secs(30))
            .await
    });
}

#[test]
fn job_ends_at_its_deadline_and_takes_its_pods_along() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let job = manifest::job("once", &image("stock"), 0, "import time; time.sleep(600)");
        namespace
            .apply(&format!("{job}\n  activeDeadlineSeconds: 10\n"))
            .await?;
        let began = Instant::now();
        let jobs = namespace.api::<DaskJob>();
        wait::until("the job failed", DEADLINE, async || {
            let status = jobs.get("once").await?.status.unwrap_or_default();
            let word = status.job_status.unwrap_or_default();
            Ok(if word == "Failed" { Ok(()) } else { Err(word) })
        })
        .await?;
        ensure!(
            began.elapsed() < Duration::from_secs(20),
            "after {:?}",
            began.elapsed()
        );
        namespace.until_none::<Pod>("", DEADLINE).await
    });
}

#[test]
fn suspended_job_has_no_pods_and_starts_when_it_may() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let job = manifest::job("once", &image("stock"), 0, "print('ran')");
        namespace
            .apply(&format!("{job}\n  suspend: true\n"))
            .await?;
        let jobs = namespace.api::<DaskJob>();
        let status = async || {
            let status = jobs.get("once").await?.status.unwrap_or_default();
            anyhow::Ok(status.job_status.unwrap_or_default())
        };
        wait::until("the job is seen", DEADLINE, async || {
            let word = status().await?;
            Ok(if word == "JobCreated" {
                Ok(())
            } else {
                Err(word)
            })
        })
        .await?;
        ensure!(
            names(namespace, "dask.org/cluster-name=once")
                .await?
                .is_empty()
        );
        let resume = r#"{"spec": {"suspend": false}}"#;
        namespace
            .kubectl(&["patch", "daskjob", "once", "--type=merge", "-p", resume])
            .await?;
        wait::until("the job ended", DEADLINE, async || {
            let word = status().await?;
            Ok(if word == "Successful" {
                Ok(())
            } else {
                Err(word)
            })
        })
        .await
    });
}

#[test]
fn autoscaler_follows_a_load_trace_with_at_most_one_reversal_in_each_period() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        namespace
            .apply(&manifest::cluster("simple", &image("stock"), 0))
            .await?;
        until(namespace, "SchedulerReady", "Ready").await?;
        namespace
            .apply(&manifest::autoscaler("simple", 0, 3))
            .await?;
        // Two bursts of work with a pause between them: up, down, up, down.
        let load = "
import sys, time
from dask.distributed import Client
with Client(sys.argv[1], timeout=30) as client:
    for burst in range(2):
        futures = client.map(lambda x: time.sleep(1) or x, range(100 * burst, 100 * burst + 45))
        client.gather(futures)
        del futures
        time.sleep(45)
    print('done')
";
        let sizes = &mut Vec::new();
        let groups = namespace.api::<DaskWorkerGroup>();
        let began = Instant::now();
        let watch = async {
            loop {
                let replicas = groups.get("simple-default").await?.spec.worker.replicas;
                if sizes.last().map(|(_, last)| *last) != Some(replicas) {
                    sizes.push((began.elapsed().as_secs(), replicas));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            outcome = says(namespace, load, "done") => outcome.map(drop)?,
            outcome = watch => { let outcome: Result<()> = outcome; outcome? }
        }
        println!("workers over time: {sizes:?}");
        let numbers: Vec<i64> = sizes.iter().map(|(_, number)| *number).collect();
        let turns = numbers
            .windows(3)
            .filter(|three| (three[1] - three[0]).signum() != (three[2] - three[1]).signum())
            .count();
        // Up and down in each of the two periods: three changes of direction.
        ensure!(
            numbers.first() == Some(&0) && numbers.iter().max() == Some(&3),
            "{sizes:?}"
        );
        ensure!(turns <= 3, "{turns} reversals: {sizes:?}");
        Ok(())
    });
}

async fn says(namespace: &Namespace, program: &str, line: &str) -> Result<String> {
    let address = format!("tcp://simple-scheduler.{}.svc:8786", namespace.name);
    let output = namespace
        .python(&image("stock"), program, &[&address])
        .await?;
    ensure!(
        output.lines().any(|printed| printed == line),
        "no line {line:?} in: {output}"
    );
    Ok(output)
}

async fn until(namespace: &Namespace, type_: &str, reason: &str) -> Result<()> {
    let clusters = namespace.api::<DaskCluster>();
    wait::until(format!("{type_} {reason}"), DEADLINE, async || {
        let cluster = clusters.get("simple").await?;
        let generation = cluster.metadata.generation;
        let conditions = cluster.status.unwrap_or_default().conditions;
        let said = conditions.into_iter().find(|said| said.type_ == type_);
        Ok(match said {
            Some(said) if said.reason == reason && said.observed_generation == generation => Ok(()),
            said => Err(said
                .map(|said| format!("{}: {}", said.reason, said.message))
                .unwrap_or_default()),
        })
    })
    .await
}

async fn names(namespace: &Namespace, label: &str) -> Result<Vec<String>> {
    let pods = namespace
        .api::<Pod>()
        .list(&ListParams::default().labels(label))
        .await?;
    let staying = pods
        .items
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let mut names: Vec<String> = staying.filter_map(|pod| pod.metadata.name).collect();
    names.sort_unstable();
    Ok(names)
}
