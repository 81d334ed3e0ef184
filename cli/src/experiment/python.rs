//! Any Python program as a workload: timed from its start to its end, with the scheduler's address in its environment.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use oxidask_client::Client;

use super::measure::{Cell, Label, timed};
use super::sweep::{bar, grid, order, report};
use super::table::{Row, Table};
use crate::args::Python;
use crate::local::{LocalCluster, Plan};

/// How long workers may take to start their interpreters and register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the program in each cell.
///
/// # Errors
/// If a cluster cannot be had or the program fails.
pub(crate) async fn run(program: &Python) -> Result<()> {
    let sweep = &program.sweep;
    ensure!(
        sweep.address.is_none(),
        "a Python program uses all workers of a cluster, so its cells need clusters of their own: leave out --address"
    );
    let grid = grid(sweep);
    let bar = bar((grid.len() * sweep.repeats) as u64)?;
    let mut cells: Vec<Cell> = Vec::new();
    for (at, (workers, threads)) in order(&grid, sweep.repeats).into_iter().enumerate() {
        bar.set_message(format!("{} on {workers} × {threads}", program.program[0]));
        cells.push(measure(program, workers, threads, at / grid.len()).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let rows = grid.iter().filter_map(|pair| {
        let of_pair = cells
            .iter()
            .filter(|cell| (cell.workers, cell.threads) == *pair);
        let mut of_pair: Vec<&Cell> = of_pair.collect();
        of_pair.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let cell = (*of_pair.get(of_pair.len() / 2)?).clone();
        Some(Row {
            timed_tasks: cell.work.tasks,
            cell,
            control_seconds: None,
            note: None,
        })
    });
    report(&Table::new(rows.collect()), sweep)
}

async fn measure(program: &Python, workers: usize, threads: usize, repeat: usize) -> Result<Cell> {
    let cluster = LocalCluster::start(&Plan {
        workers,
        threads,
        memory_limit: "0".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 0,
        dashboard_port: 0,
        lazy_executor: false,
        pin: program.sweep.pin,
    })?;
    let client = Client::connect(&cluster.address).await?;
    client.wait_for_workers(workers, REGISTER_TIMEOUT).await?;
    let mut command = std::process::Command::new(&program.python);
    command
        .args(&program.program)
        .env("DASK_SCHEDULER_ADDRESS", &cluster.address)
        .env("DASK_SCHEDULER__ADDRESS", &cluster.address)
        .env("OXIDASK_NODES", workers.to_string())
        .env("OXIDASK_CORES", threads.to_string())
        .env("OXIDASK_REPEAT", repeat.to_string())
        .stdout(std::process::Stdio::null());
    let label = Label {
        workload: program.program[0].clone(),
        size: 0,
        workers,
        threads,
    };
    timed(&client, label, async {
        let status = tokio::task::spawn_blocking(move || command.status()).await?;
        let status =
            status.with_context(|| format!("failed to start {}", program.python.display()))?;
        ensure!(status.success(), "{} failed: {status}", program.program[0]);
        Ok(())
    })
    .await
}
