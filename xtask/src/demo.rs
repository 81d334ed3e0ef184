//! `cargo xtask demo`: a cluster of ours and the tutorial of Dask on it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::binaries::Binaries;
use crate::cluster::{Cluster, ClusterArgs};
use crate::env::Python;
use crate::{process, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Leave the cluster up after the tutorial, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Sizes of the tutorial's programs: `small` is for CI
    #[arg(long, default_value = "full", value_parser = ["small", "full"])]
    size: String,
    /// Run only the programs whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// One program of the tutorial as it reports itself, a line of JSON each.
#[derive(Deserialize)]
struct Row {
    name: String,
    ok: bool,
    /// What was computed and agreed with the result made without Dask, or the error.
    result: String,
    seconds: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    process::install_signal_handling()?;
    let python = Python::ensure()?;
    let binaries = Binaries::build()?;
    let folder = log_folder()?;
    let mut cluster = Cluster::start(&args.cluster, &binaries, &python, &folder)?;
    println!("{} at {}", cluster.description, cluster.address);
    println!(
        "web page {}   output in {}",
        cluster.dashboard,
        folder.display()
    );

    let outcome = tutorial(args, &mut cluster, &python);
    if outcome.is_err() {
        eprintln!("{}", cluster.logs());
    }
    if args.keep {
        println!("the cluster stays up at {} until Ctrl-C", cluster.address);
        loop {
            cluster.check_alive()?;
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    drop(cluster);
    let orphans = process::kill_orphans();
    outcome?;
    ensure!(
        orphans.is_empty(),
        "processes outlived the cluster and had to be killed: {}",
        orphans.join(", ")
    );
    // Kept after a failure, so that the processes' output can be read.
    std::fs::remove_dir_all(&folder)
        .with_context(|| format!("failed to remove {}", folder.display()))
}

/// Runs the programs and prints a row for each as it ends.
fn tutorial(args: &Args, cluster: &mut Cluster, python: &Python) -> Result<()> {
    let start = Instant::now();
    let mut command = python.command(&["-m", "tutorial", &cluster.address, "--size", &args.size]);
    command
        .arg("--workers")
        .arg(args.cluster.workers.to_string());
    if let Some(only) = &args.only {
        command.args(["--only", only]);
    }
    let mut child = command
        .current_dir(workspace::root().join("e2e/python"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start the tutorial")?;
    println!("\n{:<28} {:<7} {:>8}  result", "program", "", "seconds");
    let (mut passed, mut failed) = (0_u32, 0_u32);
    let output = child
        .stdout
        .take()
        .context("the tutorial has no standard output")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("failed to read the tutorial's output")?;
        let Ok(row) = serde_json::from_str::<Row>(&line) else {
            println!("{line}");
            continue;
        };
        let verdict = if row.ok { "ok" } else { "FAILED" };
        println!(
            "{:<28} {:<7} {:>8.2}  {}",
            row.name, verdict, row.seconds, row.result
        );
        if row.ok { passed += 1 } else { failed += 1 }
    }
    let status = child.wait().context("failed to wait for the tutorial")?;
    println!(
        "\ntutorial on {}: {:.1} s",
        cluster.description,
        start.elapsed().as_secs_f64()
    );
    println!("tutorial: {passed} passed, {failed} failed");
    cluster.check_alive()?;
    if failed > 0 || passed == 0 || !status.success() {
        bail!("the tutorial did not pass ({status})");
    }
    Ok(())
}

/// A folder of this run for the processes' output and the workers' local data.
fn log_folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("oxidask-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    Ok(folder)
}
