//! The table of an experiment: as text, JSON and CSV.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::measure::Cell;
use super::plot;
use super::verdict::{Verdict, verdict};
use crate::status::bytes;

/// One cell and its control.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) cell: Cell,
    /// Plain processes without a scheduler. Unit: seconds.
    pub(crate) control_seconds: Option<f64>,
    /// Tasks that are timed; 0 if nobody knows.
    pub(crate) timed_tasks: u64,
    /// What is to be known about the number of tasks.
    pub(crate) note: Option<String>,
}

/// All rows. Those of one workload and size stand together, fewest slots first.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

/// A row with what is computed from it and the first one of its workload and size.
pub(crate) struct Line<'a> {
    pub(crate) row: &'a Row,
    /// Time of the first row over that of this one, times the slots of the first one.
    pub(crate) speedup: f64,
    /// Speed-up per slot.
    pub(crate) efficiency: f64,
    /// Speed-up of the control.
    pub(crate) control_speedup: Option<f64>,
    pub(crate) verdict: Verdict,
}

impl Table {
    pub(crate) fn new(rows: Vec<Row>) -> Self {
        Self { rows }
    }

    /// Rows with their figures, grouped by workload and size.
    pub(crate) fn groups(&self) -> Vec<Vec<Line<'_>>> {
        let mut groups: Vec<Vec<&Row>> = Vec::new();
        for row in &self.rows {
            let name = |row: &Row| (row.cell.workload.clone(), row.cell.size);
            match groups.last_mut() {
                Some(group) if name(group[0]) == name(row) => group.push(row),
                _ => groups.push(vec![row]),
            }
        }
        groups
            .into_iter()
            .map(|group| {
                let base = group[0];
                group.into_iter().map(|row| line(row, base)).collect()
            })
            .collect()
    }

    /// The table for people, with a sentence for each cell.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for group in self.groups() {
            let first = &group[0].row.cell;
            text.push_str(&format!("\n{} {}\n", first.workload, first.size));
            text.push_str("workers threads      time  speed-up  efficiency  control  bytes moved  computing  transferring  waiting  bound\n");
            for line in &group {
                let cell = &line.row.cell;
                let control = match (line.row.control_seconds, line.control_speedup) {
                    (Some(_), Some(speedup)) => format!("{speedup:.2} ×"),
                    _ => "-".to_owned(),
                };
                let percent = |share: f64| format!("{:.0} %", share * 100.0);
                text.push_str(&format!(
                    "{:>7} {:>7} {:>7.3} s {:>7.2} × {:>9}  {:>8} {:>12} {:>10} {:>13} {:>8}  {}\n",
                    cell.workers,
                    cell.threads,
                    cell.seconds,
                    line.speedup,
                    percent(line.efficiency),
                    control,
                    bytes(cell.work.bytes_moved as f64),
                    percent(cell.computing()),
                    percent(cell.transferring()),
                    percent(cell.waiting()),
                    line.verdict.bound.name(),
                ));
            }
            for line in &group {
                let cell = &line.row.cell;
                text.push_str(&format!(
                    "{} × {}: {}.\n",
                    cell.workers, cell.threads, line.verdict.sentence
                ));
            }
            if let Some(note) = &group[0].row.note {
                text.push_str(&format!("Note: {note}.\n"));
            }
        }
        text
    }

    /// One sentence for each workload and size: what bounds it with most slots.
    pub(crate) fn summary(&self) -> String {
        if self.rows.is_empty() {
            return "no cell has a time\n".to_owned();
        }
        let sentences = self.groups().into_iter().filter_map(|group| {
            let line = group.last()?;
            let cell = &line.row.cell;
            Some(format!(
                "{} {}: speed-up {:.2} on {} workers × {} threads, bound by {}: {}.\n",
                cell.workload,
                cell.size,
                line.speedup,
                cell.workers,
                cell.threads,
                line.verdict.bound.name(),
                line.verdict.sentence
            ))
        });
        sentences.collect()
    }

    /// The table for programs.
    pub(crate) fn json(&self) -> Value {
        let rows = self.groups().into_iter().flatten().map(|line| {
            let cell = &line.row.cell;
            json!({
                "workload": cell.workload,
                "size": cell.size,
                "workers": cell.workers,
                "threads": cell.threads,
                "seconds": cell.seconds,
                "speedup": line.speedup,
                "efficiency": line.efficiency,
                "control_seconds": line.row.control_seconds,
                "control_speedup": line.control_speedup,
                "tasks": cell.work.tasks,
                "bytes_moved": cell.work.bytes_moved,
                "compute_seconds": cell.work.compute_seconds,
                "transfer_seconds": cell.work.transfer_seconds,
                "cpu_seconds": cell.work.cpu_seconds,
                "computing": cell.computing(),
                "transferring": cell.transferring(),
                "waiting": cell.waiting(),
                "bound": line.verdict.bound.name(),
                "sentence": line.verdict.sentence,
                "note": line.row.note,
            })
        });
        Value::Array(rows.collect())
    }

    fn csv(&self) -> String {
        let Value::Array(rows) = self.json() else {
            return String::new();
        };
        // serde_json keeps names in alphabetical order; here they stand as people read them.
        const NAMES: [&str; 18] = [
            "workload",
            "size",
            "workers",
            "threads",
            "seconds",
            "speedup",
            "efficiency",
            "control_seconds",
            "control_speedup",
            "tasks",
            "bytes_moved",
            "compute_seconds",
            "transfer_seconds",
            "cpu_seconds",
            "computing",
            "transferring",
            "waiting",
            "bound",
        ];
        let mut text = NAMES.join(",") + "\n";
        for row in rows {
            let field = |name: &&str| match &row[*name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            text.push_str(&NAMES.iter().map(field).collect::<Vec<_>>().join(","));
            text.push('\n');
        }
        text
    }

    /// Writes tables and plots into a folder, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("failed to write {}", path.display()))
        };
        write(
            "table.json",
            serde_json::to_string_pretty(&self.json())? + "\n",
        )?;
        write("table.csv", self.csv())?;
        plot::svg(self, &folder.join("speedup.svg"))?;
        plot::png(self, &folder.join("speedup.png"))
    }
}

fn line<'a>(row: &'a Row, base: &Row) -> Line<'a> {
    let slots = base.cell.slots() as f64;
    let speedup = base.cell.seconds / row.cell.seconds.max(f64::MIN_POSITIVE) * slots;
    let control_speedup = match (base.control_seconds, row.control_seconds) {
        (Some(base), Some(own)) => Some(base / own.max(f64::MIN_POSITIVE) * slots),
        _ => None,
    };
    Line {
        row,
        speedup,
        efficiency: speedup / row.cell.slots() as f64,
        control_speedup,
        verdict: verdict(&row.cell, &base.cell, row.timed_tasks),
    }
}
