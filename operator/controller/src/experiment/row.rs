//! From the end of a runner pod to its row: pure.
//!
//! A runner leaves one line of JSON, a number of seconds, or nothing in its
//! termination message. It is somebody else's text: whatever is wrong with it
//! becomes the reason of a failed cell.

use oxidask_operator_api::experiment::ExperimentRow;
use serde::Deserialize;

use super::sweep::Cell;

/// Longest text of an error that is kept; the rows have to fit into one object.
const MAX_ERROR: usize = 500;

/// How a runner's container ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ended {
    /// Its exit code; `None` if the pod ended without one.
    pub(crate) exit_code: Option<i64>,
    /// One word of Kubernetes: `Completed`, `Error`, `OOMKilled`,
    /// `DeadlineExceeded`.
    pub(crate) reason: String,
    /// Its termination message.
    pub(crate) message: String,
    /// Seconds that the container ran, as Kubernetes saw it (whole seconds).
    pub(crate) ran: Option<f64>,
}

/// What a runner writes. Unknown fields are left alone.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Report {
    seconds: Option<f64>,
    bytes_moved: Option<f64>,
    compute_seconds: Option<f64>,
    transfer_seconds: Option<f64>,
    wait_seconds: Option<f64>,
    tasks: Option<f64>,
    verdict: Option<String>,
    error: Option<String>,
}

/// The row of a cell that failed.
pub(crate) fn failed(cell: &Cell, reason: &str, error: &str) -> ExperimentRow {
    ExperimentRow {
        reason: Some(shortened(reason, 64)),
        error: Some(shortened(error.trim(), MAX_ERROR)),
        ..empty(cell)
    }
}

fn empty(cell: &Cell) -> ExperimentRow {
    ExperimentRow {
        cell: cell.index,
        nodes: cell.shape.nodes,
        cores: cell.shape.cores,
        size: cell.size,
        repeat: cell.repeat,
        ..ExperimentRow::default()
    }
}

/// The row of a runner that ended.
///
/// `timed`: whether the container's own run time counts where the runner says
/// no seconds (a user's program).
pub(crate) fn of(cell: &Cell, ended: &Ended, timed: bool) -> ExperimentRow {
    let report = read(&ended.message);
    if ended.exit_code != Some(0) {
        let text = match &report {
            Some(Report {
                error: Some(error), ..
            }) => error.clone(),
            _ => telling_line(&ended.message),
        };
        return match (&*ended.reason, ended.exit_code) {
            ("DeadlineExceeded", _) => failed(
                cell,
                "TimeLimit",
                "the runner was ended, because its time limit was over",
            ),
            ("OOMKilled", _) => failed(cell, "OOMKilled", "the runner was out of memory"),
            ("Error" | "", Some(code)) if text.is_empty() => failed(
                cell,
                "RunnerFailed",
                &format!("the runner exited with code {code} and said nothing"),
            ),
            (_, Some(code)) => failed(
                cell,
                "RunnerFailed",
                &format!("the runner exited with code {code}: {text}"),
            ),
            (reason, None) => failed(
                cell,
                if reason.is_empty() {
                    "RunnerFailed"
                } else {
                    reason
                },
                &format!("the runner's pod failed {text}"),
            ),
        };
    }
    let Some(report) = report else {
        return failed(
            cell,
            "BadRow",
            &format!(
                "the runner's row cannot be read, it must be one line of JSON or a number of seconds: {}",
                last_line(&ended.message)
            ),
        );
    };
    if let Some(error) = report.error.filter(|_| report.seconds.is_none()) {
        return failed(cell, "RunnerFailed", &error);
    }
    let seconds = report.seconds.or(ended.ran.filter(|_| timed));
    let Some(seconds) = seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0) else {
        return failed(
            cell,
            "BadRow",
            "the runner's row has no `seconds` greater than 0",
        );
    };
    let positive = |number: Option<f64>| number.filter(|n| n.is_finite() && *n >= 0.0);
    let whole = |number: Option<f64>| positive(number).map(|n| n as i64);
    ExperimentRow {
        seconds: Some(seconds),
        bytes_moved: whole(report.bytes_moved),
        compute_seconds: positive(report.compute_seconds),
        transfer_seconds: positive(report.transfer_seconds),
        wait_seconds: positive(report.wait_seconds),
        tasks: whole(report.tasks),
        verdict: report.verdict.map(|verdict| shortened(&verdict, 40)),
        ..empty(cell)
    }
}

/// What a termination message says; `None` if it is none of the three forms.
fn read(message: &str) -> Option<Report> {
    let message = message.trim();
    if message.is_empty() {
        return Some(Report::default());
    }
    if let Ok(seconds) = message.parse::<f64>() {
        return Some(Report {
            seconds: Some(seconds),
            ..Report::default()
        });
    }
    // The last line, because it may come from the log.
    let line = message.lines().rev().find(|line| line.starts_with('{'))?;
    serde_json::from_str(line).ok()
}

/// The line of a program's output that says why it failed: the first that
/// begins with `error`, as command lines print, or else the last, as Python
/// does.
fn telling_line(message: &str) -> String {
    let error = message
        .lines()
        .map(str::trim)
        .find(|line| line.to_lowercase().starts_with("error"));
    error.map_or_else(|| last_line(message), str::to_owned)
}

fn last_line(message: &str) -> String {
    let line = message.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().to_owned()
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::sweep::Shape;

    const CELL: Cell = Cell {
        index: 3,
        shape: Shape { nodes: 2, cores: 1 },
        size: 10,
        repeat: 1,
    };

    fn ended(exit_code: i64, message: &str) -> Ended {
        Ended {
            exit_code: Some(exit_code),
            reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
            message: message.to_owned(),
            ran: Some(7.0),
        }
    }

    #[test]
    fn a_row_is_taken_over_field_by_field() {
        let message = r#"{"workload": "pi", "seconds": 1.5, "bytesMoved": 8, "computeSeconds": 2.0,
            "transferSeconds": 0.5, "waitSeconds": 0.25, "tasks": 12, "verdict": "compute", "new": []}"#
            .replace('\n', " ");
        let row = of(&CELL, &ended(0, &message), false);
        assert_eq!(
            row,
            ExperimentRow {
                cell: 3,
                nodes: 2,
                cores: 1,
                size: 10,
                repeat: 1,
                seconds: Some(1.5),
                bytes_moved: Some(8),
                compute_seconds: Some(2.0),
                transfer_seconds: Some(0.5),
                wait_seconds: Some(0.25),
                tasks: Some(12),
                verdict: Some("compute".to_owned()),
                reason: None,
                error: None,
            }
        );
    }

    #[test]
    fn a_users_program_may_say_a_number_or_nothing() {
        assert_eq!(of(&CELL, &ended(0, "1.25\n"), true).seconds, Some(1.25));
        assert_eq!(of(&CELL, &ended(0, ""), true).seconds, Some(7.0));
        let row = of(&CELL, &ended(0, ""), false);
        assert_eq!(row.reason.as_deref(), Some("BadRow"));
    }

    #[test]
    fn nonsense_is_a_failed_cell_and_not_a_time() {
        for message in [
            "hello",
            "[1]",
            r#"{"seconds": "fast"}"#,
            r#"{"seconds": -1}"#,
            r#"{"seconds": 0}"#,
            "NaN",
            "inf",
            r#"{"seconds": 1e999}"#,
        ] {
            let row = of(&CELL, &ended(0, message), true);
            assert_eq!(row.seconds, None, "{message}");
            assert_eq!(row.reason.as_deref(), Some("BadRow"), "{message}");
        }
    }

    #[test]
    fn a_failed_runner_is_quoted() {
        let error = |ended: &Ended| {
            let row = of(&CELL, ended, false);
            (row.reason.unwrap(), row.error.unwrap())
        };
        let (reason, text) = error(&ended(1, "Traceback\n  line 1\nZeroDivisionError: no\n"));
        assert_eq!(reason, "RunnerFailed");
        assert_eq!(text, "the runner exited with code 1: ZeroDivisionError: no");
        let (_, text) = error(&ended(1, r#"{"error": "2 workers, not 3"}"#));
        assert!(text.ends_with(": 2 workers, not 3"), "{text}");
        let usage = "error: unexpected argument 'x' found\n\nFor more information, try '--help'.";
        assert!(error(&ended(2, usage)).1.ends_with("argument 'x' found"));
        let (_, text) = error(&ended(2, ""));
        assert!(text.ends_with("code 2 and said nothing"), "{text}");
        let deadline = Ended {
            exit_code: None,
            reason: "DeadlineExceeded".to_owned(),
            ..Ended::default()
        };
        assert_eq!(error(&deadline).0, "TimeLimit");
        let long = ended(1, &"é".repeat(9000));
        assert!(error(&long).1.chars().count() <= MAX_ERROR + 1);
    }
}
