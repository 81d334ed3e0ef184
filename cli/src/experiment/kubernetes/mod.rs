//! An experiment on Kubernetes: a `ScalingExperiment` is made, watched until it has ended, and its results fetched.

mod kubectl;
mod manifest;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use serde_json::Value;

use self::kubectl::Kubectl;
use self::manifest::Experiment;
use super::sweep::bar;
use crate::args::{Matmul, Pi, Python, Sweep};

/// How often the experiment is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an operator may take to begin. What it does then has limits of its own.
const OPERATOR_TIMEOUT: Duration = Duration::from_secs(60);

/// The product of matrices.
///
/// # Errors
/// As [`run`], and for the tutorial's product, which the resource does not know.
pub(crate) async fn matmul(matmul: &Matmul) -> Result<()> {
    ensure!(
        !matmul.tutorial,
        "--tutorial is measured on this machine only: leave out --kubernetes"
    );
    let sizes = matmul.sizes.iter().map(|size| *size as u64).collect();
    let workload = manifest::matmul(matmul.chunk, matmul.dtype);
    run(&matmul.sweep, "matmul", workload, sizes, None).await
}

/// Monte-Carlo pi. The runner chooses the number of tasks.
///
/// # Errors
/// As [`run`], and for the tutorial's one task per worker.
pub(crate) async fn pi(pi: &Pi) -> Result<()> {
    ensure!(
        !pi.tutorial,
        "--tutorial is measured on this machine only: leave out --kubernetes"
    );
    run(&pi.sweep, "pi", manifest::pi(), pi.sizes.clone(), None).await
}

/// A Python program, which each runner pod gets as text.
///
/// # Errors
/// As [`run`], and if the program cannot be read.
pub(crate) async fn python(python: &Python) -> Result<()> {
    let runner = manifest::runner(&python.sweep.kubernetes.image, &python.program)?;
    let workload = manifest::python();
    run(&python.sweep, "python", workload, vec![1], Some(runner)).await
}

/// Makes the resource and waits until it has ended, prints and writes what came out, and deletes it.
///
/// # Errors
/// If kubectl fails, no operator takes the experiment up, no cell has a time, or files cannot be written. The
/// resource is deleted then too, unless it is to be kept.
async fn run(
    sweep: &Sweep,
    workload_name: &str,
    workload: Value,
    sizes: Vec<u64>,
    runner: Option<Value>,
) -> Result<()> {
    let options = &sweep.kubernetes;
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| manifest::fresh_name(workload_name));
    let experiment = Experiment {
        name: &name,
        workload,
        sizes,
        sweep,
        runner,
    };
    let kubectl = Kubectl::new(options.namespace.clone());
    kubectl.create(&experiment.manifest()).await?;
    let outcome = tokio::select! {
        outcome = finish(&kubectl, &name, sweep) => outcome,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            Err(anyhow::anyhow!("interrupted"))
        }
    };
    if options.keep {
        println!("scalingexperiment {name} is kept: kubectl delete scalingexperiment {name}");
        return outcome;
    }
    let deleted = kubectl.delete(&name).await;
    outcome.and(deleted)
}

/// Follows the experiment to its end, and takes its results.
async fn finish(kubectl: &Kubectl, name: &str, sweep: &Sweep) -> Result<()> {
    let status = follow(kubectl, name).await?;
    let results = match text(&status, "configMap") {
        Some(config_map) => kubectl.config_map(config_map).await?,
        None => Value::Null,
    };
    print!("{}", shown(&status, &results));
    if let Some(folder) = &sweep.output {
        write(&results, folder)?;
    }
    let phase = text(&status, "phase").unwrap_or("unknown");
    ensure!(
        phase == "Complete",
        "the experiment ended as {phase}: {}",
        text(&status, "message").unwrap_or("no message")
    );
    Ok(())
}

/// Draws a bar until the experiment has ended; gives its status.
async fn follow(kubectl: &Kubectl, name: &str) -> Result<Value> {
    let bar = bar(0)?;
    let begin = Instant::now();
    loop {
        let status = kubectl.status(name).await?;
        if status.is_null() && begin.elapsed() > OPERATOR_TIMEOUT {
            bail!(
                "no operator has taken up scalingexperiment {name} within {} s: is oxidask's operator installed, and does it watch this namespace?",
                OPERATOR_TIMEOUT.as_secs()
            );
        }
        bar.set_length(number(&status, "cells"));
        bar.set_position(number(&status, "done"));
        bar.set_message(text(&status, "message").unwrap_or("waiting").to_owned());
        if text(&status, "endTime").is_some() {
            bar.finish_and_clear();
            return Ok(status);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value[field].as_str()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or(0)
}

/// The table that the report made, or else the one in the status; then the cells that failed.
fn shown(status: &Value, results: &Value) -> String {
    let mut shown = match results["data"]["table.txt"].as_str() {
        Some(table) => table.to_owned(),
        None => table_of(status),
    };
    let rows = status["rows"].as_array().map_or(&[][..], Vec::as_slice);
    for row in rows {
        if let Some(error) = text(row, "error") {
            shown.push_str(&format!(
                "{} × {}, size {}: {}: {error}\n",
                row["nodes"],
                row["cores"],
                row["size"],
                text(row, "reason").unwrap_or("failed"),
            ));
        }
    }
    shown
}

fn table_of(status: &Value) -> String {
    let mut table = String::from("nodes cores       size      time  speed-up  efficiency\n");
    let lines = status["table"].as_array().map_or(&[][..], Vec::as_slice);
    for line in lines {
        let figure = |field: &str, unit: &str| match line[field].as_f64() {
            Some(value) => format!("{value:.2}{unit}"),
            None => "-".to_owned(),
        };
        table.push_str(&format!(
            "{:>5} {:>5} {:>10} {:>9} {:>9} {:>11}\n",
            line["nodes"].to_string(),
            line["cores"].to_string(),
            line["size"].to_string(),
            figure("seconds", " s"),
            figure("speedup", " ×"),
            figure("efficiency", ""),
        ));
    }
    table
}

/// Writes tables and plots of the results into a folder.
fn write(results: &Value, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("failed to make {}", folder.display()))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))
    };
    let mut written = Vec::new();
    for name in ["table.json", "table.csv", "speedup.svg", "rows.json"] {
        if let Some(text) = results["data"][name].as_str() {
            write(name, text.as_bytes())?;
            written.push(name);
        }
    }
    if let Some(png) = results["binaryData"]["speedup.png"].as_str() {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(png)
            .context("speedup.png of the results is no base64")?;
        write("speedup.png", &bytes)?;
        written.push("speedup.png");
    }
    ensure!(
        !written.is_empty(),
        "the experiment has no results to write"
    );
    println!("\n{} are in {}", written.join(", "), folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_report_made_is_shown_and_written_and_failed_cells_are_named() {
        let status = json!({"rows": [
            {"nodes": 1, "cores": 1, "size": 9, "seconds": 2.0},
            {"nodes": 4, "cores": 1, "size": 9, "reason": "Unschedulable", "error": "3 of 4 workers are ready"},
        ]});
        let results = json!({
            "data": {"table.txt": "the table\n", "table.csv": "a,b\n"},
            "binaryData": {"speedup.png": "Zm9v"},
        });
        assert_eq!(
            shown(&status, &results),
            "the table\n4 × 1, size 9: Unschedulable: 3 of 4 workers are ready\n"
        );
        let folder = tempfile::tempdir().unwrap();
        write(&results, folder.path()).unwrap();
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("table.csv"), read("speedup.png")),
            (b"a,b\n".to_vec(), b"foo".to_vec())
        );
        assert!(write(&Value::Null, folder.path()).is_err());
    }

    #[test]
    fn without_a_report_the_table_of_the_status_is_shown() {
        let status =
            json!({"table": [{"nodes": 2, "cores": 1, "size": 9, "seconds": 1.5, "speedup": 1.9}]});
        let shown = shown(&status, &Value::Null);
        assert!(
            shown.contains("1.50 s") && shown.contains("1.90 ×"),
            "{shown}"
        );
    }
}
