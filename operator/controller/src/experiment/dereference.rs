//! From the stores and the API server to what a plan is made from.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::ResourceExt as _;
use oxidask_operator_api::ScalingExperiment;

use super::row::Ended;
use super::seen::{Cluster, Group, Role, Runner, RunnerState, Seen, Trouble, Workers, next_cell};
use super::sweep::{Cell, Shape};
use crate::api;
use crate::context::Context;
use crate::error::Error;
use crate::labels::{self, ATTEMPT, CELL, CORES, EXPERIMENT, NODES};
use crate::names;
use crate::owners;
use crate::scheduler::WorkerInfo;
use crate::stores::pods_of;
use crate::views::PodView;

/// Looks at everything that an experiment made.
pub(super) async fn look<'a>(
    context: &Context,
    experiment: &ScalingExperiment,
    mut seen: Seen<'a>,
) -> Result<Seen<'a>, Error> {
    let (namespace, name) = (
        experiment.namespace().unwrap_or_default(),
        experiment.name_any(),
    );
    seen.cluster = cluster(context, experiment, &namespace, &name);
    seen.runners = runners(context, experiment, &namespace, &name).await?;
    let wanted = next_cell(seen.cells, seen.status);
    seen.groups = groups(context, &namespace, &name, seen.cells);
    // Only the group that the next cell uses is asked for, and only if its
    // runner is not there yet.
    let runs = |cell: &Cell| {
        let of =
            |runner: &&Runner| matches!(runner.role, Role::Cell { cell: c, .. } if c == cell.index);
        seen.runners.iter().any(|runner| of(&runner))
    };
    if let Some(cell) = wanted.filter(|cell| !runs(cell) && !seen.suspend) {
        for group in &mut seen.groups {
            if group.shape == Some(cell.shape) && !group.going {
                group.workers = workers(context, &namespace, &name, &group.name, cell.shape).await;
            }
        }
    }
    Ok(seen)
}

fn cluster(
    context: &Context,
    experiment: &ScalingExperiment,
    namespace: &str,
    name: &str,
) -> Cluster {
    let stores = &context.stores;
    let scheduler = stores.deployments.get(namespace, &names::scheduler(name));
    let Some(cluster) = stores.clusters.get(namespace, name) else {
        // A new cluster must not find the old one's scheduler.
        return match scheduler {
            Some(_) => Cluster::Going,
            None => Cluster::Absent,
        };
    };
    if owners::controller_uid(&cluster.metadata) != experiment.uid().as_deref() {
        return Cluster::Foreign;
    }
    if cluster.metadata.deletion_timestamp.is_some() {
        return Cluster::Going;
    }
    if context.endpoint(namespace, name).is_some() {
        return Cluster::Ready;
    }
    let pods = stores
        .pods
        .indexed(namespace, &pods_of(labels::SCHEDULER, name));
    let trouble = pods.iter().find_map(|pod| pod.trouble()).or_else(|| {
        let refused = scheduler.as_ref()?.refused()?.clone();
        Some((refused.reason, refused.message))
    });
    Cluster::Starting(created(&cluster.metadata), trouble)
}

fn created(meta: &kube::api::ObjectMeta) -> Timestamp {
    meta.creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The experiment's groups, and those that are gone but for their pods.
fn groups(context: &Context, namespace: &str, name: &str, cells: &[Cell]) -> Vec<Group> {
    let mut groups: Vec<Group> = context
        .stores
        .groups
        .indexed(namespace, name)
        .iter()
        .filter(|group| group.labels().get(EXPERIMENT).is_some_and(|of| of == name))
        .filter_map(|group| {
            let number = |label: &str| group.labels().get(label)?.parse().ok();
            Some(Group {
                name: group.name_any(),
                shape: Some(Shape {
                    nodes: number(NODES)?,
                    cores: number(CORES)?,
                }),
                going: group.metadata.deletion_timestamp.is_some(),
                created: created(&group.metadata),
                workers: unasked(0),
            })
        })
        .collect();
    let shapes: BTreeSet<Shape> = cells.iter().map(|cell| cell.shape).collect();
    for shape in shapes {
        let group = names::experiment_group(name, shape.nodes, shape.cores);
        let pods = context
            .stores
            .pods
            .indexed(namespace, &pods_of(labels::WORKER, &group));
        let first = pods.iter().map(|pod| created(&pod.metadata)).min();
        if let Some(first) = first
            && groups.iter().all(|known| known.name != group)
        {
            groups.push(Group {
                name: group,
                shape: Some(shape),
                going: true,
                created: first,
                workers: unasked(0),
            });
        }
    }
    groups
}

fn unasked(ready: usize) -> Workers {
    Workers::Assembling {
        ready,
        what: "not looked at".to_owned(),
        trouble: None,
    }
}

/// Whether the scheduler has exactly the workers of a group.
async fn workers(
    context: &Context,
    namespace: &str,
    cluster: &str,
    group: &str,
    shape: Shape,
) -> Workers {
    let wanted = usize::try_from(shape.nodes).unwrap_or(usize::MAX);
    let deployments = context.stores.deployments.indexed(namespace, group);
    let pods = context
        .stores
        .pods
        .indexed(namespace, &pods_of(labels::WORKER, group));
    let going = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some())
        .count();
    let ready = pods.iter().filter(|pod| pod.is_ready()).count();
    let trouble: Option<Trouble> = pods
        .iter()
        .find_map(|pod| {
            let (reason, text) = pod.trouble()?;
            Some((reason, format!("pod {}: {text}", pod.name_any())))
        })
        .or_else(|| {
            deployments.iter().find_map(|deployment| {
                let refused = deployment.refused()?;
                Some((refused.reason.clone(), refused.message.clone()))
            })
        })
        .or_else(|| of_group(context, namespace, group));
    let not_yet = |ready: usize, what: String| Workers::Assembling {
        ready,
        what,
        trouble: trouble.clone(),
    };
    if ready != wanted || deployments.len() != wanted || going > 0 {
        return not_yet(
            ready.min(wanted.saturating_sub(1)),
            format!("{ready} of {wanted} workers are ready"),
        );
    }
    let Some(endpoint) = context.endpoint(namespace, cluster) else {
        return not_yet(ready, "the scheduler is not ready".to_owned());
    };
    let infos = match context.scheduler.workers(&endpoint).await {
        Ok(infos) => infos,
        Err(error) => return not_yet(ready, format!("the scheduler cannot be asked: {error}")),
    };
    let is_ours = |info: &&WorkerInfo| {
        deployments.iter().any(|d| d.name_any() == info.name)
            || pods
                .iter()
                .any(|pod| pod.status.pod_ip.as_deref() == Some(info.host()))
    };
    let ours = infos.iter().filter(is_ours).count();
    if ours != wanted || infos.len() != wanted {
        return not_yet(
            ready,
            format!(
                "the scheduler has {} workers, {ours} of them of this cell, not {wanted}",
                infos.len()
            ),
        );
    }
    let threads = u64::try_from(shape.cores).unwrap_or(0);
    let wrong = infos
        .iter()
        .find_map(|info| Some((info, info.nthreads.filter(|n| *n != threads)?)));
    match wrong {
        Some((info, has)) => Workers::Wrong(format!(
            "worker {} has {has} threads, not {threads}: does its command take --nthreads?",
            info.name
        )),
        None => Workers::Connected,
    }
}

/// What the group's own controller could not do.
fn of_group(context: &Context, namespace: &str, group: &str) -> Option<Trouble> {
    let group = context.stores.groups.get(namespace, group)?;
    let conditions = &group.status.as_ref()?.conditions;
    let ready = conditions
        .iter()
        .find(|c| c.type_ == "Ready" && c.status == "False")?;
    let usual = ["Starting", "Scaling", "Suspended"];
    (!usual.contains(&&*ready.reason)).then(|| (ready.reason.clone(), ready.message.clone()))
}

/// The experiment's runner pods. One that was noted and that the watches do
/// not show is looked for at the API server before it counts as lost.
async fn runners(
    context: &Context,
    experiment: &ScalingExperiment,
    namespace: &str,
    name: &str,
) -> Result<Vec<Runner>, Error> {
    let index = pods_of(labels::EXPERIMENT_RUNNER, name);
    let pods = context.stores.pods.indexed(namespace, &index);
    let is_ours =
        |pod: &PodView| owners::controller_uid(&pod.metadata) == experiment.uid().as_deref();
    let mut runners: Vec<Runner> = pods
        .iter()
        .filter(|pod| is_ours(pod))
        .filter_map(|pod| runner(pod))
        .collect();
    let current = experiment.status.as_ref().and_then(|s| s.current.as_ref());
    if let Some(current) = current.filter(|current| !current.pod_uid.is_empty()) {
        let pod_name = names::cell_runner(name, current.cell, current.attempt);
        if runners.iter().all(|runner| runner.name != pod_name)
            && let Some(pod) = api::get::<PodView>(&context.client, namespace, &pod_name).await?
            && is_ours(&pod)
        {
            runners.extend(runner(&pod));
        }
    }
    Ok(runners)
}

fn runner(pod: &PodView) -> Option<Runner> {
    let labels = pod.metadata.labels.as_ref()?;
    let cell = labels.get(CELL)?;
    let role = if cell == "report" {
        Role::Report
    } else {
        Role::Cell {
            cell: cell.parse().ok()?,
            attempt: labels.get(ATTEMPT)?.parse().ok()?,
        }
    };
    Some(Runner {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        role,
        created: created(&pod.metadata),
        state: state(pod),
    })
}

/// How far a runner pod is. The first container's end is the pod's result.
pub(super) fn state(pod: &PodView) -> RunnerState {
    let status = &pod.status;
    let ended = status
        .container_statuses
        .first()
        .and_then(|container| container.state.get("terminated"));
    let going = pod.metadata.deletion_timestamp.is_some();
    if status.phase == "Succeeded" || (status.phase == "Failed" && !going) {
        let disrupted = status
            .conditions
            .iter()
            .find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
        if status.phase == "Failed" {
            if let Some(disrupted) = disrupted {
                return RunnerState::Disrupted(format!(
                    "{}: {}",
                    disrupted.reason, disrupted.message
                ));
            }
            if matches!(
                &*status.reason,
                "Evicted" | "NodeLost" | "NodeShutdown" | "Preempting" | "Shutdown" | "Terminated"
            ) {
                return RunnerState::Disrupted(status.reason.clone());
            }
        }
        let by_deadline = status.reason == "DeadlineExceeded";
        let failed_init = ended.is_none().then(|| {
            let init = status.init_container_statuses.iter();
            let mut ended = init.filter_map(|c| Some((&c.name, c.state.get("terminated")?)));
            ended.find(|(_, state)| state.exit_code != Some(0))
        });
        if let Some(Some((container, init))) = failed_init {
            return RunnerState::Ended(Ended {
                exit_code: init.exit_code,
                reason: init.reason.clone(),
                message: format!("init container {container}: {}", init.message),
                ran: None,
            });
        }
        let succeeded = status.phase == "Succeeded";
        return RunnerState::Ended(Ended {
            exit_code: match ended.and_then(|ended| ended.exit_code) {
                Some(code) if !by_deadline => Some(code),
                None if succeeded => Some(0),
                _ => None,
            },
            reason: match ended {
                _ if !status.reason.is_empty() => status.reason.clone(),
                Some(ended) => ended.reason.clone(),
                None => String::new(),
            },
            message: ended.map(|ended| ended.message.clone()).unwrap_or_default(),
            ran: ended.and_then(|ended| {
                let time = |text: &Option<String>| text.as_deref()?.parse::<Timestamp>().ok();
                let (from, to) = (time(&ended.started_at)?, time(&ended.finished_at)?);
                Some(to.duration_since(from).as_secs_f64())
            }),
        });
    }
    if going {
        return RunnerState::Going;
    }
    let started = status
        .container_statuses
        .first()
        .is_some_and(|c| c.state.contains_key("running") || c.state.contains_key("terminated"));
    if status.phase == "Running" && (started || status.container_statuses.is_empty()) {
        return RunnerState::Running;
    }
    RunnerState::Waiting(pod.trouble())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(status: Value) -> RunnerState {
        state(&serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap())
    }

    #[test]
    fn the_end_of_the_first_container_is_the_result() {
        let state = seen(
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {
                "exitCode": 0, "reason": "Completed", "message": "1.5",
                "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:09Z",
            }}}]}),
        );
        let RunnerState::Ended(ended) = state else {
            panic!("{state:?}")
        };
        assert_eq!((ended.exit_code, &*ended.message), (Some(0), "1.5"));
        assert_eq!(ended.ran, Some(9.0));
    }

    #[test]
    fn a_deadline_counts_more_than_the_exit_code_that_the_signal_caused() {
        let state = seen(
            json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": [
                {"state": {"terminated": {"exitCode": 143, "reason": "Error"}}},
            ]}),
        );
        let RunnerState::Ended(ended) = state else {
            panic!("{state:?}")
        };
        assert_eq!(
            (ended.exit_code, &*ended.reason),
            (None, "DeadlineExceeded")
        );
    }

    #[test]
    fn an_eviction_is_not_the_workloads_fault() {
        assert!(matches!(
            seen(json!({"phase": "Failed", "reason": "Evicted"})),
            RunnerState::Disrupted(_)
        ));
        let preempted = json!({"phase": "Failed", "conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"},
        ]});
        assert!(matches!(seen(preempted), RunnerState::Disrupted(_)));
    }

    #[test]
    fn a_pod_without_its_image_waits_with_the_reason() {
        let state = seen(json!({"phase": "Pending", "containerStatuses": [
            {"name": "runner", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}},
        ]}));
        let RunnerState::Waiting(Some((reason, _))) = state else {
            panic!("{state:?}")
        };
        assert_eq!(reason, "ImagePullBackOff");
    }
}
