//! `dask-scheduler`: the scheduler of a Dask cluster.

use clap::Parser;
use oxidask_scheduler_server::args::Args;
use oxidask_scheduler_server::config::settings;
use oxidask_scheduler_server::run::run;
use oxidask_settings::{Config, Sources, telemetry};
use tracing::warn;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = Config::load(&Sources::of_process())?;
    let (settings, notes) = settings(&args, &config)?;
    let log = telemetry::start(&config, settings.log_length);
    for note in notes {
        warn!("{note}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(settings, log, |_| {}))
}
