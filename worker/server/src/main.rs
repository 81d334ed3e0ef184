//! `dask-worker`: see `dask-worker --help`.

use clap::Parser;
use oxidask_settings::process::copy_if_asked;
use oxidask_worker_server::{args::Args, run};

// musl's own allocator takes one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    if let Some(copied) = copy_if_asked(std::env::args_os().skip(1)) {
        return match copied {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                std::process::ExitCode::FAILURE
            }
        };
    }
    let args = Args::parse();
    match run::run(args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
