//! `dask-scheduler`: the scheduler of a Dask cluster.

use oxidask_scheduler_server::run::run;
use oxidask_scheduler_server::settings::Settings;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    let mut settings = Settings::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--port", Some(port)) => settings.listen[0].port = port.parse()?,
            ("--host", Some(host)) => settings.listen[0].host = host,
            ("--python", Some(python)) => settings.python = Some(python.into()),
            _ => {}
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(settings, |_| {}))
}
