//! What this worker was told: arguments first, then Dask's configuration, then Dask's defaults.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use oxidask_protocol::{
    Value,
    address::{Address, Scheme},
    comm::Tls,
};
use oxidask_settings::{
    Config, parse_bytes, parse_duration,
    tls::{Role, TlsFiles},
};

use crate::{args::Args, limits, store::MOST_EXECUTORS};

/// Everything the parts need to know, decided once.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Scheduler address, `tcp://host:port`.
    pub(crate) scheduler: String,
    /// Name for the scheduler; the own address if none was given.
    pub(crate) name: Option<String>,
    /// Process identity, `Worker-<uuid>`.
    pub(crate) server_id: String,
    pub(crate) nthreads: usize,
    /// Python processes that share the threads.
    pub(crate) executors: usize,
    pub(crate) resources: Vec<(Arc<str>, f64)>,
    /// Bytes; none without limit.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) local_directory: PathBuf,
    /// Fractions of the memory limit; none switches the threshold off.
    pub(crate) thresholds: Thresholds,
    /// Transfers to peers served at once.
    pub(crate) outgoing_connections: usize,
    /// Peers asked at once.
    pub(crate) incoming_connections: usize,
    pub(crate) message_bytes: u64,
    /// Fraction of the memory limit that may be in flight to this worker.
    pub(crate) incoming_fraction: f64,
    pub(crate) allowed_failures: u32,
    /// How long to wait for a connection.
    pub(crate) connect_timeout: Duration,
    /// How long a peer may send nothing before its transfer is given up.
    pub(crate) stall_timeout: Duration,
    /// Exit when the scheduler cannot be reached for this long.
    pub(crate) death_timeout: Option<Duration>,
    /// Retire after this long.
    pub(crate) lifetime: Option<Duration>,
    /// The first signal lets running tasks end and has results moved, as a pod that is deleted wants it; else it ends
    /// the worker as it ends a stock one (`oxidask.worker.drain`).
    pub(crate) drains: bool,
    /// Offer what a nanny offers: restart, its plugins.
    pub(crate) nanny: bool,
    /// Modules that the executor loads before the first task.
    pub(crate) preload: Vec<String>,
    /// Their arguments.
    pub(crate) preload_argv: Vec<String>,
    pub(crate) tls: Option<Tls>,
    /// Certificates for connections that the executor makes.
    pub(crate) tls_files: TlsFiles,
}

/// As many as asked for, each with a thread at least.
fn executors(executors: usize, nthreads: usize) -> Result<usize> {
    if executors == 0 || executors > MOST_EXECUTORS {
        bail!("--executors: {executors} is not from 1 to {MOST_EXECUTORS}");
    }
    if executors > nthreads.max(1) {
        bail!(
            "--executors: {executors} executors cannot share {nthreads} threads; give --nthreads {executors} or more"
        );
    }
    Ok(executors)
}

/// Memory thresholds as fractions of the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    pub(crate) target: Option<f64>,
    pub(crate) spill: Option<f64>,
    pub(crate) pause: Option<f64>,
    pub(crate) terminate: Option<f64>,
}

impl Settings {
    /// What the scheduler and code in tasks know this worker by: a number where the name is one, as stock reads it.
    pub(crate) fn name_or(&self, address: &str) -> Value {
        match &self.name {
            None => Value::Str(address.to_owned()),
            Some(name) => name.parse::<i64>().map_or_else(
                |_| Value::Str(name.clone()),
                |number| Value::Int(number.into()),
            ),
        }
    }

    /// Decide everything for worker `number` of `count` in this process.
    ///
    /// # Errors
    /// If a value cannot be read; the text names the flag or key.
    pub(crate) fn new(args: &Args, config: &Config, number: usize, count: usize) -> Result<Self> {
        let nthreads = match (args.nthreads, config.count("distributed.worker.nthreads")?) {
            (Some(nthreads), _) | (None, Some(nthreads)) => nthreads,
            (None, None) => (limits::cpus() / count).max(1),
        };
        let name = args
            .name
            .clone()
            .or(config.text("distributed.worker.name")?.map(str::to_owned));
        let name = name.map(|name| {
            if count > 1 {
                format!("{name}-{number}")
            } else {
                name
            }
        });
        let server_id = format!("Worker-{}", uuid()?);
        let tls_files = tls_files(args, config)?;
        let seconds = |key: &str, default: u64| -> Result<Duration> {
            Ok(config
                .duration(key)?
                .unwrap_or(Duration::from_secs(default)))
        };
        let mut preload = config.texts("distributed.worker.preload")?;
        preload.extend(args.preload_nanny.iter().chain(&args.preload).cloned());
        Ok(Self {
            scheduler: scheduler_address(args, config)?,
            local_directory: local_directory(args, config)?
                .join(format!("worker-{}", &server_id[7..15])),
            name,
            server_id,
            nthreads,
            executors: executors(args.executors, nthreads)?,
            resources: resources(args, config)?,
            memory_limit: memory_limit(args, config, nthreads)?,
            thresholds: Thresholds::of_config(config)?,
            outgoing_connections: config
                .count("distributed.worker.connections.outgoing")?
                .unwrap_or(50),
            incoming_connections: config
                .count("distributed.worker.connections.incoming")?
                .unwrap_or(10),
            message_bytes: config
                .bytes("distributed.worker.transfer.message-bytes-limit")?
                .unwrap_or(50_000_000),
            incoming_fraction: fraction(config, "transfer", 0.1)?.unwrap_or(1.0),
            allowed_failures: config
                .count("distributed.scheduler.allowed-failures")?
                .unwrap_or(3) as u32,
            connect_timeout: seconds("distributed.comm.timeouts.connect", 30)?,
            stall_timeout: seconds("distributed.comm.timeouts.tcp", 30)?,
            death_timeout: duration(args.death_timeout.as_deref(), "--death-timeout")?,
            lifetime: lifetime(args, config)?,
            drains: config
                .bool("oxidask.worker.drain")?
                .unwrap_or(config.in_pod()),
            nanny: !args.no_nanny,
            preload,
            preload_argv: args.preload_argv.clone(),
            tls: tls_files.load(config)?,
            tls_files,
        })
    }
}

impl Thresholds {
    fn of_config(config: &Config) -> Result<Self> {
        Ok(Self {
            target: fraction(config, "target", 0.6)?,
            spill: fraction(config, "spill", 0.7)?,
            pause: fraction(config, "pause", 0.8)?,
            terminate: fraction(config, "terminate", 0.95)?,
        })
    }
}

/// A fraction of `distributed.worker.memory`; false or 0 switches it off.
fn fraction(config: &Config, name: &str, default: f64) -> Result<Option<f64>> {
    let key = format!("distributed.worker.memory.{name}");
    if matches!(config.get(&key), Some(oxidask_settings::Tree::Bool(false))) {
        return Ok(None);
    }
    Ok(Some(config.float(&key)?.unwrap_or(default)).filter(|fraction| *fraction > 0.0))
}

fn duration(text: Option<&str>, flag: &str) -> Result<Option<Duration>> {
    text.map(|text| {
        parse_duration(text).with_context(|| format!("{flag}: {text:?} is no duration"))
    })
    .transpose()
}

fn lifetime(args: &Args, config: &Config) -> Result<Option<Duration>> {
    let own = duration(args.lifetime.as_deref(), "--lifetime")?;
    let Some(lifetime) = own.or(config.duration("distributed.worker.lifetime.duration")?) else {
        return Ok(None);
    };
    let own = duration(args.lifetime_stagger.as_deref(), "--lifetime-stagger")?;
    let stagger = own
        .or(config.duration("distributed.worker.lifetime.stagger")?)
        .unwrap_or_default();
    // Anywhere within plus or minus the stagger; the process id is as good a die as any.
    let position = f64::from(std::process::id() % 1000) / 500.0 - 1.0;
    let seconds = lifetime.as_secs_f64() + stagger.as_secs_f64() * position;
    Ok(Some(
        Duration::try_from_secs_f64(seconds).unwrap_or_default(),
    ))
}

fn local_directory(args: &Args, config: &Config) -> Result<PathBuf> {
    if let Some(path) = &args.local_directory {
        return Ok(path.clone());
    }
    let configured = config.text("temporary-directory")?;
    Ok(configured
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join("dask-scratch-space"))
}

fn tls_files(args: &Args, config: &Config) -> Result<TlsFiles> {
    let configured = TlsFiles::of_config(config, Role::Worker)?;
    Ok(args.common.tls_files(configured))
}

fn scheduler_address(args: &Args, config: &Config) -> Result<String> {
    let configured = config.text("scheduler-address")?.map(str::to_owned);
    let text = match (
        args.scheduler.clone().filter(|text| !text.is_empty()),
        &args.scheduler_file,
        configured,
    ) {
        (Some(text), ..) => text,
        (None, Some(path), _) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("failed to read --scheduler-file {}", path.display()))?;
            address_in_json(&text).with_context(|| {
                format!("--scheduler-file {} names no \"address\"", path.display())
            })?
        }
        (None, None, Some(text)) => text,
        (None, None, None) => {
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

fn resources(args: &Args, config: &Config) -> Result<Vec<(Arc<str>, f64)>> {
    let Some(text) = args.resources.as_deref() else {
        let Some(oxidask_settings::Tree::Map(pairs)) = config.get("distributed.worker.resources")
        else {
            return Ok(Vec::new());
        };
        let amount = |name: &str| config.float(&format!("distributed.worker.resources.{name}"));
        let pairs = pairs
            .keys()
            .map(|name| Ok((Arc::from(name.as_str()), amount(name)?.unwrap_or_default())));
        return pairs.collect();
    };
    let pairs = text.split([' ', ',']).filter(|pair| !pair.is_empty());
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
fn memory_limit(args: &Args, config: &Config, nthreads: usize) -> Result<Option<u64>> {
    let available = limits::memory();
    let configured = config
        .get("distributed.worker.memory.limit")
        .map(ToString::to_string);
    let text = args
        .memory_limit
        .clone()
        .or(configured)
        .unwrap_or_else(|| "auto".to_owned());
    let limit = match text.trim_matches(['"', '\'']) {
        "auto" => {
            let share = nthreads as f64 / limits::cpus() as f64;
            (available as f64 * share.min(1.0)) as u64
        }
        "none" | "None" => return Ok(None),
        text => match text.parse::<f64>() {
            Ok(0.0) => return Ok(None),
            Ok(number) if number <= 1.0 && text.contains('.') => (number * available as f64) as u64,
            Ok(number) => number as u64,
            Err(_) => parse_bytes(text)
                .with_context(|| format!("--memory-limit: {text:?} is no amount of memory"))?,
        },
    };
    Ok(Some(limit.min(available)))
}

/// A random identity in the form of a UUID.
fn uuid() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .context("the kernel gives no random uuid")?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use oxidask_settings::Sources;

    use super::*;

    fn settings(line: &str) -> Result<Settings> {
        let args = Args::try_parse_from(format!("dask-worker {line}").split_whitespace()).unwrap();
        Settings::new(&args, &Config::load(&Sources::default()).unwrap(), 1, 1)
    }

    #[test]
    fn arguments_become_settings() {
        let settings =
            settings("tcp://h:1 --nthreads 3 --name w --memory-limit 1GB --resources A=2,B=0.5")
                .unwrap();
        assert_eq!(settings.scheduler, "tcp://h:1");
        assert_eq!(
            (settings.nthreads, settings.memory_limit),
            (3, Some(1_000_000_000))
        );
        assert_eq!(
            settings.resources,
            [(Arc::from("A"), 2.0), (Arc::from("B"), 0.5)]
        );
        assert_eq!(settings.name.as_deref(), Some("w"));
        assert_eq!(settings.name_or("tcp://h:2"), Value::Str("w".into()));
    }

    #[test]
    fn name_that_is_a_number_is_one_as_in_stock() {
        let settings = settings("tcp://h:1 --name 7").unwrap();
        assert_eq!(settings.name_or("tcp://h:2"), Value::Int(7));
    }

    #[test]
    fn malformed_arguments_name_their_flag() {
        for (line, flag) in [
            ("h:1 --memory-limit lots", "--memory-limit"),
            ("h:1 --resources A", "--resources"),
            ("h:1 --lifetime soon", "--lifetime"),
            ("h:1 --scheduler-file /none", "scheduler"),
            ("h:1 --executors 0", "--executors"),
            ("h:1 --nthreads 2 --executors 3", "--executors"),
            ("h:1 --nthreads 100 --executors 65", "--executors"),
        ] {
            let line = if flag == "scheduler" {
                line.replace("h:1 ", "")
            } else {
                line.to_owned()
            };
            let error = format!("{:#}", settings(&line).unwrap_err());
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn memory_limit_of_zero_is_none() {
        assert_eq!(settings("h:1 --memory-limit 0").unwrap().memory_limit, None);
    }
}
