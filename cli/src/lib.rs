//! The command `oxidask`.
//!
//! [`local`] starts a cluster of processes on this machine; [`experiment`] varies workers and threads over a
//! workload and says what bounds it.

pub mod args;
mod connect;
pub mod experiment;
pub mod local;
mod status;
mod up;

use anyhow::{Context as _, Result};

/// Does what the command line says.
///
/// # Errors
/// If it cannot be done; the text says why.
pub fn run(args: args::Args) -> Result<()> {
    use args::Command;
    if let Command::Control(part) = &args.command {
        // Timed against clusters, so nothing that it does not need is started.
        return experiment::control::part(part);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        match args.command {
            Command::Up(up) => up::run(&up).await,
            Command::Status { address } => status::run(&address).await,
            Command::Experiment(experiment) => experiment::run(experiment.workload).await,
            Command::Control(_) => Ok(()),
        }
    })
}
