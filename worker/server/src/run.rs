//! From arguments to running workers, and to their end.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use oxidask_protocol::Value;
use oxidask_python::Interpreter;
use oxidask_settings::{Config, Sources, process::OwnFile};
use oxidask_worker_core::Core;
use tokio::sync::mpsc::unbounded_channel;

use crate::{
    address::{bind, dashboard},
    args::Args,
    driver::{Driver, Parts},
    executor, http,
    input::{Input, Inputs},
    listener::{self, Context},
    metrics::cpu_count,
    scheduler,
    settings::Settings,
    transfer::Peers,
};

/// Run workers until they are told to stop.
///
/// # Errors
/// If one cannot start, or loses what it cannot work without.
pub fn run(args: Args) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(workers(args))
}

async fn workers(args: Args) -> Result<()> {
    for flag in args.without_meaning() {
        tracing::info!("{flag}");
    }
    if args.worker_class.is_some() {
        bail!("--worker-class: this worker cannot host a class; use `dask worker` for it");
    }
    let pid_file = args.pid_file.as_ref().map(|path| {
        OwnFile::pid(path).with_context(|| format!("failed to write --pid-file {}", path.display()))
    });
    let _pid_file = pid_file.transpose()?;
    let config = Config::load(&Sources::of_process())?;
    let count = nworkers(args.nworkers.as_deref())?;
    if count > 1 && args.contact_address.is_some() {
        bail!("--contact-address names one worker, --nworkers asks for {count}");
    }
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..count {
        let settings = Arc::new(Settings::new(&args, &config, number, count)?);
        workers.spawn(worker(args.clone(), settings));
    }
    while let Some(ended) = workers.join_next().await {
        ended.context("a worker panicked")??;
    }
    Ok(())
}

/// Workers in this process: a number, a negative number that counts back from the CPUs, or `auto`.
fn nworkers(text: Option<&str>) -> Result<usize> {
    let cpus = cpu_count();
    let number = match text {
        None => 1,
        // As distributed: about as many processes as threads in each.
        Some("auto") => (1..=cpus)
            .find(|n| n * n >= cpus && cpus.is_multiple_of(*n))
            .unwrap_or(cpus) as i64,
        Some(text) => text
            .parse()
            .with_context(|| format!("--nworkers: {text:?} is no number"))?,
    };
    let number = if number < 0 {
        cpus as i64 + 1 + number
    } else {
        number
    };
    match usize::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => bail!(
            "--nworkers: {} is no number of workers on {cpus} CPUs",
            text.unwrap_or_default()
        ),
    }
}

/// One worker, from its start to its end.
async fn worker(args: Args, settings: Arc<Settings>) -> Result<()> {
    std::fs::create_dir_all(&settings.local_directory)
        .with_context(|| format!("failed to create {}", settings.local_directory.display()))?;
    let worked = work(&args, &settings).await;
    let _ = std::fs::remove_dir_all(&settings.local_directory);
    let reason = worked?;
    tracing::info!(reason, "the worker stops");
    Ok(())
}

/// Gives the reason why it stopped.
async fn work(args: &Args, settings: &Arc<Settings>) -> Result<String> {
    let interpreter = Interpreter::find(args.python.as_deref())?;
    let environment = executor_environment();
    let (newborn, bound) = tokio::join!(
        executor::start(&interpreter, &environment),
        bind(args, &settings.scheduler)
    );
    let (newborn, (listener, address)) = (newborn?, bound?);
    let address: Arc<str> = Arc::from(address.as_str());
    let peers = Peers::new(
        settings.tls.clone(),
        settings.connect_timeout,
        settings.stall_timeout,
    );
    let (sender, receiver) = unbounded_channel();
    let inputs = Inputs(sender);
    let versions = Arc::new(OnceLock::from(newborn.versions.clone()));
    let context = Context {
        inputs: inputs.clone(),
        peers: peers.clone(),
        versions,
        address: address.clone(),
    };
    tokio::spawn(listener::listen(listener, settings.tls.clone(), context));
    tokio::spawn(signals(inputs.clone()));

    let services = match dashboard(args).await? {
        None => Value::Map(Vec::new()),
        Some(listener) => {
            let port = listener.local_addr()?.port();
            tokio::spawn(http::serve(listener, inputs.clone()));
            Value::map([("dashboard", Value::Int(port.into()))])
        }
    };
    let message = || scheduler::registration(settings, &address, &newborn.versions, &services);
    let deadline = settings
        .death_timeout
        .map(|timeout| tokio::time::Instant::now() + timeout);
    let registered = scheduler::register(&peers, &settings.scheduler, message, deadline).await?;
    tracing::info!(scheduler = %settings.scheduler, %address, nthreads = settings.nthreads, "registered");
    let stream = scheduler::stream(registered.comm, inputs.clone());
    let _ = stream.send(scheduler::running());
    tokio::spawn(scheduler::heartbeats(
        peers.clone(),
        settings.scheduler.clone(),
        address.to_string(),
        registered.heartbeat_interval,
        inputs.clone(),
    ));
    if let Some(lifetime) = settings.lifetime {
        let inputs = inputs.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lifetime).await;
            inputs.send(Input::Stop {
                graceful: true,
                reason: "its lifetime is over".to_owned(),
            });
        });
    }

    let mut core = Core::new(core_config(settings));
    core.set_address(address.clone());
    let mut driver = Driver::new(Parts {
        core,
        settings: settings.clone(),
        address,
        inputs,
        peers,
        interpreter,
        environment,
        scheduler: stream,
        plugins: registered.plugins,
        services: services.clone(),
    });
    driver.put_to_work(newborn);
    let reason = driver.run(receiver).await;
    // What was said last is on its way; the scheduler also understands a closed connection.
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(reason)
}

/// Variables that must be set before an interpreter starts. Source: distributed `nanny.pre-spawn-environ`.
fn executor_environment() -> Vec<(String, String)> {
    let defaults = [
        // Equal in all workers, so that hash(str) agrees between them.
        ("PYTHONHASHSEED", "6640"),
        ("MALLOC_TRIM_THRESHOLD_", "65536"),
        ("OMP_NUM_THREADS", "1"),
        ("MKL_NUM_THREADS", "1"),
        ("OPENBLAS_NUM_THREADS", "1"),
    ];
    let unset = defaults
        .into_iter()
        .filter(|(name, _)| std::env::var_os(name).is_none());
    unset
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn core_config(settings: &Settings) -> oxidask_worker_core::Config {
    let in_flight = settings
        .memory_limit
        .map(|limit| (limit as f64 * settings.incoming_fraction) as u64);
    oxidask_worker_core::Config {
        nthreads: settings.nthreads,
        resources: settings.resources.clone(),
        incoming_connections: settings.incoming_connections,
        incoming_bytes: in_flight.unwrap_or(u64::MAX),
        message_bytes: settings.message_bytes,
        allowed_failures: settings.allowed_failures,
        ..oxidask_worker_core::Config::default()
    }
}

/// SIGTERM and SIGINT drain; the second one stops at once.
async fn signals(inputs: Inputs) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be handled");
        return;
    };
    let mut graceful = true;
    loop {
        let name = tokio::select! { _ = term.recv() => "SIGTERM", _ = int.recv() => "SIGINT" };
        inputs.send(Input::Stop {
            graceful,
            reason: format!("{name} received"),
        });
        if !graceful {
            // The driver may be gone already.
            tokio::time::sleep(Duration::from_secs(1)).await;
            std::process::exit(1);
        }
        graceful = false;
    }
}
