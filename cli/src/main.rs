//! `oxidask`: local clusters, their status, and scaling experiments. See `oxidask --help`.

use std::process::ExitCode;

use clap::Parser;
use oxidask_cli::args::Args;

fn main() -> ExitCode {
    match oxidask_cli::run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oxidask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
