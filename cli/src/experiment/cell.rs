//! One cell on a cluster that is there: what a runner pod runs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use oxidask_client::{Client, Value};

use super::measure::measure;
use super::verdict::verdict;
use super::workload::Task;
use crate::args::{Cell, Native};

/// Tasks of pi for each thread where nothing else is asked for: enough to even out threads of different speed.
const TASKS_PER_THREAD: u64 = 16;

/// Rows and columns of a block where nothing else is asked for.
const BLOCK: u64 = 1000;

/// Waits for exactly the workers asked for, measures, and prints the row as a line of JSON.
///
/// # Errors
/// If the workers do not come in time, or a task fails; the text is in the output file too.
pub(crate) async fn run(cell: &Cell) -> Result<()> {
    let limit = Duration::from_secs(cell.time_limit);
    let outcome = match tokio::time::timeout(limit, row(cell)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow::anyhow!(
            "the time limit of {} s is over",
            cell.time_limit
        )),
    };
    let text = match &outcome {
        Ok(row) => row.to_string(),
        Err(error) => serde_json::json!({"error": format!("{error:#}")}).to_string(),
    };
    if let Some(path) = &cell.output {
        std::fs::write(path, &text)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    println!("{}", outcome?);
    Ok(())
}

/// What is measured.
fn task(cell: &Cell) -> Result<Task> {
    Ok(match cell.workload {
        Native::Matmul => Task::Matmul {
            size: usize::try_from(cell.size)?,
            chunk: usize::try_from(cell.chunk.unwrap_or(BLOCK))?,
            dtype: cell.dtype.dtype(),
        },
        Native::Pi => Task::Pi {
            samples: cell.size,
            tasks: match cell.chunk {
                Some(points) => cell.size.div_ceil(points.max(1)),
                None => TASKS_PER_THREAD * (cell.nodes * cell.cores) as u64,
            },
        },
    })
}

async fn row(cell: &Cell) -> Result<serde_json::Value> {
    ensure!(
        cell.nodes > 0 && cell.cores > 0,
        "--nodes and --cores must be at least 1"
    );
    let task = task(cell)?;
    let client = Client::connect(&cell.scheduler).await?;
    let limit = Duration::from_secs(cell.time_limit);
    client.wait_for_workers(cell.nodes, limit).await?;
    for (address, about) in client.workers().await? {
        let threads = about.field("nthreads").and_then(Value::as_u64).unwrap_or(0);
        ensure!(
            threads == cell.cores as u64,
            "worker {address} has {threads} threads, not {}",
            cell.cores
        );
    }
    let measured = measure(&client, &task, cell.nodes, cell.cores, &[]).await?;
    let verdict = verdict(&measured, &measured, task.tasks(cell.nodes));
    Ok(serde_json::json!({
        "workload": measured.workload,
        "nodes": cell.nodes,
        "cores": cell.cores,
        "size": cell.size,
        "repeat": cell.repeat,
        "seconds": measured.seconds,
        "bytesMoved": measured.work.bytes_moved,
        "computeSeconds": measured.work.compute_seconds,
        "transferSeconds": measured.work.transfer_seconds,
        "waitSeconds": measured.wait_seconds(),
        "cpuSeconds": measured.work.cpu_seconds,
        "tasks": measured.work.tasks,
        "verdict": verdict.bound.word(),
    }))
}
