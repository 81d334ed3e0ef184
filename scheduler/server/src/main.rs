//! `dask-scheduler`: the scheduler of a Dask cluster.

use std::process::ExitCode;

use clap::Parser;
use oxidask_scheduler_server::args::Args;
use oxidask_scheduler_server::config::settings;
use oxidask_scheduler_server::run::run;
use oxidask_settings::{Config, Sources, process, telemetry};
use tracing::warn;

/// Cheaper than the system's for the many small pieces of tasks and messages, above all where that is musl's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let copied = process::copy_if_asked(std::env::args_os().skip(1));
    let ended = match copied {
        Some(copied) => copied.map_err(anyhow::Error::msg),
        None => start(&Args::parse()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(&Sources::of_process())?;
    let (settings, notes) = settings(args, &config)?;
    let log = telemetry::start(&config, settings.log_length);
    for note in notes {
        warn!("{note}");
    }
    process::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(settings, log, |_| {}))
}
