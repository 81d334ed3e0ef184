//! What is said of an experiment in its status, and how it is written.

use jiff::Timestamp;
use kube::ResourceExt as _;
use oxidask_operator_api::{ScalingExperiment, ScalingExperimentStatus};
use serde_json::{Map, Value, json};

use super::table;
use crate::api;
use crate::conditions::{Finding, merged};
use crate::context::Context;
use crate::error::Error;

/// Brings everything that follows from the rows and the phase up to date.
pub(super) fn derive(
    status: &mut ScalingExperimentStatus,
    cells: usize,
    generation: Option<i64>,
    report: Option<&Finding>,
    now: Timestamp,
) {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let done = status.rows.len();
    let failed = status.rows.iter().filter(|row| row.seconds.is_none());
    status.failed = Some(count(failed.count()));
    status.cells = Some(count(cells));
    status.done = Some(count(done));
    status.progress = Some(format!("{done}/{cells}"));
    status.table = table::table(&status.rows);
    status.best = table::best(&status.table);
    status.observed_generation = generation;
    let phase = status.phase.clone().unwrap_or_default();
    let message = status.message.clone().unwrap_or_default();
    let finished = match &*phase {
        "Complete" => Finding::new("Finished", true, "Complete", message),
        "Failed" => Finding::new("Finished", true, "Failed", message),
        _ => Finding::new("Finished", false, "InProgress", message),
    };
    let suspended = match &*phase {
        "Suspended" => Finding::new("Suspended", true, "Suspended", "spec.suspend is true"),
        _ => Finding::new("Suspended", false, "NotSuspended", ""),
    };
    let mut findings = vec![finished, suspended];
    match report {
        Some(report) => findings.push(report.clone()),
        None => findings.extend(kept(status, "Reported")),
    }
    status.conditions = merged(&status.conditions, &findings, generation, now);
}

/// A condition as it was said before.
fn kept(status: &ScalingExperimentStatus, type_: &'static str) -> Option<Finding> {
    let before = status.conditions.iter().find(|c| c.type_ == type_)?;
    Some(Finding::new(
        type_,
        before.status == "True",
        before.reason.clone(),
        before.message.clone(),
    ))
}

/// Writes what changed of the status, if the object has not changed since it
/// was read: of two processes that recorded a cell one has to look again.
pub(super) async fn write(
    context: &Context,
    experiment: &ScalingExperiment,
    status: &ScalingExperimentStatus,
) -> Result<(), Error> {
    let old = experiment.status.clone().unwrap_or_default();
    let change = change(&json!(old), &json!(status));
    if change.is_empty() {
        return Ok(());
    }
    let (namespace, name) = (
        experiment.namespace().unwrap_or_default(),
        experiment.name_any(),
    );
    let version = experiment.resource_version();
    api::merge_status_of::<ScalingExperiment>(
        &context.client,
        &namespace,
        &name,
        version.as_deref(),
        &Value::Object(change),
    )
    .await
}

/// The merge patch from one status to another: changed members, and null for
/// those that are gone.
fn change(old: &Value, new: &Value) -> Map<String, Value> {
    let none = Map::new();
    let old = old.as_object().unwrap_or(&none);
    let new = new.as_object().unwrap_or(&none);
    let mut change = Map::new();
    for (name, value) in new {
        if old.get(name) != Some(value) {
            change.insert(name.clone(), value.clone());
        }
    }
    for name in old.keys() {
        if !new.contains_key(name) {
            change.insert(name.clone(), Value::Null);
        }
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_go_are_taken_out_and_equal_ones_are_not_sent() {
        let old = json!({"a": 1, "current": {"cell": 1}, "rows": [1]});
        let new = json!({"a": 1, "rows": [1, 2], "b": 3});
        assert_eq!(
            Value::Object(change(&old, &new)),
            json!({"rows": [1, 2], "b": 3, "current": null})
        );
    }

    #[test]
    fn what_follows_from_the_rows_is_derived() {
        let mut status: ScalingExperimentStatus = serde_json::from_value(json!({
            "phase": "Running",
            "rows": [
                {"cell": 0, "nodes": 1, "cores": 1, "size": 9, "seconds": 2.0},
                {"cell": 1, "nodes": 2, "cores": 1, "size": 9, "reason": "Unschedulable"},
            ],
        }))
        .unwrap();
        derive(&mut status, 4, Some(1), None, Timestamp::UNIX_EPOCH);
        assert_eq!(status.progress.as_deref(), Some("2/4"));
        assert_eq!((status.failed, status.done), (Some(1), Some(2)));
        assert_eq!(status.best.as_deref(), Some("1 × 1: 2.00 s, 1.00 times"));
        assert_eq!(status.conditions[0].reason, "InProgress");
    }
}
