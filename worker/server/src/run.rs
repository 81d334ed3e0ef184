//! From arguments to a running worker, and to its end.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use oxidask_protocol::{
    Value,
    address::{Address, Scheme},
    message::worker::{RegisterWorker, StatusChange},
    wire::{Encode, Omit, Pairs, Seconds},
};
use oxidask_python::Interpreter;
use oxidask_worker_core::{Config, Core};
use tokio::net::TcpListener;

use crate::{
    args::Args,
    clock::unix,
    driver::{Driver, Parts},
    executor,
    input::{Input, Inputs},
    listener::{self, Context},
    metrics::{available_memory, cpu_count},
    scheduler,
    settings::{Configuration, Settings, parse_bytes},
    transfer::Peers,
};

/// Run a worker until it is told to stop.
///
/// # Errors
/// If it cannot start, or loses what it cannot work without.
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
    runtime.block_on(work(args))
}

async fn work(args: Args) -> Result<()> {
    for flag in args.without_meaning() {
        tracing::info!("{flag}");
    }
    if args.worker_class.is_some() {
        bail!("--worker-class: this worker cannot host a class; use `dask worker` for it");
    }
    if let Some(path) = &args.pid_file {
        std::fs::write(path, std::process::id().to_string())
            .with_context(|| format!("failed to write --pid-file {}", path.display()))?;
    }
    let interpreter = Interpreter::find(args.python.as_deref())?;
    let environment = executor_environment();
    let newborn = executor::start(&interpreter, &environment).await?;
    let settings = Arc::new(settings(&args, &newborn.config)?);
    std::fs::create_dir_all(&settings.local_directory)
        .with_context(|| format!("failed to create {}", settings.local_directory.display()))?;

    let (listener, address) = bind(&args, &settings.scheduler).await?;
    let address: Arc<str> = Arc::from(address.as_str());
    let peers = Peers::new(None, settings.connect_timeout, settings.stall_timeout);
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let inputs = Inputs(sender);
    let versions = Arc::new(OnceLock::new());
    let _ = versions.set(newborn.versions.clone());
    let context = Context {
        inputs: inputs.clone(),
        peers: peers.clone(),
        versions,
        address: address.clone(),
    };
    tokio::spawn(listener::listen(listener, None, context));
    tokio::spawn(signals(inputs.clone()));

    let message = || registration(&settings, &address, &newborn.versions);
    let deadline = settings
        .death_timeout
        .map(|timeout| tokio::time::Instant::now() + timeout);
    let registered = scheduler::register(&peers, &settings.scheduler, message, deadline).await?;
    tracing::info!(scheduler = %settings.scheduler, %address, nthreads = settings.nthreads, "registered");
    let stream = scheduler::stream(registered.comm, inputs.clone());
    let _ = stream.send(running());
    tokio::spawn(scheduler::heartbeats(
        peers.clone(),
        settings.scheduler.clone(),
        address.to_string(),
        registered.heartbeat_interval,
        inputs.clone(),
    ));
    if let Some(lifetime) = lifetime(&args)? {
        let inputs = inputs.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lifetime).await;
            inputs.send(Input::Stop {
                graceful: true,
                reason: "its lifetime is over".to_owned(),
            });
        });
    }

    let mut core = Core::new(core_config(&settings));
    core.set_address(address.clone());
    let mut driver = Driver::new(Parts {
        core,
        settings: settings.clone(),
        address,
        inputs,
        peers,
        interpreter,
        environment,
        scheduler: stream.clone(),
        plugins: registered.plugins,
        services: Value::Map(Vec::new()),
    });
    driver.put_to_work(newborn);
    let reason = driver.run(receiver).await;
    tracing::info!(reason, "the worker stops");
    drop(stream);
    // What was said last is on its way; the scheduler also understands a closed connection.
    tokio::time::sleep(Duration::from_millis(20)).await;
    if let Some(path) = &args.pid_file {
        let _ = std::fs::remove_file(path);
    }
    let _ = std::fs::remove_dir_all(&settings.local_directory);
    Ok(())
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

fn settings(args: &Args, config: &Value) -> Result<Settings> {
    let config = Configuration(config);
    let scheduler = scheduler_address(args)?;
    let nworkers = 1;
    let nthreads = args
        .nthreads
        .unwrap_or_else(|| (cpu_count() / nworkers).max(1));
    let seconds = |text: &Option<String>, flag: &str| -> Result<Option<Duration>> {
        let Some(text) = text else { return Ok(None) };
        let value =
            Seconds::parse(text).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        value
            .map(Some)
            .with_context(|| format!("{flag}: {text:?} is no duration"))
    };
    let server_id = format!("Worker-{}", uuid()?);
    let base = args.local_directory.clone().unwrap_or_else(|| {
        let configured = config.value("temporary-directory").and_then(Value::as_str);
        configured
            .map_or_else(std::env::temp_dir, Into::into)
            .join("dask-scratch-space")
    });
    Ok(Settings {
        scheduler,
        name: args.name.clone(),
        local_directory: base.join(format!("worker-{}", &server_id[7..15])),
        server_id,
        nthreads,
        resources: resources(args.resources.as_deref())?,
        memory_limit: memory_limit(&args.memory_limit, nthreads)?,
        thresholds: config.thresholds(),
        outgoing_connections: config.uint("worker.connections.outgoing", 50) as usize,
        incoming_connections: config.uint("worker.connections.incoming", 10) as usize,
        message_bytes: config.bytes("worker.transfer.message-bytes-limit", 50_000_000),
        incoming_fraction: config
            .fraction("worker.memory.transfer", 0.1)
            .unwrap_or(1.0),
        allowed_failures: config.uint("scheduler.allowed-failures", 3) as u32,
        connect_timeout: config.duration("comm.timeouts.connect", Duration::from_secs(30)),
        stall_timeout: config.duration("comm.timeouts.tcp", Duration::from_secs(30)),
        death_timeout: seconds(&args.death_timeout, "--death-timeout")?,
    })
}

fn core_config(settings: &Settings) -> Config {
    let in_flight = settings
        .memory_limit
        .map(|limit| (limit as f64 * settings.incoming_fraction) as u64);
    Config {
        nthreads: settings.nthreads,
        resources: settings.resources.clone(),
        incoming_connections: settings.incoming_connections,
        incoming_bytes: in_flight.unwrap_or(u64::MAX),
        message_bytes: settings.message_bytes,
        allowed_failures: settings.allowed_failures,
        ..Config::default()
    }
}

fn scheduler_address(args: &Args) -> Result<String> {
    let text = match (&args.scheduler, &args.scheduler_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("failed to read --scheduler-file {}", path.display()))?;
            address_in_json(&text).with_context(|| {
                format!("--scheduler-file {} names no \"address\"", path.display())
            })?
        }
        (None, None) => {
            bail!("no scheduler: give its address, --scheduler-file or DASK_SCHEDULER_ADDRESS")
        }
    };
    let scheme = if args.protocol.as_deref() == Some("tls") {
        Scheme::Tls
    } else {
        Scheme::Tcp
    };
    Ok(Address::parse(&text, scheme, Some(8786))?.to_string())
}

/// The text of `"address": "…"` in a scheduler file.
fn address_in_json(text: &str) -> Option<String> {
    let rest = text.split_once("\"address\"")?.1;
    let rest = rest.split_once('"')?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

fn resources(text: Option<&str>) -> Result<Vec<(Arc<str>, f64)>> {
    let pairs = text
        .unwrap_or_default()
        .split([' ', ','])
        .filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let parsed = pair
                .split_once('=')
                .and_then(|(name, amount)| Some((name, amount.parse().ok()?)));
            let (name, amount) =
                parsed.with_context(|| format!("--resources: {pair:?} is not NAME=NUMBER"))?;
            Ok((Arc::from(name), amount))
        })
        .collect()
}

/// As distributed's `parse_memory_limit`: auto is this worker's share of the machine by its threads.
fn memory_limit(text: &str, nthreads: usize) -> Result<Option<u64>> {
    let available = available_memory();
    let limit = match text {
        "auto" => {
            let share = nthreads as f64 / cpu_count() as f64;
            (available as f64 * share.min(1.0)) as u64
        }
        text => match text.parse::<f64>() {
            Ok(number) if number == 0.0 => return Ok(None),
            Ok(number) if number <= 1.0 && text.contains('.') => (number * available as f64) as u64,
            Ok(number) => number as u64,
            Err(_) => parse_bytes(text)
                .with_context(|| format!("--memory-limit: {text:?} is no amount of memory"))?,
        },
    };
    Ok(Some(limit.min(available)))
}

fn lifetime(args: &Args) -> Result<Option<Duration>> {
    let Some(text) = &args.lifetime else {
        return Ok(None);
    };
    let seconds =
        Seconds::parse(text).with_context(|| format!("--lifetime: {text:?} is no duration"))?;
    let stagger = match &args.lifetime_stagger {
        Some(text) => Seconds::parse(text)
            .with_context(|| format!("--lifetime-stagger: {text:?} is no duration"))?,
        None => 0.0,
    };
    // Anywhere within plus or minus the stagger; the process id is as good a die as any.
    let position = f64::from(std::process::id() % 1000) / 500.0 - 1.0;
    Ok(Duration::try_from_secs_f64(seconds + stagger * position).ok())
}

/// A listening socket, and the address to tell others.
async fn bind(args: &Args, scheduler: &str) -> Result<(TcpListener, String)> {
    let scheme = if scheduler.starts_with("tls") {
        Scheme::Tls
    } else {
        Scheme::Tcp
    };
    let mut listen = match &args.listen_address {
        Some(text) => Address::parse(text, scheme, Some(0))?,
        None => Address {
            scheme,
            host: args.host.clone().unwrap_or_default(),
            port: 0,
        },
    };
    if let Some(interface) = &args.interface {
        listen.host = interface_address(interface)?;
    }
    let ports = ports(args.worker_port.as_deref())?;
    if listen.host.is_empty() {
        // The address by which the scheduler is reached, as stock chooses it.
        listen.host = own_address(scheduler).await;
    }
    let mut error = None;
    for port in ports {
        let port = if listen.port != 0 { listen.port } else { port };
        match TcpListener::bind((listen.host.as_str(), port)).await {
            Ok(listener) => {
                let port = listener.local_addr()?.port();
                let contact = match &args.contact_address {
                    Some(text) => {
                        let contact = Address::parse(text, scheme, Some(port))?;
                        Address {
                            port: if contact.port == 0 {
                                port
                            } else {
                                contact.port
                            },
                            ..contact
                        }
                    }
                    None => {
                        let host = listener.local_addr()?.ip();
                        let host = if host.is_unspecified() {
                            own_address(scheduler).await
                        } else {
                            host.to_string()
                        };
                        Address { scheme, host, port }
                    }
                };
                return Ok((listener, contact.to_string()));
            }
            Err(failed) => error = Some(failed),
        }
    }
    let error = error.map_or_else(|| "no port given".to_owned(), |error| error.to_string());
    bail!("failed to listen on {listen}: {error}")
}

fn ports(text: Option<&str>) -> Result<std::ops::RangeInclusive<u16>> {
    let Some(text) = text else { return Ok(0..=0) };
    let parse = |text: &str| {
        text.parse::<u16>()
            .with_context(|| format!("--worker-port: {text:?} is no port"))
    };
    match text.split_once(':') {
        Some((first, last)) => Ok(parse(first)?..=parse(last)?),
        None => parse(text).map(|port| port..=port),
    }
}

/// The local address of a route to the scheduler.
async fn own_address(scheduler: &str) -> String {
    let route = async {
        let address = Address::parse(scheduler, Scheme::Tcp, None).ok()?;
        let peer: SocketAddr = tokio::net::lookup_host((address.host.as_str(), address.port))
            .await
            .ok()?
            .next()?;
        let any: IpAddr = if peer.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
        socket.connect(peer).await.ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    route.await.unwrap_or_else(|| "127.0.0.1".to_owned())
}

/// The IPv4 address of an interface, found by what the kernel lists.
fn interface_address(name: &str) -> Result<String> {
    if name == "lo" {
        return Ok("127.0.0.1".to_owned());
    }
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let network = routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let parse = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::swap_bytes);
        let (destination, mask) = (parse(fields.get(1)?)?, parse(fields.get(7)?)?);
        (fields[0] == name && mask != 0).then_some((destination, mask))
    });
    let (destination, mask) =
        network.with_context(|| format!("--interface: {name:?} has no route"))?;
    let mut last = String::new();
    for line in table.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.to_owned();
        } else if line.contains("host LOCAL")
            && let Ok(address) = last.parse::<std::net::Ipv4Addr>()
            && u32::from(address) & mask == destination
        {
            return Ok(last);
        }
    }
    bail!("--interface: {name:?} has no IPv4 address")
}

fn registration(settings: &Settings, address: &str, versions: &Value) -> RegisterWorker {
    let zero = || Value::Int(0);
    let metrics = Value::map([
        (
            "bandwidth",
            Value::map([
                ("total", Value::Float(1e8)),
                ("workers", Value::Map(Vec::new())),
                ("types", Value::Map(Vec::new())),
            ]),
        ),
        ("digests_total_since_heartbeat", Value::Map(Vec::new())),
        ("memory", zero()),
        ("managed_bytes", zero()),
        (
            "spilled_bytes",
            Value::map([("memory", zero()), ("disk", zero())]),
        ),
        ("cpu", Value::Float(0.0)),
        (
            "host_net_io",
            Value::map([
                ("read_bps", Value::Float(0.0)),
                ("write_bps", Value::Float(0.0)),
            ]),
        ),
        ("task_counts", Value::Map(Vec::new())),
    ]);
    RegisterWorker {
        reply: false,
        address: address.to_owned(),
        status: "init".to_owned(),
        nthreads: settings.nthreads as u64,
        name: Value::Str(settings.name.clone().unwrap_or_else(|| address.to_owned())),
        now: unix(),
        resources: Pairs(
            settings
                .resources
                .iter()
                .map(|(name, amount)| (name.to_string(), *amount))
                .collect(),
        ),
        memory_limit: settings.memory_limit,
        local_directory: Omit(Some(
            settings.local_directory.to_string_lossy().into_owned(),
        )),
        services: Value::Map(Vec::new()),
        nanny: None,
        pid: Value::Int(std::process::id().into()),
        versions: versions.clone(),
        metrics,
        extra: Value::Map(Vec::new()),
        stimulus_id: format!("worker-connect-{}", unix()),
        server_id: Omit(Some(settings.server_id.clone())),
    }
}

/// The first message of the stream.
fn running() -> Vec<bytes::Bytes> {
    use oxidask_protocol::message::worker::FromWorker;
    let status = StatusChange {
        status: "running".to_owned(),
        stimulus_id: format!("worker-running-{}", unix()),
    };
    let mut w = oxidask_protocol::msgpack::Writer::new();
    w.array(1);
    FromWorker::StatusChange(status).encode(&mut w);
    w.into_frames()
}

/// Ask the scheduler to move what only this worker has. Returns when that is done or cannot be.
pub(crate) async fn retire(peers: &Peers, scheduler: &str, address: &str) {
    let request = Value::map([
        ("op", Value::Str("retire_workers".into())),
        (
            "workers",
            Value::Array(vec![Value::Str(address.to_owned())]),
        ),
        ("close_workers", Value::Bool(false)),
        ("remove", Value::Bool(true)),
        (
            "stimulus_id",
            Value::Str(format!("worker-close-gracefully-{}", unix())),
        ),
    ]);
    match peers.open(scheduler).await {
        Ok(mut comm) => {
            if let Err(error) = comm.request(&request).await {
                tracing::warn!(%error, "the scheduler did not retire this worker");
            }
        }
        Err(error) => tracing::warn!(%error, "the scheduler cannot be asked to retire this worker"),
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

/// A random identity in the form of a UUID.
fn uuid() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .context("the kernel gives no random uuid")?;
    Ok(text.trim().to_owned())
}
