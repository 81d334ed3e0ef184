//! `cargo xtask bench NAME`: one row of the figures, ours against stock in the same run.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::binaries::Binaries;
use crate::env::Python;
use crate::metadata::Metadata;
use crate::{kubernetes, process, workspace};

/// The row that needs a Kubernetes cluster.
const OPERATOR: &str = "operator";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which row; without a name they are listed
    name: Option<String>,
    /// Compare stock with stock, to see what the method itself makes of equal sides
    #[arg(long)]
    stock: bool,
    /// Passed on to the program, as `--rounds 7`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    process::install_signal_handling()?;
    let python = Python::ensure()?;
    if args.name.as_deref() == Some(OPERATOR) {
        return kubernetes::bench(&python, &args.rest);
    }
    let mut command = python.command(&["benches/run.py"]);
    if let Some(name) = &args.name {
        command.arg(name);
        if !args.stock {
            let binaries = Binaries::build()?;
            if let Some(scheduler) = &binaries.scheduler {
                command.arg("--scheduler").arg(scheduler);
            }
            if let Some(worker) = &binaries.worker {
                command.arg("--worker").arg(worker);
            }
            if let Some(oxidask) = &binaries.command {
                command.env("OXIDASK_CLI", oxidask);
            }
            if matches!(name.as_str(), "kernels" | "all") {
                command.env("OXIDASK_BENCH_KERNELS", kernels()?);
            }
        }
        command.args(&args.rest);
    }
    let status = command.status()?;
    ensure!(status.success(), "the benchmark ended with {status}");
    if args.name.is_none() {
        println!(
            "{OPERATOR:<16} The operator on a Kubernetes cluster with fake nodes or real ones: many, thousand, restart, growing, kube_cluster"
        );
    }
    Ok(())
}

/// Builds the program that times kernels.
fn kernels() -> Result<PathBuf> {
    const NAME: &str = "oxidask-bench-kernels";
    let status = workspace::cargo(&["build", "--release", "--locked", "--bin", NAME]).status()?;
    ensure!(
        status.success(),
        "cargo build --bin {NAME} failed: {status}"
    );
    let target = Metadata::read()?.target_directory;
    Ok(target.join("release").join(NAME))
}
