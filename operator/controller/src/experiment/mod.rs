//! ScalingExperiment: a cluster of changing size, and runner pods that measure.
//!
//! The operator creates, waits and records; it computes and draws nothing. All
//! state is in the status, which is read from the API server at the beginning
//! of each step and written with the version that was read: a cell whose row
//! is recorded is never run again, whoever is at work.

mod dereference;
mod note;
mod plan;
mod row;
mod seen;
mod status;
pub(crate) mod sweep;
mod table;

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Resource as _, ResourceExt as _};
use oxidask_operator_api::{
    DaskCluster, DaskWorkerGroup, ScalingExperiment, ScalingExperimentStatus,
};
use serde_json::{Map, Value, json};
use tracing::info;

use self::plan::{Step, plan};
use self::seen::{Cluster, Seen, is_finished};
use self::sweep::Shape;
use crate::api;
use crate::build::experiment as build;
use crate::conditions::Finding;
use crate::context::{Action, Context};
use crate::error::{Class, Error};
use crate::names;
use crate::owners;
use crate::queue::Key;
use crate::views::PodView;

/// When it is looked again after something was made, should no watch tell.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Most of a report that is read: a ConfigMap holds a megabyte.
const MAX_REPORT: i64 = 1_000_000;

/// Brings an experiment one step nearer to its end.
pub(crate) async fn reconcile(context: &Context, key: &Key) -> Result<Action, Error> {
    let found = api::get::<ScalingExperiment>(&context.client, &key.namespace, &key.name).await?;
    let Some(experiment) = found else {
        context.metrics.experiment_gone(&key.namespace, &key.name);
        context.memory.forget(key);
        return Ok(Action::AwaitChange);
    };
    if experiment.meta().deletion_timestamp.is_some() {
        return Ok(Action::AwaitChange);
    }
    let mut status = experiment.status.clone().unwrap_or_default();
    let spec = &experiment.spec;
    let invalid = sweep::validate(&key.name, spec).err();
    let cells = match &invalid {
        None => sweep::cells(spec),
        Some(_) => Vec::new(),
    };
    let template = build::template_hash(&experiment);
    let before = status.clone();
    let seen = Seen {
        now: context.clock.now(),
        began: context.clock.started(),
        cells: &cells,
        limits: sweep::limits(spec),
        suspend: spec.suspend == Some(true),
        template: &template,
        report: spec.report.as_ref().and_then(|r| r.enabled) != Some(false),
        timed: spec.workload.python.is_some(),
        status: &before,
        cluster: Cluster::Absent,
        groups: Vec::new(),
        runners: Vec::new(),
    };
    let step = match invalid {
        Some(text) if !is_finished(&before) => Step::Fail(("Invalid".to_owned(), text)),
        _ => plan(&dereference::look(context, &experiment, seen.clone()).await?),
    };
    let own = Own {
        context,
        experiment: &experiment,
        namespace: &key.namespace,
        name: &key.name,
        seen: &seen,
    };
    let (action, report) = match own.carry_out(step.clone(), &mut status).await {
        Ok(outcome) => outcome,
        Err(error) => match own.give_up(&step, &error, &mut status) {
            Some(outcome) => outcome,
            None => {
                status.message = Some(error.sentence());
                status::write(context, &experiment, &status).await?;
                return Err(error);
            }
        },
    };
    if !is_finished(&before) || status != before {
        status::derive(
            &mut status,
            cells.len(),
            experiment.metadata.generation,
            report.as_ref(),
            seen.now,
        );
    }
    status::write(context, &experiment, &status).await?;
    own.tell(&status).await;
    Ok(action)
}

/// What every step needs.
struct Own<'a> {
    context: &'a Context,
    experiment: &'a ScalingExperiment,
    namespace: &'a str,
    name: &'a str,
    seen: &'a Seen<'a>,
}

/// What comes after a step, and what became of the report if that is known.
type Outcome = (Action, Option<Finding>);

const AT_ONCE: Outcome = (Action::After(Duration::ZERO), None);
const WHEN_SEEN: Outcome = (Action::After(LOOK_AGAIN), None);

impl Own<'_> {
    async fn carry_out(
        &self,
        step: Step,
        status: &mut ScalingExperimentStatus,
    ) -> Result<Outcome, Error> {
        let client = &self.context.client;
        let (namespace, experiment) = (self.namespace, self.experiment);
        match step {
            Step::MakeCluster => {
                api::create::<DaskCluster>(client, namespace, &build::cluster(experiment)).await?;
            }
            Step::RemoveCluster => {
                let cluster = self.context.stores.clusters.get(namespace, self.name);
                if let Some(uid) = cluster.and_then(|cluster| cluster.uid()) {
                    api::delete::<DaskCluster>(client, namespace, self.name, Some(&uid)).await?;
                }
            }
            Step::MakeGroup(shape) => return self.make_group(shape, status).await,
            Step::RemoveGroup(name) => {
                api::delete::<DaskWorkerGroup>(client, namespace, &name, None).await?;
            }
            Step::MakeRunner(cell, attempt) => {
                return self.make_runner(&cell, attempt, status).await;
            }
            Step::RemoveRunner { name, uid } => {
                api::delete::<Pod>(client, namespace, &name, Some(&uid)).await?;
            }
            Step::PublishRows => {
                self.publish(&Map::new(), &Map::new()).await?;
                let config_map = names::experiment_results(self.name);
                note::published(status, config_map, self.seen.report);
                return Ok(AT_ONCE);
            }
            Step::MakeReport => {
                let seconds = (self.seen.limits.start + plan::DRAWING).as_secs();
                self.create_pod(&build::report(experiment, seconds)).await?;
            }
            Step::PublishReport => return self.publish_report(status).await,
            Step::Finish(trouble) => {
                let report = note::finish(status, false, trouble, self.seen.now);
                return Ok((AT_ONCE.0, Some(report)));
            }
            Step::Wait(again, _) => {
                note::note(step, status, self.seen);
                return Ok((again.map_or(Action::AwaitChange, Action::After), None));
            }
            Step::Begin
            | Step::Resume
            | Step::Suspend
            | Step::NoteRunner { .. }
            | Step::Retry { .. }
            | Step::Record(_)
            | Step::Fail(_) => {
                if let Step::Retry { cell, attempt, why } = &step {
                    let note = format!("cell {}: {why}; attempt {attempt} is made", cell + 1);
                    let events = &self.context.events;
                    events.warning(experiment, "RunnerLost", note).await;
                }
                note::note(step, status, self.seen);
                return Ok(AT_ONCE);
            }
        }
        Ok(WHEN_SEEN)
    }

    /// Puts what the report printed into the ConfigMap, and finishes.
    async fn publish_report(&self, status: &mut ScalingExperimentStatus) -> Result<Outcome, Error> {
        let pod = names::report_runner(self.name);
        let log = api::log(&self.context.client, self.namespace, &pod, MAX_REPORT).await?;
        let trouble = match maps(&log) {
            Ok((data, binary)) => {
                status.summary = summary(&data);
                self.publish(&data, &binary).await?;
                None
            }
            Err(text) => Some(("ReportFailed".to_owned(), text)),
        };
        let report = note::finish(status, trouble.is_none(), trouble, self.seen.now);
        Ok((AT_ONCE.0, Some(report)))
    }

    async fn make_group(
        &self,
        shape: Shape,
        status: &mut ScalingExperimentStatus,
    ) -> Result<Outcome, Error> {
        let Some(cluster) = self.context.stores.clusters.get(self.namespace, self.name) else {
            return Ok(WHEN_SEEN);
        };
        let manifest = build::group(self.experiment, &cluster, shape);
        let made =
            api::create::<DaskWorkerGroup>(&self.context.client, self.namespace, &manifest).await?;
        let ours = owners::controller_uid(&made.metadata) == cluster.uid().as_deref();
        if !ours && self.is_late() {
            let text = format!(
                "there is a DaskWorkerGroup {} that does not belong to this experiment",
                made.name_any()
            );
            self.fail_next(status, "NameTaken", &text);
            return Ok(AT_ONCE);
        }
        Ok(WHEN_SEEN)
    }

    /// What becomes of a step that the API server refuses; `None` if it is to be
    /// tried again. What it finds wrong stays wrong; a quota or a permission
    /// may come, and is waited for as a pod is.
    fn give_up(
        &self,
        step: &Step,
        error: &Error,
        status: &mut ScalingExperimentStatus,
    ) -> Option<Outcome> {
        let wrong = error.class() == Class::Terminal && error.is_refusal();
        // A log may be on a node that is gone, which is no refusal.
        let may_stay = error.is_refusal() || matches!(step, Step::PublishReport);
        if !(wrong || (may_stay && self.is_late())) {
            return None;
        }
        let (reason, text) = (error.reason(), error.sentence());
        match step {
            Step::MakeCluster => {
                note::note(Step::Fail((reason, text)), status, self.seen);
            }
            Step::MakeGroup(_) | Step::MakeRunner(..) => self.fail_next(status, &reason, &text),
            Step::PublishRows | Step::MakeReport | Step::PublishReport => {
                let trouble = Some((reason, text));
                let report = note::finish(status, false, trouble, self.seen.now);
                return Some((AT_ONCE.0, Some(report)));
            }
            _ => return None,
        }
        Some(AT_ONCE)
    }

    /// Whether what has been waited for since the last step forward is late.
    fn is_late(&self) -> bool {
        self.seen
            .over(self.seen.progressed(), self.seen.limits.start)
    }

    fn fail_next(&self, status: &mut ScalingExperimentStatus, reason: &str, text: &str) {
        if let Some(cell) = self.seen.next_cell() {
            let row = row::failed(&cell, reason, text);
            note::note(Step::Record(vec![row]), status, self.seen);
        }
    }

    async fn make_runner(
        &self,
        cell: &sweep::Cell,
        attempt: i64,
        status: &mut ScalingExperimentStatus,
    ) -> Result<Outcome, Error> {
        let manifest = build::runner(self.experiment, cell, attempt, self.seen.limits);
        let made = self.create_pod(&manifest).await?;
        match made {
            Some(uid) => {
                let cell = cell.index;
                note::note(Step::NoteRunner { cell, attempt, uid }, status, self.seen);
            }
            None if self.is_late() => {
                let text =
                    "there is a pod of the runner's name that does not belong to this experiment";
                self.fail_next(status, "NameTaken", text);
                return Ok(AT_ONCE);
            }
            None => {}
        }
        Ok(WHEN_SEEN)
    }

    /// Creates a runner pod. Gives its uid, or nothing while somebody else's
    /// pod, perhaps of a deleted experiment of this name, is in the way.
    async fn create_pod(&self, manifest: &Value) -> Result<Option<String>, Error> {
        let pod = api::create::<PodView>(&self.context.client, self.namespace, manifest).await?;
        let ours = owners::controller_uid(&pod.metadata) == self.experiment.uid().as_deref();
        Ok(pod.uid().filter(|_| ours))
    }

    /// Writes the ConfigMap: the rows, and what the report printed.
    async fn publish(
        &self,
        data: &Map<String, Value>,
        binary: &Map<String, Value>,
    ) -> Result<(), Error> {
        let status = self.seen.status;
        let workload = self.experiment.spec.workload.name();
        let rows: Vec<Value> = status
            .rows
            .iter()
            .map(|row| {
                let mut row = json!(row);
                row["workload"] = json!(workload);
                row
            })
            .collect();
        let rows = json!({"name": self.name, "workload": workload, "rows": rows});
        let mut all = data.clone();
        all.insert(build::ROWS_FILE.to_owned(), json!(rows.to_string()));
        let manifest = build::results(self.experiment, &all, binary);
        api::apply::<ConfigMap>(&self.context.client, self.namespace, &manifest).await?;
        Ok(())
    }

    /// Metrics, and an Event when it begins, goes on or ends.
    async fn tell(&self, status: &ScalingExperimentStatus) {
        let (context, experiment) = (self.context, self.experiment);
        context
            .metrics
            .experiment(self.namespace, self.name, status);
        let old = self.seen.status.phase.as_deref();
        let new = status.phase.as_deref();
        if old != new {
            let note = match new {
                Some("Running") => format!("Measuring {} cells.", self.seen.cells.len()),
                _ => status.message.clone().unwrap_or_default(),
            };
            match new {
                Some("Failed") => context.events.warning(experiment, "Failed", note).await,
                Some(phase) => context.events.normal(experiment, phase, note).await,
                None => {}
            }
        }
        for row in status.rows.iter().skip(self.seen.status.rows.len()) {
            info!(
                namespace = self.namespace,
                name = self.name,
                cell = row.cell,
                nodes = row.nodes,
                cores = row.cores,
                size = row.size,
                seconds = row.seconds,
                reason = row.reason,
                "a cell ended"
            );
            context.metrics.cell_ended(row.reason.as_deref());
        }
    }
}

/// `data` and `binaryData` of a ConfigMap.
type Maps = (Map<String, Value>, Map<String, Value>);

/// The last line of a report's output that is JSON, as a ConfigMap's maps.
fn maps(log: &str) -> Result<Maps, String> {
    let line = log
        .lines()
        .rev()
        .find(|line| line.starts_with('{'))
        .ok_or("the report printed no line of JSON")?;
    let value: Value = serde_json::from_str(line)
        .map_err(|error| format!("the report's line of JSON cannot be read: {error}"))?;
    let map = |name: &str| match value.get(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) if map.values().all(Value::is_string) => Ok(map.clone()),
        Some(_) => Err(format!("the report's {name} is not a map of texts")),
    };
    let (data, binary) = (map("data")?, map("binaryData")?);
    if data.is_empty() {
        return Err("the report's data is empty".to_owned());
    }
    Ok((data, binary))
}

/// The first line of the report's summary.
fn summary(data: &Map<String, Value>) -> Option<String> {
    let line = data.get("summary.txt")?.as_str()?.lines().next()?;
    Some(line.chars().take(500).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_the_last_line_of_json() {
        let log = "warming up\n{\"no\": 1}\n{\"data\": {\"summary.txt\": \"bound by compute\\nmore\"}, \"binaryData\": {\"a.png\": \"AA==\"}}\n";
        let (data, binary) = maps(log).unwrap();
        assert_eq!(summary(&data).as_deref(), Some("bound by compute"));
        assert_eq!(binary["a.png"], "AA==");
    }

    #[test]
    fn a_report_that_is_none_is_refused_with_what_is_wrong() {
        for (log, word) in [
            ("nothing", "no line of JSON"),
            ("{\"data\": ", "cannot be read"),
            ("{\"data\": {\"a\": 1}}", "not a map of texts"),
            ("{}", "is empty"),
        ] {
            let error = maps(log).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
