//! Tables and plots from rows that cells have left, for whoever ran the cells by himself.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::json;

use super::measure::{Cell, Work};
use super::table::{Row, Table};
use crate::args::Report;

/// A file of rows.
#[derive(Deserialize)]
struct Rows {
    #[serde(default)]
    workload: Option<String>,
    rows: Vec<RowOfCell>,
}

/// A row as the operator keeps it; without seconds if the cell failed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct RowOfCell {
    nodes: usize,
    cores: usize,
    size: u64,
    seconds: Option<f64>,
    bytes_moved: Option<u64>,
    compute_seconds: Option<f64>,
    transfer_seconds: Option<f64>,
    cpu_seconds: Option<f64>,
    tasks: Option<u64>,
}

/// Writes what was asked for.
///
/// # Errors
/// If the rows cannot be read, or something cannot be written.
pub(crate) fn run(report: &Report) -> Result<()> {
    let text = std::fs::read_to_string(&report.rows)
        .with_context(|| format!("failed to read {}", report.rows.display()))?;
    let rows: Rows = serde_json::from_str(&text)
        .with_context(|| format!("{} holds no rows", report.rows.display()))?;
    let table = table(rows)?;
    if let Some(folder) = &report.output {
        table.write(folder)?;
    }
    match &report.configmap_data {
        Some(path) => config_map(&table, path),
        None => {
            print!("{}", table.text());
            Ok(())
        }
    }
}

/// The table of rows that have a time; repeats become their median.
fn table(rows: Rows) -> Result<Table> {
    let workload = rows.workload.unwrap_or_else(|| "workload".to_owned());
    let mut cells: Vec<Cell> = Vec::new();
    for row in rows.rows {
        let Some(seconds) = row.seconds.filter(|seconds| *seconds > 0.0) else {
            continue;
        };
        cells.push(Cell {
            workload: workload.clone(),
            size: row.size,
            workers: row.nodes.max(1),
            threads: row.cores.max(1),
            seconds,
            work: Work {
                tasks: row.tasks.unwrap_or(0),
                compute_seconds: row.compute_seconds.unwrap_or(0.0),
                bytes_moved: row.bytes_moved.unwrap_or(0),
                transfer_seconds: row.transfer_seconds.unwrap_or(0.0),
                cpu_seconds: row.cpu_seconds.unwrap_or(0.0),
                // CPUs of the nodes are not known here; each has at least as many as cores were asked for.
                cpus: 0,
            },
        });
    }
    cells.sort_by(|a, b| {
        let place = |cell: &Cell| (cell.size, cell.slots(), cell.workers);
        place(a)
            .cmp(&place(b))
            .then(a.seconds.total_cmp(&b.seconds))
    });
    let same =
        |a: &Cell, b: &Cell| (a.size, a.workers, a.threads) == (b.size, b.workers, b.threads);
    let repeats = cells.chunk_by(same);
    Ok(Table::new(
        repeats
            .map(|repeats| {
                let cell = repeats[repeats.len() / 2].clone();
                Row {
                    timed_tasks: cell.work.tasks,
                    cell,
                    control_seconds: None,
                    note: None,
                }
            })
            .collect(),
    ))
}

/// Tables as texts, and plots: SVG as text, PNG in base64.
fn config_map(table: &Table, path: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    table.write(folder.path())?;
    let text = |name: &str| std::fs::read_to_string(folder.path().join(name));
    let png = std::fs::read(folder.path().join("speedup.png"))?;
    let line = json!({
        "data": {
            "summary.txt": table.summary(),
            "table.txt": table.text(),
            "table.csv": text("table.csv")?,
            "table.json": text("table.json")?,
            "speedup.svg": text("speedup.svg")?,
        },
        "binaryData": {"speedup.png": base64::engine::general_purpose::STANDARD.encode(png)},
    });
    if path == Path::new("-") {
        println!("{line}");
        return Ok(());
    }
    std::fs::write(path, format!("{line}\n"))
        .with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_tables_and_failed_cells_are_left_out() {
        let rows = json!({"workload": "pi", "rows": [
            {"nodes": 1, "cores": 1, "size": 9, "repeat": 0, "seconds": 4.0, "tasks": 64, "computeSeconds": 3.9},
            {"nodes": 2, "cores": 1, "size": 9, "repeat": 0, "seconds": 2.0, "tasks": 64, "computeSeconds": 3.9},
            {"nodes": 3, "cores": 1, "size": 9, "repeat": 0, "error": "no node"},
        ]});
        let table = table(serde_json::from_value(rows).unwrap()).unwrap();
        let json = table.json();
        assert_eq!(json.as_array().unwrap().len(), 2);
        assert_eq!(json[1]["speedup"], 2.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.json");
        config_map(&table, &path).unwrap();
        let written: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(
            written["data"]["speedup.svg"]
                .as_str()
                .unwrap()
                .contains("<svg")
        );
        assert!(
            written["binaryData"]["speedup.png"]
                .as_str()
                .unwrap()
                .starts_with("iVBORw0KGgo")
        );
        assert!(
            written["data"]["summary.txt"]
                .as_str()
                .unwrap()
                .contains("compute")
        );
    }
    #[test]
    fn without_a_cell_that_has_a_time_there_is_a_table_that_says_so() {
        let rows = json!({"workload": "pi", "rows": [{"nodes": 3, "cores": 1, "size": 9, "error": "no node"}]});
        let table = table(serde_json::from_value(rows).unwrap()).unwrap();
        assert_eq!(table.summary(), "no cell has a time\n");
        let folder = tempfile::tempdir().unwrap();
        config_map(&table, &folder.path().join("data.json")).unwrap();
    }
}
