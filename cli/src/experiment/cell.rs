//! One cell on a cluster that is there: what a runner pod runs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use oxidask_client::{Client, Value};

use super::measure::{between, measure, work};
use super::verdict::verdict;
use super::workload::Task;
use crate::args::{Cell, Native};
use crate::connect::connect;

/// Tasks of pi for each thread where nothing else is asked for: enough to even out threads of different speed.
const TASKS_PER_THREAD: u64 = 16;

/// Rows and columns of a block where nothing else is asked for.
const BLOCK: u64 = 1000;

/// Longest text of an error in a row: a row has to fit into a termination message. Unit: bytes.
const LONGEST_ERROR: usize = 500;

/// How long workers are asked what they have done, once the time is over.
const LAST_QUESTION: Duration = Duration::from_secs(5);

/// Measures, and prints the row as a line of JSON.
///
/// # Errors
/// If the cluster does not have exactly the workers asked for before and after, or a task fails; the text is in the
/// output file too.
pub(crate) async fn run(cell: &Cell) -> Result<()> {
    let outcome = measured(cell).await;
    let text = match &outcome {
        Ok(row) => row.to_string(),
        Err(error) => serde_json::json!({
            "workload": task(cell).map_or("", |task| task.name()),
            "size": cell.size,
            "nodes": cell.nodes,
            "cores": cell.cores,
            "repeat": cell.repeat,
            "error": short(&format!("{error:#}")),
        })
        .to_string(),
    };
    if let Some(path) = &cell.output {
        std::fs::write(path, &text)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    println!("{text}");
    outcome.map(|_| ())
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

async fn measured(cell: &Cell) -> Result<serde_json::Value> {
    ensure!(
        cell.nodes > 0 && cell.cores > 0,
        "--nodes and --cores must be at least 1"
    );
    let task = task(cell)?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(cell.time_limit);
    let over = |done: &str| format!("time limit of {} s is over{done}", cell.time_limit);
    let client = match tokio::time::timeout_at(deadline, connect(&cell.scheduler)).await {
        Ok(client) => client?,
        Err(_) => bail!(over(", the scheduler does not answer")),
    };
    let before = work(&client).await?;
    match tokio::time::timeout_at(deadline, row(cell, &task, &client)).await {
        Ok(row) => row,
        Err(_) => {
            let now = tokio::time::timeout(LAST_QUESTION, work(&client)).await;
            let done = match now {
                Ok(Ok(now)) => between(before, now).tasks.to_string(),
                Ok(Err(_)) | Err(_) => "nobody knows how many".to_owned(),
            };
            let all = task.inputs() + task.tasks(cell.nodes);
            bail!(over(&format!(", {done} of {all} tasks done")))
        }
    }
}

async fn row(cell: &Cell, task: &Task, client: &Client) -> Result<serde_json::Value> {
    let workers = exactly(cell, &threads(client).await?)?;
    let measured = measure(client, task, cell.nodes, cell.cores, &[]).await?;
    let after = threads(client).await?;
    let same = exactly(cell, &after).is_ok_and(|after| after == workers);
    ensure!(
        same,
        "workers changed while the cell ran: {} before, {} after",
        workers.join(" "),
        after.into_keys().collect::<Vec<_>>().join(" ")
    );
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

/// Threads of each connected worker, by address.
async fn threads(client: &Client) -> Result<BTreeMap<String, u64>> {
    let workers = client.workers().await?.into_iter();
    let threads = |about: &Value| about.field("nthreads").and_then(Value::as_u64);
    Ok(workers
        .map(|(address, about)| (address, threads(&about).unwrap_or(0)))
        .collect())
}

/// Addresses of the workers.
///
/// # Errors
/// If they are not as many, or have not as many threads, as the cell asks for.
fn exactly(cell: &Cell, workers: &BTreeMap<String, u64>) -> Result<Vec<String>> {
    let fits = workers.len() == cell.nodes
        && workers
            .values()
            .all(|threads| *threads == cell.cores as u64);
    let counts: Vec<String> = workers.values().map(u64::to_string).collect();
    ensure!(
        fits,
        "the scheduler has {} workers{}{}{}, not {} of {}",
        workers.len(),
        if counts.is_empty() { "" } else { " of " },
        counts.join(", "),
        if counts.is_empty() { "" } else { " threads" },
        cell.nodes,
        cell.cores
    );
    Ok(workers.keys().cloned().collect())
}

/// The beginning of a text in one line.
fn short(text: &str) -> String {
    let mut line = text.replace('\n', "; ");
    if line.len() > LONGEST_ERROR {
        let mut end = LONGEST_ERROR - "…".len();
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Elements;

    fn cell(nodes: usize, cores: usize) -> Cell {
        Cell {
            workload: Native::Pi,
            scheduler: String::new(),
            size: 1,
            nodes,
            cores,
            repeat: 0,
            chunk: None,
            dtype: Elements::F64,
            time_limit: 1,
            output: None,
        }
    }

    #[test]
    fn a_cell_takes_exactly_the_workers_that_it_names() {
        let workers = |threads: &[u64]| {
            let named = threads.iter().enumerate();
            named
                .map(|(n, threads)| (format!("tcp://{n}"), *threads))
                .collect()
        };
        assert!(exactly(&cell(2, 1), &workers(&[1, 1])).is_ok());
        let error = exactly(&cell(2, 1), &workers(&[1, 1, 2])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the scheduler has 3 workers of 1, 1, 2 threads, not 2 of 1"
        );
        let error = exactly(&cell(2, 1), &workers(&[])).unwrap_err();
        assert_eq!(error.to_string(), "the scheduler has 0 workers, not 2 of 1");
    }

    #[test]
    fn errors_fit_into_a_row() {
        let text = short(&"ü\n".repeat(1000));
        assert!(text.len() <= LONGEST_ERROR && text.ends_with('…') && !text.contains('\n'));
        assert_eq!(short("a\nb"), "a; b");
    }
}
