//! The `oxidask-operator` program.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser as _;
use oxidask_operator::args::Args;
use oxidask_operator::events::Events;
use oxidask_operator::leader::{Leader, lead};
use oxidask_operator::metrics::Metrics;
use oxidask_operator::run::{Operator, Parts};
use oxidask_operator::scheduler::Live;
use oxidask_operator::{client, server};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

// musl's own allocator takes one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One provider for the process, or the first handshake would fail.
    let installed = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    telemetry(&args);
    if installed.is_err() {
        warn!("a crypto provider was installed before ours");
    }
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")
        .and_then(|runtime| runtime.block_on(run(args)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn telemetry(args: &Args) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OXIDASK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(args.log_filter()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format.as_str() {
        "json" => builder.json().init(),
        "plain" => builder
            .with_target(false)
            .with_ansi(false)
            .without_time()
            .init(),
        _ => builder.with_ansi(false).init(),
    }
}

async fn run(args: Args) -> Result<()> {
    let ignored = args.without_effect();
    if !ignored.is_empty() {
        warn!(flags = ?ignored, "flags of the stock operator that have no effect here");
    }
    let address = args.http_address().map_err(|fault| anyhow!(fault))?;
    let metrics = Metrics::new();
    let client = client::connect(&metrics).await?;
    let identity = std::env::var("HOSTNAME").unwrap_or_else(|_| "oxidask-operator".to_owned());
    let operator = Operator::new(Parts {
        client: client.clone(),
        scheduler: Arc::new(Live::new(Some(client.clone()))),
        metrics: metrics.clone(),
        events: Events::new(client.clone(), Some(identity.clone()), args.event_level()),
        settings: args.settings(),
        namespaces: args.namespaces(),
    });
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone()));
    let http = tokio::spawn(server::serve(
        address,
        operator.clone(),
        metrics.clone(),
        shutdown.clone(),
    ));

    let outcome = if args.leader_election {
        let namespace = args
            .lease_namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned());
        let identity = format!("{identity}_{}", std::process::id());
        let leader = Leader::new(client, &namespace, identity);
        lead(leader, &operator, &metrics, &shutdown)
            .await
            .map_err(anyhow::Error::from)
    } else {
        metrics.leading(true);
        operator.run(shutdown.clone()).await;
        Ok(())
    };
    shutdown.cancel();
    http.await.context("the HTTP server panicked")??;
    outcome
}

async fn stop_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("asked to stop");
    shutdown.cancel();
}
