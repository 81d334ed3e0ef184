//! `dask-worker`: see `dask-worker --help`.

use clap::Parser;
use oxidask_worker_server::{args::Args, run};

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    match run::run(args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
