//! Runs the cells of a native experiment in an order that cancels drift.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use oxidask_client::{Client, Value};

use super::control::control;
use super::measure::{Cell, measure};
use super::table::{Row, Table};
use super::workload::Task;
use crate::args::Sweep;
use crate::connect::connect;
use crate::local::{LocalCluster, Plan};

/// How long workers may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(60);

/// Measures all cells and reports.
///
/// # Errors
/// If a cluster cannot be had, a task fails or results cannot be written.
pub(crate) async fn run(sweep: &Sweep, tasks: &[Task]) -> Result<()> {
    ensure!(sweep.repeats > 0, "--repeats must be at least 1");
    ensure!(
        !sweep.workers.contains(&0) && !sweep.threads.contains(&0),
        "--workers and --threads must be at least 1"
    );
    let grid = grid(sweep);
    let bar = bar((grid.len() * tasks.len() * sweep.repeats) as u64)?;
    let mut runs: Vec<Run> = Vec::new();
    for (workers, threads) in order(&grid, sweep.repeats) {
        let setting = Setting::prepare(sweep, workers, threads).await?;
        for task in tasks {
            bar.set_message(format!(
                "{} {} on {workers} × {threads}",
                task.name(),
                task.size()
            ));
            let (client, only) = (&setting.client, &setting.only);
            let cell = measure(client, task, workers, setting.threads, only).await;
            let cell = cell.with_context(|| format!("{} on {workers} workers", task.name()))?;
            runs.push(Run {
                task: task.clone(),
                cell,
                control: None,
            });
            bar.inc(1);
        }
        drop(setting);
        if !sweep.no_control {
            let fresh = runs.len() - tasks.len();
            for run in &mut runs[fresh..] {
                run.control = Some(control(&run.task, workers, threads, sweep.pin)?);
            }
        }
    }
    bar.finish_and_clear();
    let table = Table::new(tasks.iter().flat_map(|task| rows(task, &runs)).collect());
    report(&table, sweep)
}

/// One measurement, with its control.
struct Run {
    task: Task,
    cell: Cell,
    control: Option<f64>,
}

/// Prints a table and writes its files.
///
/// # Errors
/// If they cannot be written.
pub(crate) fn report(table: &Table, sweep: &Sweep) -> Result<()> {
    print!("{}", table.text());
    if let Some(folder) = &sweep.output {
        table.write(folder)?;
        println!(
            "\ntable.json, table.csv, speedup.svg and speedup.png are in {}",
            folder.display()
        );
    }
    Ok(())
}

/// Pairs of workers and threads, fewest slots first.
pub(crate) fn grid(sweep: &Sweep) -> Vec<(usize, usize)> {
    let mut grid: Vec<(usize, usize)> = sweep
        .workers
        .iter()
        .flat_map(|workers| sweep.threads.iter().map(|threads| (*workers, *threads)))
        .collect();
    grid.sort_by_key(|(workers, threads)| (workers * threads, *workers));
    grid.dedup();
    grid
}

/// Each pair `repeats` times, forwards and backwards in turn: what grows with time grows for all alike.
pub(crate) fn order(grid: &[(usize, usize)], repeats: usize) -> Vec<(usize, usize)> {
    let mut order = Vec::with_capacity(grid.len() * repeats);
    for round in 0..repeats {
        if round % 2 == 0 {
            order.extend(grid.iter().copied());
        } else {
            order.extend(grid.iter().rev().copied());
        }
    }
    order
}

/// A progress bar, which is not drawn where there is no terminal.
pub(crate) fn bar(length: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}")?;
    Ok(ProgressBar::new(length).with_style(style))
}

/// The rows of one size: for each pair the run with the median time.
fn rows(task: &Task, runs: &[Run]) -> Vec<Row> {
    let own: Vec<&Run> = runs.iter().filter(|run| run.task == *task).collect();
    let mut pairs: Vec<(usize, usize)> = own
        .iter()
        .map(|run| (run.cell.workers, run.cell.threads))
        .collect();
    pairs.sort_by_key(|(workers, threads)| (workers * threads, *workers));
    pairs.dedup();
    let rows = pairs.into_iter().filter_map(|pair| {
        let of_pair = own
            .iter()
            .filter(|run| (run.cell.workers, run.cell.threads) == pair);
        let mut of_pair: Vec<&&Run> = of_pair.collect();
        of_pair.sort_by(|a, b| a.cell.seconds.total_cmp(&b.cell.seconds));
        let controls = of_pair.iter().filter_map(|run| run.control);
        let mut controls: Vec<f64> = controls.collect();
        controls.sort_by(f64::total_cmp);
        let median = of_pair.get(of_pair.len() / 2)?;
        Some(Row {
            cell: median.cell.clone(),
            control_seconds: controls.get(controls.len() / 2).copied(),
            timed_tasks: task.tasks(pair.0),
            note: task.few_tasks().map(str::to_owned),
        })
    });
    rows.collect()
}

/// A cluster for one pair.
struct Setting {
    client: Client,
    /// Workers that may be used, all if empty.
    only: Vec<String>,
    /// Threads of each worker, as they are.
    threads: usize,
    _cluster: Option<LocalCluster>,
}

impl Setting {
    async fn prepare(sweep: &Sweep, workers: usize, threads: usize) -> Result<Self> {
        let Some(address) = &sweep.address else {
            let cluster = LocalCluster::start(&Plan {
                workers,
                threads,
                memory_limit: "0".to_owned(),
                host: "127.0.0.1".to_owned(),
                port: 0,
                dashboard_port: 0,
                lazy_executor: true,
                pin: sweep.pin,
            })?;
            let client = Client::connect(&cluster.address).await?;
            client.wait_for_workers(workers, REGISTER_TIMEOUT).await?;
            return Ok(Self {
                client,
                only: Vec::new(),
                threads,
                _cluster: Some(cluster),
            });
        };
        let client = connect(address).await?;
        let mut connected = client.workers().await?;
        ensure!(
            connected.len() >= workers,
            "{address} has {} workers, fewer than the {workers} asked for",
            connected.len()
        );
        connected.sort_by(|(a, _), (b, _)| a.cmp(b));
        connected.truncate(workers);
        let own = connected[0].1.field("nthreads").and_then(Value::as_u64);
        let own = own.unwrap_or(1) as usize;
        ensure!(
            sweep.threads == [own],
            "workers of {address} have {own} threads each, which only a new cluster can vary: give --threads {own}"
        );
        Ok(Self {
            client,
            only: connected.into_iter().map(|(address, _)| address).collect(),
            threads,
            _cluster: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_go_forwards_and_backwards() {
        let grid = [(1, 1), (2, 1)];
        assert_eq!(
            order(&grid, 3),
            [(1, 1), (2, 1), (2, 1), (1, 1), (1, 1), (2, 1)]
        );
    }
}
