//! The next step of an experiment: pure, from what was seen.
//!
//! One step at a time, and each is safe to repeat: whoever made the step may
//! have died right after it, and the next process sees what became of it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use oxidask_operator_api::experiment::ExperimentRow;

use super::row;
use super::seen::{
    Cluster, Role, Runner, RunnerState, Seen, Trouble, Workers, has_row, is_finished, time,
};
use super::sweep::{Cell, Shape};

/// Runner pods of one cell before it counts as failed, if Kubernetes takes
/// them away.
const ATTEMPTS: i64 = 3;
/// Time that the plots may take.
pub(crate) const DRAWING: Duration = Duration::from_secs(120);
/// What a runner gets over its limit before the operator ends it: it ends
/// itself first, and its kubelet second.
pub(crate) const GRACE: Duration = Duration::from_secs(60);
/// How often the scheduler is asked while its workers connect.
const ASK: Duration = Duration::from_secs(1);

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Note the beginning.
    Begin,
    /// Note that a suspension is over.
    Resume,
    /// Note that a suspension began: no runner is under way any more.
    Suspend,
    MakeCluster,
    RemoveCluster,
    MakeGroup(Shape),
    RemoveGroup(String),
    /// Make a runner pod and note it.
    MakeRunner(Cell, i64),
    /// Note a runner pod that was made and not noted.
    NoteRunner {
        cell: i64,
        attempt: i64,
        uid: String,
    },
    /// Note that a runner pod was lost and that the next attempt is due.
    Retry {
        cell: i64,
        attempt: i64,
        why: String,
    },
    RemoveRunner {
        name: String,
        uid: String,
    },
    /// Note cells that ended.
    Record(Vec<ExperimentRow>),
    /// Write the rows into the ConfigMap.
    PublishRows,
    MakeReport,
    /// Write what the report printed into the ConfigMap, and finish.
    PublishReport,
    /// All cells ended; the report is not made, or why it failed.
    Finish(Option<Trouble>),
    /// The experiment cannot go on.
    Fail(Trouble),
    /// Nothing to do before something changes or the time is over.
    Wait(Option<Duration>, String),
}

/// The next step.
pub(crate) fn plan(seen: &Seen<'_>) -> Step {
    if is_finished(seen.status) {
        return tidy(seen)
            .unwrap_or_else(|| Step::Wait(None, seen.status.message.clone().unwrap_or_default()));
    }
    if seen.status.start_time.is_none() {
        return Step::Begin;
    }
    if seen.status.template_hash.as_deref() != Some(seen.template) {
        return Step::Fail(trouble(
            "TemplateChanged",
            "spec.cluster or spec.runner was changed after the beginning, and times of two templates cannot be compared: delete the experiment and create it again",
        ));
    }
    if let Some(step) = remove_spent(seen) {
        return step;
    }
    let Some(cell) = seen.next_cell() else {
        return report(seen);
    };
    if let Some(step) = ended(seen, &cell) {
        return step;
    }
    if seen.suspend {
        return suspend(seen);
    }
    if seen.status.phase.as_deref() == Some("Suspended") {
        return Step::Resume;
    }
    if let Some(step) = total_limit(seen) {
        return step;
    }
    runner(seen, &cell).unwrap_or_else(|| workers(seen, &cell))
}

/// Takes away what a finished experiment still has. Pods that failed stay, for
/// their logs.
fn tidy(seen: &Seen<'_>) -> Option<Step> {
    let busy = seen.runners.iter().find(|runner| is_under_way(runner));
    busy.map(remove)
        .or_else(|| remove_cluster(seen))
        .or_else(|| remove_spent(seen))
}

fn remove_cluster(seen: &Seen<'_>) -> Option<Step> {
    match seen.cluster {
        Cluster::Starting(..) | Cluster::Ready => Some(Step::RemoveCluster),
        Cluster::Absent | Cluster::Foreign | Cluster::Going => None,
    }
}

/// Runners whose cell is recorded go, unless they failed: then somebody may
/// want to read their log.
fn remove_spent(seen: &Seen<'_>) -> Option<Step> {
    let spent = seen.runners.iter().find(|runner| {
        let Role::Cell { cell, .. } = runner.role else {
            return false;
        };
        let succeeded =
            matches!(&runner.state, RunnerState::Ended(ended) if ended.exit_code == Some(0));
        has_row(seen.status, cell) && (succeeded || is_under_way(runner))
    });
    spent.map(remove)
}

fn is_under_way(runner: &Runner) -> bool {
    matches!(runner.state, RunnerState::Waiting(_) | RunnerState::Running)
}

fn remove(runner: &Runner) -> Step {
    Step::RemoveRunner {
        name: runner.name.clone(),
        uid: runner.uid.clone(),
    }
}

/// The attempt that a cell is at, and whether its pod was made and noted.
fn attempt(seen: &Seen<'_>, cell: &Cell) -> (i64, bool) {
    match &seen.status.current {
        Some(current) if current.cell == cell.index => {
            (current.attempt.max(1), !current.pod_uid.is_empty())
        }
        _ => (1, false),
    }
}

fn runner_of<'a>(seen: &'a Seen<'_>, cell: &Cell) -> Option<&'a Runner> {
    let role = Role::Cell {
        cell: cell.index,
        attempt: attempt(seen, cell).0,
    };
    seen.runners.iter().find(|runner| runner.role == role)
}

/// Records a cell whose runner ended, suspended or not.
fn ended(seen: &Seen<'_>, cell: &Cell) -> Option<Step> {
    match &runner_of(seen, cell)?.state {
        RunnerState::Ended(ended) => Some(Step::Record(vec![row::of(cell, ended, seen.timed)])),
        _ => None,
    }
}

fn suspend(seen: &Seen<'_>) -> Step {
    if let Some(busy) = seen.runners.iter().find(|runner| is_under_way(runner)) {
        return remove(busy);
    }
    let noted = seen.status.phase.as_deref() == Some("Suspended") && seen.status.current.is_none();
    if !noted {
        return Step::Suspend;
    }
    remove_cluster(seen)
        .unwrap_or_else(|| Step::Wait(None, "suspended: spec.suspend is true".to_owned()))
}

fn total_limit(seen: &Seen<'_>) -> Option<Step> {
    let limit = seen.limits.total?;
    let began = time(seen.status.start_time.as_deref())?;
    if !seen.over(began, limit) {
        return None;
    }
    let error = format!(
        "limits.totalSeconds ({}) was over before this cell ended",
        limit.as_secs()
    );
    let left = seen
        .cells
        .iter()
        .filter(|cell| !has_row(seen.status, cell.index));
    Some(Step::Record(
        left.map(|cell| row::failed(cell, "TimeLimit", &error))
            .collect(),
    ))
}

/// What to do about the runner of a cell; `None` if it is to be made.
fn runner(seen: &Seen<'_>, cell: &Cell) -> Option<Step> {
    let (attempt, noted) = attempt(seen, cell);
    let lost = |why: String| {
        if attempt < ATTEMPTS {
            return Step::Retry {
                cell: cell.index,
                attempt: attempt + 1,
                why,
            };
        }
        let error = format!("{why}; that was attempt {attempt} of {ATTEMPTS}");
        Step::Record(vec![row::failed(cell, "RunnerLost", &error)])
    };
    let Some(runner) = runner_of(seen, cell) else {
        return noted.then(|| lost("the runner pod is gone without a result".to_owned()));
    };
    if !noted && runner.state != RunnerState::Going {
        return Some(Step::NoteRunner {
            cell: cell.index,
            attempt,
            uid: runner.uid.clone(),
        });
    }
    let fail = |reason: &str, error: &str| Step::Record(vec![row::failed(cell, reason, error)]);
    let wait = |left: Duration, what: &str| Step::Wait(Some(left), about(seen, cell, what));
    let (start, run) = (seen.limits.start, seen.limits.cell);
    Some(match &runner.state {
        RunnerState::Waiting(trouble) => {
            let left = seen.left(runner.created, start);
            match trouble {
                Some((reason, text)) if left.is_zero() => {
                    fail(reason, &format!("runner pod {}: {text}", runner.name))
                }
                None if left.is_zero() => fail(
                    "StartLimit",
                    &format!(
                        "the runner pod {} did not start within {} s",
                        runner.name,
                        start.as_secs()
                    ),
                ),
                Some((reason, text)) => wait(
                    left,
                    &format!("its runner does not start: {reason}: {text}"),
                ),
                None => wait(left, "its runner starts"),
            }
        }
        RunnerState::Running => {
            let left = seen.left(runner.created, start + run + GRACE);
            if left.is_zero() {
                fail(
                    "TimeLimit",
                    &format!("the runner did not end within {} s", run.as_secs()),
                )
            } else {
                wait(left, "its runner computes")
            }
        }
        RunnerState::Disrupted(why) => lost(format!("the runner pod was taken away: {why}")),
        // `ended` came before.
        RunnerState::Ended(_) => return None,
        RunnerState::Going => wait(GRACE, "its runner is being deleted"),
    })
}

/// Brings the cluster to exactly the workers of a cell, then the runner.
fn workers(seen: &Seen<'_>, cell: &Cell) -> Step {
    let start = seen.limits.start;
    let wait = |left: Duration, what: &str| Step::Wait(Some(left), about(seen, cell, what));
    match &seen.cluster {
        Cluster::Absent => return Step::MakeCluster,
        Cluster::Foreign => {
            let left = seen.left(seen.progressed(), start);
            let text = "there is a DaskCluster of the experiment's name that does not belong to it";
            return if left.is_zero() {
                Step::Fail(trouble("NameTaken", text))
            } else {
                wait(left, text)
            };
        }
        Cluster::Going => return wait(GRACE, "the old cluster is being deleted"),
        Cluster::Starting(since, why) => {
            let left = seen.left((*since).max(seen.progressed()), start);
            return match why {
                Some((reason, text)) if left.is_zero() => {
                    Step::Fail((reason.clone(), format!("the scheduler: {text}")))
                }
                None if left.is_zero() => Step::Fail(trouble(
                    "SchedulerNotReady",
                    "the scheduler was not ready in time (limits.startSeconds)",
                )),
                Some((reason, text)) => wait(
                    left,
                    &format!("the scheduler does not start: {reason}: {text}"),
                ),
                None => wait(left, "the scheduler starts"),
            };
        }
        Cluster::Ready => {}
    }
    let others = seen
        .groups
        .iter()
        .filter(|group| group.shape != Some(cell.shape));
    if let Some(other) = others.clone().find(|group| !group.going) {
        return Step::RemoveGroup(other.name.clone());
    }
    if let Some(old) = seen.groups.iter().find(|group| group.going) {
        let left = seen.left(seen.progressed(), start);
        let text = format!("old workers of {} are still there", old.name);
        return if left.is_zero() {
            fail_shape(seen, cell, "OldWorkers", &text)
        } else {
            wait(left, &text)
        };
    }
    let Some(group) = seen.groups.first() else {
        return Step::MakeGroup(cell.shape);
    };
    match &group.workers {
        Workers::Connected => Step::MakeRunner(*cell, attempt(seen, cell).0),
        Workers::Wrong(text) => fail_shape(seen, cell, "WrongWorkers", text),
        Workers::Assembling {
            ready,
            what,
            trouble,
        } => assembling(seen, cell, group.created, *ready, what, trouble.as_ref()),
    }
}

fn assembling(
    seen: &Seen<'_>,
    cell: &Cell,
    created: Timestamp,
    ready: usize,
    what: &str,
    trouble: Option<&Trouble>,
) -> Step {
    let left = seen.left(created.max(seen.progressed()), seen.limits.start);
    if left.is_zero() {
        let (reason, text) = match trouble {
            Some((reason, text)) => (&**reason, format!("{what}; {text}")),
            None => ("WorkersMissing", what.to_owned()),
        };
        return fail_shape(seen, cell, reason, &text);
    }
    let wanted = usize::try_from(cell.shape.nodes).unwrap_or(usize::MAX);
    // Pods are watched; who is connected has to be asked.
    let again = if ready >= wanted { ASK.min(left) } else { left };
    let text = match trouble {
        Some((reason, text)) => format!("{what}: {reason}: {text}"),
        None => what.to_owned(),
    };
    Step::Wait(Some(again), about(seen, cell, &text))
}

/// Fails a cell and those right behind it that want the same workers: it would
/// be the same for them. Later passes try again.
fn fail_shape(seen: &Seen<'_>, cell: &Cell, reason: &str, error: &str) -> Step {
    let behind = seen
        .cells
        .iter()
        .skip_while(|other| other.index != cell.index)
        .take_while(|other| other.shape == cell.shape && !has_row(seen.status, other.index));
    Step::Record(
        behind
            .map(|cell| row::failed(cell, reason, error))
            .collect(),
    )
}

/// What comes after the last cell.
fn report(seen: &Seen<'_>) -> Step {
    if let Some(step) = remove_cluster(seen) {
        return step;
    }
    if seen.status.config_map.is_none() {
        return Step::PublishRows;
    }
    let measured = seen.status.rows.iter().any(|row| row.seconds.is_some());
    if !seen.report || !measured {
        return Step::Finish(None);
    }
    let late = |reason: &str, text: String| Step::Finish(Some((reason.to_owned(), text)));
    let left = seen.left(seen.progressed(), seen.limits.start + DRAWING);
    let Some(pod) = seen
        .runners
        .iter()
        .find(|runner| runner.role == Role::Report)
    else {
        if left.is_zero() {
            return late(
                "ReportLost",
                "the report's pod went again and again".to_owned(),
            );
        }
        return Step::MakeReport;
    };
    match &pod.state {
        RunnerState::Ended(ended) if ended.exit_code == Some(0) => Step::PublishReport,
        RunnerState::Ended(ended) => {
            let text = match ended.message.trim() {
                "" => &*ended.reason,
                text => text,
            };
            late("ReportFailed", format!("the report failed: {text}"))
        }
        RunnerState::Disrupted(why) => late("ReportLost", format!("its pod was taken away: {why}")),
        RunnerState::Waiting(Some((reason, text))) if left.is_zero() => {
            late(reason, format!("its pod did not start: {text}"))
        }
        _ if left.is_zero() => late("TimeLimit", "the report took too long".to_owned()),
        _ => Step::Wait(
            Some(left),
            "all cells ended; the plots are drawn".to_owned(),
        ),
    }
}

fn about(seen: &Seen<'_>, cell: &Cell, what: &str) -> String {
    format!(
        "cell {} of {} ({} × {}, size {}): {what}",
        cell.index + 1,
        seen.cells.len(),
        cell.shape.nodes,
        cell.shape.cores,
        cell.size
    )
}

fn trouble(reason: &str, text: &str) -> Trouble {
    (reason.to_owned(), text.to_owned())
}
