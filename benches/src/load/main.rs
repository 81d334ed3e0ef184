//! `cargo xtask soak load`: a scheduler under a thousand workers, hundreds of clients and six loads.
//!
//! This process plays all of them, over real sockets and with what a stock client has sent; beside it there are the
//! scheduler and its helpers.

mod cluster;
mod fakes;
mod loads;
mod probe;
mod process;
mod recording;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use cluster::{Cluster, Sizes};
use loads::Load;
use probe::Probe;
use report::Row;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time for a scheduler to come to rest.
const REST: Duration = Duration::from_secs(30);

/// Puts a scheduler under load and says how it bears it
#[derive(Parser)]
struct Args {
    /// Folder of the recorded graphs
    #[arg(long)]
    recordings: PathBuf,
    /// `NAME=COMMAND` of a scheduler, with {port}; several are loaded one after the other
    #[arg(long, required = true)]
    side: Vec<String>,
    /// Loads to run; all without it
    #[arg(long, value_enum)]
    load: Vec<Load>,
    /// Seconds that one load may take
    #[arg(long, default_value_t = 180)]
    limit: u64,
    /// File for the result as a page
    #[arg(long)]
    page: Option<PathBuf>,
    #[command(flatten)]
    sizes: Sizes,
}

fn main() -> Result<()> {
    let args = Args::parse();
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(step_back)
        .enable_all()
        .build()?;
    let loads = if args.load.is_empty() {
        Load::ALL.to_vec()
    } else {
        args.load.clone()
    };
    let mut rows = Vec::new();
    for load in loads {
        for side in &args.side {
            let (name, command) = side
                .split_once('=')
                .with_context(|| format!("--side {side:?} is not NAME=COMMAND"))?;
            let limit = Duration::from_secs(args.limit);
            let outcome = runtime.block_on(async {
                tokio::spawn(run(
                    load,
                    command.to_owned(),
                    args.recordings.clone(),
                    args.sizes,
                    limit,
                ))
                .await?
            });
            let row = Row {
                load: load.sentence(&args.sizes),
                side: name.to_owned(),
                outcome: outcome.map_err(|error| format!("{error:#}")),
            };
            println!("{}", row.line());
            rows.push(row);
        }
    }
    if let Some(page) = &args.page {
        std::fs::write(page, report::page(&rows, &args.sizes, args.limit))
            .with_context(|| format!("failed to write {}", page.display()))?;
    }
    if rows
        .iter()
        .any(|row| row.side == "ours" && row.outcome.is_err())
    {
        bail!("our scheduler did not bear a load");
    }
    Ok(())
}

/// One load on a fresh scheduler.
async fn run(
    load: Load,
    command: String,
    recordings: PathBuf,
    sizes: Sizes,
    limit: Duration,
) -> Result<report::Figures> {
    let mut cluster = Cluster::start(&command, &recordings, sizes)
        .await
        .context("while everybody joins")?;
    cluster.warm_up().await.context("while warming up")?;
    cluster.scheduler.settle(REST).await;
    let before = cluster.scheduler.memory();
    let mut ready = tokio::time::timeout(limit, load.prepare(&mut cluster))
        .await
        .with_context(|| format!("not ready within {} s", limit.as_secs()))??;
    cluster.scheduler.settle(REST).await;
    cluster.scheduler.forget_peak();
    let (own, below) = cluster.scheduler.cpu();
    let probe = Probe::start(cluster.scheduler.address.clone());
    let done = tokio::time::timeout(limit, load.run(&mut cluster, &mut ready)).await;
    let waits = probe.stop();
    let done = done.with_context(|| format!("not done within {} s", limit.as_secs()))??;
    let (own_after, below_after) = cluster.scheduler.cpu();
    let peak = cluster.scheduler.peak();
    load.clear(&mut cluster, ready).await?;
    cluster.scheduler.settle(REST).await;
    Ok(report::Figures {
        amount: done.amount,
        unit: done.unit,
        took: done.took,
        waits: waits?,
        cpu: own_after - own,
        cpu_below: below_after - below,
        before,
        peak,
        after: cluster.scheduler.memory(),
    })
}

/// The threads of the fakes leave the processor to the scheduler and to the client that measures.
fn step_back() {
    let thread = rustix::thread::gettid();
    // A system that does not allow it measures a little more.
    let _ = rustix::process::setpriority_process(Some(thread), 10);
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What is missing is told by the first connection that fails.
    let _ = setrlimit(Resource::Nofile, limit);
}
