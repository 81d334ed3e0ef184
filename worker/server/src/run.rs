//! From arguments to running workers, and to their end.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use oxidask_protocol::Value;
use oxidask_settings::{Config, Sources, process::OwnFile};
use oxidask_worker_core::Core;

use crate::{
    address::{bind, dashboard},
    args::Args,
    driver::{Driver, End, Parts},
    executor::{Environment, Maker},
    folder::Folder,
    http,
    input::{CurrentInputs, Input, Inputs},
    limits,
    listener::{self, Context},
    neighbours::Neighbours,
    scheduler,
    settings::Settings,
    shared::Proof,
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
    let pid_file = args.common.pid_file.as_ref().map(|path| {
        OwnFile::pid(path).with_context(|| format!("failed to write --pid-file {}", path.display()))
    });
    let _pid_file = pid_file.transpose()?;
    let config = Config::load(&Sources::of_process())?;
    let count = nworkers(args.nworkers.as_deref())?;
    if count > 1 && args.contact_address.is_some() {
        bail!("--contact-address names one worker, --nworkers asks for {count}");
    }
    let maker = Maker::new(args.common.python.clone());
    let neighbours = Neighbours::default();
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..count {
        let settings = Arc::new(Settings::new(&args, &config, number, count)?);
        let (maker, neighbours) = (maker.clone(), neighbours.clone());
        workers.spawn(worker(args.clone(), settings, maker, neighbours));
    }
    while let Some(ended) = workers.join_next().await {
        ended.context("a worker panicked")??;
    }
    Ok(())
}

/// Workers in this process: a number, a negative number that counts back from the CPUs, or `auto`.
fn nworkers(text: Option<&str>) -> Result<usize> {
    let cpus = limits::cpus();
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

/// Why a worker stops that has lived long enough.
const LIFETIME_OVER: &str = "its lifetime is over";

/// How long a restarted worker waits for the scheduler to forget the one before it.
const RESTART_TIMEOUT: Duration = Duration::from_secs(30);

/// One worker, from its start to its end.
async fn worker(
    args: Args,
    settings: Arc<Settings>,
    maker: Maker,
    neighbours: Neighbours,
) -> Result<()> {
    let mut environment = executor_environment();
    let (listener, address) = bind(&args, &settings.scheduler).await?;
    let address: Arc<str> = Arc::from(address.as_str());
    let peers = Peers::new(
        settings.tls.clone(),
        settings.connect_timeout,
        settings.stall_timeout,
        neighbours.clone(),
    );
    let current = CurrentInputs::new(Inputs::channel().0);
    let _membership = neighbours.join(address.clone(), current.clone());
    let versions = Arc::new(OnceLock::new());
    let context = Context {
        inputs: current.clone(),
        peers: peers.clone(),
        versions: Arc::clone(&versions),
        address: address.clone(),
        proof: Proof::new().map(Arc::new).ok(),
    };
    tokio::spawn(listener::listen(listener, settings.tls.clone(), context));
    tokio::spawn(signals(current.clone(), settings.drains));
    let services = match dashboard(&args).await? {
        None => Value::Map(Vec::new()),
        Some(listener) => {
            let port = listener.local_addr()?.port();
            tokio::spawn(http::serve(listener, current.clone()));
            Value::map([("dashboard", Value::Int(port.into()))])
        }
    };
    let mut restarted = false;
    loop {
        // Executors start while the worker registers.
        let own = if args.lazy_executor {
            without_python()
        } else {
            Box::pin(maker.versions(&environment)).await?
        };
        let _ = versions.set(own.clone());
        let folder = Folder::create(settings.local_directory.clone())?;
        let life = Life {
            settings: &settings,
            address: &address,
            peers: &peers,
            maker: &maker,
            versions: own,
            neighbours: &neighbours,
            services: &services,
            restarted,
            lazy: args.lazy_executor,
        };
        let end = Box::pin(life.live(&mut environment, &current)).await?;
        drop(folder);
        match end {
            End::Stop(reason) if reason == LIFETIME_OVER && args.lifetime_restart => {}
            End::Stop(reason) => {
                tracing::info!(reason, "the worker stops");
                return Ok(());
            }
            End::Failed(why) => bail!(why),
            End::Restart => tracing::info!("the worker restarts"),
        }
        restarted = true;
    }
}

/// What a worker says about its packages before it has started an interpreter: nothing that could differ.
fn without_python() -> Value {
    Value::map([
        ("host", Value::Map(Vec::new())),
        ("packages", Value::Map(Vec::new())),
    ])
}

/// What stays the same between restarts of a worker.
struct Life<'a> {
    settings: &'a Arc<Settings>,
    address: &'a Arc<str>,
    peers: &'a Peers,
    maker: &'a Maker,
    /// Versions of the executor's packages as clients compare them.
    versions: Value,
    neighbours: &'a Neighbours,
    services: &'a Value,
    restarted: bool,
    /// No executor before something needs one.
    lazy: bool,
}

impl Life<'_> {
    /// Register and work until the end.
    async fn live(&self, environment: &mut Environment, current: &CurrentInputs) -> Result<End> {
        let (inputs, receiver) = Inputs::channel();
        current.set(inputs.clone());
        let (settings, scheduler) = (self.settings, &self.settings.scheduler);
        let registered = self.register().await?;
        tracing::info!(%scheduler, address = %self.address, nthreads = settings.nthreads, "registered");
        let stream = scheduler::stream(registered.comm, inputs.clone());
        stream.send(scheduler::running());
        let nanny_plugins = if settings.nanny {
            self.register_nanny().await
        } else {
            Vec::new()
        };
        tokio::spawn(scheduler::heartbeats(
            self.peers.clone(),
            scheduler.clone(),
            self.address.to_string(),
            registered.heartbeat_interval,
            inputs.clone(),
        ));
        if let Some(lifetime) = settings.lifetime {
            let inputs = inputs.clone();
            tokio::spawn(async move {
                tokio::time::sleep(lifetime).await;
                let stop = Input::Stop {
                    graceful: true,
                    reason: LIFETIME_OVER.to_owned(),
                };
                inputs.send(stop).await;
            });
        }
        let mut core = Core::new(core_config(settings));
        core.set_address(self.address.clone());
        let mut driver = Driver::new(Parts {
            core,
            settings: settings.clone(),
            address: self.address.clone(),
            inputs,
            peers: self.peers.clone(),
            maker: self.maker.clone(),
            neighbours: self.neighbours.clone(),
            environment: environment.clone(),
            scheduler: stream,
            plugins: registered.plugins,
            nanny_plugins,
            services: self.services.clone(),
        });
        if self.lazy {
            driver.put_off_executors();
        } else {
            driver.start_executors();
        }
        let (end, changed) = driver.run(receiver).await;
        *environment = changed;
        // What was said last is on its way; the scheduler also understands a closed connection.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(end)
    }

    async fn register(&self) -> Result<scheduler::Registered> {
        let settings = self.settings;
        let message =
            || scheduler::registration(settings, self.address, &self.versions, self.services);
        let start = tokio::time::Instant::now();
        let deadline = settings.death_timeout.map(|timeout| start + timeout);
        loop {
            match scheduler::register(self.peers, &settings.scheduler, message, deadline).await {
                Err(error) if self.restarted && start.elapsed() < RESTART_TIMEOUT => {
                    // The scheduler may not have noticed yet that the worker of this address is gone.
                    tracing::debug!(error = %format!("{error:#}"), "registration is tried again");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                registered => return registered,
            }
        }
    }

    /// Gives the nanny plugins; none if the scheduler knows no nannies.
    async fn register_nanny(&self) -> Vec<(String, bytes::Bytes)> {
        match scheduler::register_nanny(self.peers, &self.settings.scheduler, self.address).await {
            Ok((mut comm, plugins)) => {
                let _ = comm
                    .writer
                    .send(&Value::map([("status", Value::Str("ok".into()))]))
                    .await;
                plugins
            }
            Err(error) => {
                tracing::debug!(error = %format!("{error:#}"), "no registration as a nanny");
                Vec::new()
            }
        }
    }
}

/// Variables that must be set before an interpreter starts. Source: distributed `nanny.pre-spawn-environ`.
fn executor_environment() -> Environment {
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
        isolated: settings.executors > 1 && settings.executors == settings.nthreads,
        ..oxidask_worker_core::Config::default()
    }
}

/// SIGTERM and SIGINT stop the worker; the first one drains it if it `drains`, the second one stops it at once.
async fn signals(inputs: CurrentInputs, drains: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be handled");
        return;
    };
    for graceful in [drains, false] {
        let name = tokio::select! { _ = term.recv() => "SIGTERM", _ = int.recv() => "SIGINT" };
        let stop = Input::Stop {
            graceful,
            reason: format!("{name} received"),
        };
        inputs.get().send(stop).await;
    }
    // The driver may be gone already.
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::process::exit(1);
}
