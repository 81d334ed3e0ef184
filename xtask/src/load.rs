//! `cargo xtask soak load`: a scheduler under a thousand workers and hundreds of clients, ours and stock's.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::binaries::Binaries;
use crate::env::Python;
use crate::metadata::Metadata;
use crate::stage::Tally;
use crate::workspace;

/// What a scheduler of either kind is told.
const OPTIONS: &str = "--host 127.0.0.1 --port {port} --no-dashboard";

/// Records the graphs of a stock client, puts the schedulers under load, and writes `benches/results/load.md`.
///
/// `rest`: passed on, such as `--load crowd`; then no page is written.
pub(crate) fn soak(tally: &mut Tally, python: &Python, rest: &[String]) -> Result<()> {
    let binaries = Binaries::build()?;
    let scheduler = binaries
        .scheduler
        .context("the workspace has a scheduler")?;
    let status = workspace::cargo(&["build", "--release", "--locked", "--bin", "load"]).status()?;
    ensure!(status.success(), "cargo build of the load failed: {status}");
    let target = Metadata::read()?.target_directory;
    let recordings = target.join("load-recordings");
    if !recordings.join("submit").exists() {
        fs::create_dir_all(&recordings)?;
        let mut record = python.command(&["benches/load/record.py"]);
        tally.run(record.arg(&recordings))?;
    }
    let mut load = workspace::command(target.join("release/load"));
    load.arg("--recordings").arg(&recordings);
    let stock = python.program("dask");
    load.arg(format!("--side=ours={} {OPTIONS}", scheduler.display()));
    load.arg(format!(
        "--side=stock={} scheduler {OPTIONS}",
        stock.display()
    ));
    if rest.is_empty() {
        let page = workspace::root().join("benches/results/load.md");
        load.arg("--page").arg(page);
    }
    // Helpers of our scheduler find the interpreter that has dask.
    load.env("PATH", python.path()).args(rest);
    tally.run(&mut load)
}
