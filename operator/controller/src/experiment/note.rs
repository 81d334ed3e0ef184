//! What a step leaves in the status: pure.

use jiff::Timestamp;
use oxidask_operator_api::ScalingExperimentStatus;
use oxidask_operator_api::experiment::CurrentCell;

use super::plan::Step;
use super::seen::{Seen, Trouble};
use crate::clock::rfc3339;
use crate::conditions::Finding;

/// Notes a step that is nothing but a note. Steps that make or remove
/// something leave the status as it is.
pub(crate) fn note(step: Step, status: &mut ScalingExperimentStatus, seen: &Seen<'_>) {
    let now = seen.now;
    match step {
        Step::Begin => {
            status.start_time = Some(rfc3339(now));
            status.template_hash = Some(seen.template.to_owned());
            status.phase = Some("Running".to_owned());
            progressed(status, now);
        }
        Step::Resume => {
            status.phase = Some("Running".to_owned());
            progressed(status, now);
        }
        Step::Suspend => {
            status.phase = Some("Suspended".to_owned());
            status.message = Some("suspended: spec.suspend is true".to_owned());
            status.current = None;
        }
        Step::NoteRunner { cell, attempt, uid } => {
            status.current = Some(CurrentCell {
                cell,
                attempt,
                pod_uid: uid,
            });
        }
        Step::Retry { cell, attempt, .. } => {
            status.current = Some(CurrentCell {
                cell,
                attempt,
                pod_uid: String::new(),
            });
        }
        Step::Record(rows) => {
            status.rows.extend(rows);
            status.current = None;
            progressed(status, now);
        }
        Step::Fail((reason, text)) => {
            status.phase = Some("Failed".to_owned());
            status.message = Some(format!("{reason}: {text}"));
            status.start_time.get_or_insert(rfc3339(now));
            status.end_time = Some(rfc3339(now));
            status.current = None;
        }
        Step::Wait(_, message) => {
            if !message.is_empty() {
                status.message = Some(message);
            }
        }
        Step::MakeCluster
        | Step::RemoveCluster
        | Step::MakeGroup(_)
        | Step::RemoveGroup(_)
        | Step::MakeRunner(..)
        | Step::RemoveRunner { .. }
        | Step::PublishRows
        | Step::MakeReport
        | Step::PublishReport
        | Step::Finish(_) => {}
    }
}

/// Notes that the experiment came forward.
fn progressed(status: &mut ScalingExperimentStatus, now: Timestamp) {
    status.progress_time = Some(rfc3339(now));
}

/// Notes that the rows are published.
pub(crate) fn published(status: &mut ScalingExperimentStatus, config_map: String, report: bool) {
    status.config_map = Some(config_map);
    if report {
        status.phase = Some("Reporting".to_owned());
    }
}

/// The last words of the status, and what became of the report.
///
/// `drawn`: whether there are plots; `trouble`: why there are none although
/// they were wanted.
pub(crate) fn finish(
    status: &mut ScalingExperimentStatus,
    drawn: bool,
    trouble: Option<Trouble>,
    now: Timestamp,
) -> Finding {
    let failed = status.rows.iter().filter(|row| row.seconds.is_none());
    let (failed, all) = (failed.count(), status.rows.len());
    status.end_time = Some(rfc3339(now));
    status.current = None;
    let (phase, message) = if failed < all {
        (
            "Complete",
            format!("{} of {all} cells have a time", all - failed),
        )
    } else {
        let why = status
            .rows
            .last()
            .and_then(|row| Some(format!("{}: {}", row.reason.as_ref()?, row.error.as_ref()?)));
        let why = why.unwrap_or_default();
        ("Failed", format!("no cell has a time; the last: {why}"))
    };
    status.phase = Some(phase.to_owned());
    status.message = Some(message);
    match trouble {
        Some((reason, text)) => Finding::new("Reported", false, reason, text),
        None if drawn => {
            let text = "table and plots are in the ConfigMap";
            Finding::new("Reported", true, "Drawn", text)
        }
        None => {
            let text = "the ConfigMap has the rows only";
            Finding::new("Reported", false, "RowsOnly", text)
        }
    }
}
