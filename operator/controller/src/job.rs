//! DaskJob: a runner pod beside a cluster made for it alone.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource as _, ResourceExt as _};
use oxidask_operator_api::{DaskCluster, DaskJob, DaskJobStatus};
use serde_json::json;
use tracing::info;

use crate::api;
use crate::build;
use crate::clock::rfc3339;
use crate::context::{Action, Context};
use crate::error::Error;
use crate::labels::{Map, RETRIES};
use crate::names;
use crate::owners;
use crate::queue::Key;
use crate::takeover;
use crate::views::PodView;

/// What was seen of a job.
struct Seen {
    job: Arc<DaskJob>,
    namespace: String,
    name: String,
    status: DaskJobStatus,
    cluster: Option<Arc<DaskCluster>>,
    runner: Option<Arc<PodView>>,
}

/// What has become of the runner pod.
#[derive(Clone, Debug, PartialEq)]
enum Runner {
    /// It was never made.
    NotMade,
    /// It waits for a node or an image.
    Waiting,
    Running,
    Succeeded,
    /// It failed or was lost, and why.
    Failed(String),
    /// It is being deleted.
    Going,
}

/// Brings a job one step nearer to its end.
pub(crate) async fn reconcile(context: &Context, key: &Key) -> Result<Action, Error> {
    let runner = context
        .stores
        .pods
        .get(&key.namespace, &names::job_runner(&key.name));
    if let Some(runner) = &runner {
        takeover::unmark(&context.client, &**runner).await?;
    }
    let Some(job) = context.stores.jobs.get(&key.namespace, &key.name) else {
        context.memory.forget(key);
        return Ok(Action::AwaitChange);
    };
    takeover::unmark(&context.client, &*job).await?;
    if job.meta().deletion_timestamp.is_some() {
        return Ok(Action::AwaitChange);
    }
    let seen = Seen {
        status: job.status.clone().unwrap_or_default(),
        cluster: context.stores.clusters.get(&key.namespace, &key.name),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        job,
        runner,
    };
    if is_finished(&seen.status) {
        return after_the_end(context, &seen).await;
    }
    if seen.status.job_status.is_none() {
        begin(context, &seen).await?;
    }
    if seen.job.spec.suspend == Some(true) {
        return suspend(context, &seen).await;
    }
    if let Some(action) = deadline(context, &seen).await? {
        return Ok(action);
    }
    run(context, &seen).await
}

fn is_finished(status: &DaskJobStatus) -> bool {
    matches!(status.job_status.as_deref(), Some("Successful" | "Failed"))
}

/// The first words of a job's status, before anything is made: clients read
/// the names as soon as they see the cluster.
async fn begin(context: &Context, seen: &Seen) -> Result<(), Error> {
    info!(
        "A DaskJob has been created called {} in {}.",
        seen.name, seen.namespace
    );
    let note = format!(
        "A DaskJob has been created called {} in {}.",
        seen.name, seen.namespace
    );
    put(context, seen, "JobCreated", json!({})).await?;
    context.events.normal(&*seen.job, "JobCreated", note).await;
    Ok(())
}

async fn put(
    context: &Context,
    seen: &Seen,
    word: &str,
    mut more: serde_json::Value,
) -> Result<(), Error> {
    more["jobStatus"] = json!(word);
    more["clusterName"] = json!(seen.name);
    more["jobRunnerPodName"] = json!(names::job_runner(&seen.name));
    api::merge_status::<DaskJob>(&context.client, &seen.namespace, &seen.name, true, &more).await
}

async fn run(context: &Context, seen: &Seen) -> Result<Action, Error> {
    let (client, namespace) = (&context.client, &seen.namespace);
    let runner = runner(context, seen).await?;
    let lives = !matches!(runner, Runner::Succeeded | Runner::Failed(_));
    if lives && seen.cluster.is_none() {
        api::apply::<DaskCluster>(client, namespace, &build::job_cluster(&seen.job)).await?;
        info!(namespace, name = seen.name, "cluster of the job created");
    }
    let started = || {
        seen.status
            .start_time
            .clone()
            .unwrap_or_else(|| start_time(context, seen))
    };
    let action = remaining(context, seen);
    match runner {
        Runner::NotMade => {
            api::apply::<Pod>(client, namespace, &build::job_runner(&seen.job)).await?;
            put(context, seen, "ClusterCreated", json!({})).await?;
        }
        Runner::Waiting => {
            if !matches!(
                seen.status.job_status.as_deref(),
                Some("ClusterCreated" | "Running")
            ) {
                put(context, seen, "ClusterCreated", json!({})).await?;
            }
        }
        Runner::Going => {}
        Runner::Running => {
            if seen.status.job_status.as_deref() != Some("Running") {
                info!(namespace, name = seen.name, "Job now in running");
                put(context, seen, "Running", json!({"startTime": started()})).await?;
            }
        }
        Runner::Succeeded => {
            let note = "Job succeeded, deleting Dask cluster.".to_owned();
            return finish(context, seen, "Successful", note, started()).await;
        }
        Runner::Failed(why) => {
            if retry(context, seen, &why).await? {
                return Ok(action);
            }
            let note = "Job failed, deleting Dask cluster.".to_owned();
            context
                .events
                .warning(&*seen.job, "RunnerFailed", why)
                .await;
            return finish(context, seen, "Failed", note, started()).await;
        }
    }
    Ok(action)
}

/// What has become of the runner pod. One that was made and is not seen is
/// looked for at the API server before it counts as lost.
async fn runner(context: &Context, seen: &Seen) -> Result<Runner, Error> {
    let name = names::job_runner(&seen.name);
    let found = match &seen.runner {
        Some(runner) => Some(PodView::clone(runner)),
        None if was_made(&seen.status) => {
            api::get::<PodView>(&context.client, &seen.namespace, &name).await?
        }
        None => None,
    };
    if let Some(pod) = &found
        && let Some(replaced) = replaced(seen.job.annotations()).1
        && pod.uid().as_deref() == Some(replaced)
    {
        // It was counted, and then perhaps the process ended.
        if was_made(&seen.status) {
            put(context, seen, "JobCreated", json!({})).await?;
        }
        if pod.metadata.deletion_timestamp.is_none() {
            api::delete::<Pod>(&context.client, &seen.namespace, &name, Some(replaced)).await?;
        }
        return Ok(Runner::Going);
    }
    Ok(match found {
        Some(pod) if owners::controller_uid(&pod.metadata) == seen.job.uid().as_deref() => {
            state(&pod)
        }
        Some(_) => Runner::Failed(format!(
            "there is a pod {name} that does not belong to this job"
        )),
        None if was_made(&seen.status) => Runner::Failed("the runner pod is gone".to_owned()),
        None => Runner::NotMade,
    })
}

fn was_made(status: &DaskJobStatus) -> bool {
    matches!(
        status.job_status.as_deref(),
        Some("ClusterCreated" | "Running")
    )
}

fn state(pod: &PodView) -> Runner {
    match pod.status.phase.as_str() {
        "Succeeded" => Runner::Succeeded,
        "Failed" => {
            let why = match pod.status.reason.as_str() {
                "" => "the runner pod failed".to_owned(),
                reason => format!("the runner pod failed: {reason}"),
            };
            Runner::Failed(why)
        }
        _ if pod.metadata.deletion_timestamp.is_some() => Runner::Going,
        "Running" => Runner::Running,
        _ => Runner::Waiting,
    }
}

/// When the job began, if nobody saw it begin.
fn start_time(context: &Context, seen: &Seen) -> String {
    let finished = seen
        .runner
        .as_ref()
        .filter(|runner| runner.status.phase != "Running");
    let created = finished.and_then(|runner| runner.creation_timestamp());
    rfc3339(created.map_or_else(|| context.clock.now(), |created| created.0))
}

/// Replaces a failed runner pod, if the job allows it. Gives whether it does.
async fn retry(context: &Context, seen: &Seen, why: &str) -> Result<bool, Error> {
    let (client, namespace) = (&context.client, &seen.namespace);
    let limit = seen.job.spec.backoff_limit.unwrap_or(0);
    if limit == 0 {
        return Ok(false);
    }
    // As it is stored, because a look at old state would count a pod twice.
    let Some(job) = api::get::<DaskJob>(client, namespace, &seen.name).await? else {
        return Ok(true);
    };
    let uid = seen
        .runner
        .as_ref()
        .and_then(|runner| runner.uid())
        .unwrap_or_default();
    let (retries, last) = replaced(job.annotations());
    if last == Some(&uid) && !uid.is_empty() {
        return Ok(true);
    }
    if retries >= limit {
        return Ok(false);
    }
    // Counted with the pod's uid before the pod goes, so that another process
    // goes on with it and does not count it again.
    let patch = json!({"metadata": {"annotations": {RETRIES: format!("{} {uid}", retries + 1)}}});
    api::merge::<DaskJob>(client, namespace, &seen.name, &patch).await?;
    // Back to the state before the pod was made, so that it is made again.
    put(context, seen, "JobCreated", json!({})).await?;
    if !uid.is_empty() {
        api::delete::<Pod>(
            client,
            namespace,
            &names::job_runner(&seen.name),
            Some(&uid),
        )
        .await?;
    }
    let note = format!("{why}; it is replaced, retry {} of {limit}", retries + 1);
    context
        .events
        .warning(&*seen.job, "RunnerRetried", note)
        .await;
    Ok(true)
}

/// How many runner pods were replaced, and the uid of the last of them.
fn replaced(annotations: &Map) -> (i64, Option<&str>) {
    let Some(text) = annotations.get(RETRIES) else {
        return (0, None);
    };
    let (count, uid) = text.split_once(' ').unwrap_or((text, ""));
    (
        count.parse().unwrap_or(0),
        Some(uid).filter(|uid| !uid.is_empty()),
    )
}

/// The last words of a job's status, then the end of its cluster.
async fn finish(
    context: &Context,
    seen: &Seen,
    word: &str,
    note: String,
    started: String,
) -> Result<Action, Error> {
    info!(namespace = seen.namespace, name = seen.name, "{note}");
    let now = context.clock.now();
    let ran = started.parse::<Timestamp>().ok();
    let ran = ran.and_then(|started| Duration::try_from(now.duration_since(started)).ok());
    let more = json!({"startTime": started, "endTime": rfc3339(now)});
    put(context, seen, word, more).await?;
    context.metrics.job_finished(word, ran);
    context.events.normal(&*seen.job, word, note).await;
    delete_cluster(context, seen).await?;
    Ok(Action::AwaitChange)
}

async fn delete_cluster(context: &Context, seen: &Seen) -> Result<(), Error> {
    let Some(cluster) = &seen.cluster else {
        return Ok(());
    };
    let ours = owners::controller_uid(&cluster.metadata) == seen.job.uid().as_deref();
    if ours && cluster.metadata.deletion_timestamp.is_none() {
        let uid = cluster.uid();
        api::delete::<DaskCluster>(&context.client, &seen.namespace, &seen.name, uid.as_deref())
            .await?;
    }
    Ok(())
}

/// What is left to do for a job that ended.
async fn after_the_end(context: &Context, seen: &Seen) -> Result<Action, Error> {
    delete_cluster(context, seen).await?;
    let Some(ttl) = seen.job.spec.ttl_seconds_after_finished else {
        return Ok(Action::AwaitChange);
    };
    let ended = seen
        .status
        .end_time
        .as_deref()
        .and_then(|time| time.parse::<Timestamp>().ok());
    let passed = ended.map_or(0, |ended| {
        context.clock.now().duration_since(ended).as_secs()
    });
    if passed < ttl {
        return Ok(Action::After(seconds(ttl - passed)));
    }
    let uid = seen.job.uid();
    api::delete::<DaskJob>(&context.client, &seen.namespace, &seen.name, uid.as_deref()).await?;
    Ok(Action::AwaitChange)
}

/// Takes the pods of a suspended job away.
async fn suspend(context: &Context, seen: &Seen) -> Result<Action, Error> {
    if was_made(&seen.status) {
        put(context, seen, "JobCreated", json!({})).await?;
        let note = "The job is suspended: its cluster and runner are removed.".to_owned();
        context.events.normal(&*seen.job, "Suspended", note).await;
    }
    delete_cluster(context, seen).await?;
    if let Some(runner) = &seen.runner
        && runner.metadata.deletion_timestamp.is_none()
    {
        let uid = runner.uid();
        api::delete::<Pod>(
            &context.client,
            &seen.namespace,
            &runner.name_any(),
            uid.as_deref(),
        )
        .await?;
    }
    Ok(Action::AwaitChange)
}

/// Ends a job whose time is over.
async fn deadline(context: &Context, seen: &Seen) -> Result<Option<Action>, Error> {
    let Some(limit) = seen.job.spec.active_deadline_seconds else {
        return Ok(None);
    };
    if age(context, seen) < limit {
        return Ok(None);
    }
    let why = format!("activeDeadlineSeconds ({limit}) is over");
    context
        .events
        .warning(&*seen.job, "DeadlineExceeded", why)
        .await;
    let started = seen
        .status
        .start_time
        .clone()
        .unwrap_or_else(|| start_time(context, seen));
    let note = "Job failed, deleting Dask cluster.".to_owned();
    let action = finish(context, seen, "Failed", note, started).await?;
    let uid = seen.runner.as_ref().and_then(|runner| runner.uid());
    if uid.is_some() {
        let name = names::job_runner(&seen.name);
        api::delete::<Pod>(&context.client, &seen.namespace, &name, uid.as_deref()).await?;
    }
    Ok(Some(action))
}

/// Seconds since the job was created.
fn age(context: &Context, seen: &Seen) -> i64 {
    let created = seen.job.creation_timestamp();
    created.map_or(0, |created| {
        context.clock.now().duration_since(created.0).as_secs()
    })
}

/// When to look again because of the deadline.
fn remaining(context: &Context, seen: &Seen) -> Action {
    match seen.job.spec.active_deadline_seconds {
        Some(limit) => Action::After(seconds(limit - age(context, seen))),
        None => Action::AwaitChange,
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds.max(1)).unwrap_or(1))
}
