//! From command line and configuration to the settings of the server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use oxidask_protocol::address::Scheme;
use oxidask_protocol::frame::Limits;
use oxidask_scheduler_core as core;
use oxidask_settings::tls::{Role, TlsFiles};
use oxidask_settings::{Config, Tree, parse_duration};

use crate::args::Args;
use crate::config_keys::KEYS;
use crate::conn::outbox::OutboxLimits;
use crate::extensions::Limits as ExtensionLimits;
use crate::graph::IntakeConfig;
use crate::listen::{Wanted, addresses, dashboard};
use crate::peers::Measure;
use crate::rpc::rebalance::Rules;
use crate::settings::Settings;

/// The policy of the active memory manager that the scheduler has.
const REDUCE_REPLICAS: &str = "distributed.active_memory_manager.ReduceReplicas";

/// Transitions, and events of each topic, that are kept; as in stock Dask.
const LOW_LEVEL_LOG_LENGTH: usize = 1000;

/// What the scheduler does, from what it was told; with notes for the user, to be logged once.
///
/// # Errors
/// If a value is malformed, a file for TLS is missing or unusable, or something is asked for that would be unsafe to
/// pass over.
pub fn settings(args: &Args, config: &Config) -> anyhow::Result<(Settings, Vec<String>)> {
    args.check()?;
    let unused = config.without_effect("distributed", KEYS)?;
    let mut notes: Vec<String> = args.notes().into_iter().map(str::to_owned).collect();
    for (old, new) in config.renamed() {
        notes.push(format!("configuration {old} is now called {new}"));
    }
    if !unused.is_empty() {
        notes.push(format!(
            "configuration without effect here: {}",
            unused.join(", ")
        ));
    }
    let defaults = Settings::default();
    let tls = tls_files(args, config)?;
    let listen = listen(args, config, !tls.is_empty())?;
    let idle_timeout = match &args.idle_timeout {
        Some(text) => Some(parse_duration(text).with_context(|| {
            format!("--idle-timeout {text:?} is no duration such as \"1 hour\"")
        })?),
        None => config.duration("distributed.scheduler.idle-timeout")?,
    };
    let scheduler = |key: &str| format!("distributed.scheduler.{key}");
    let settings = Settings {
        tls: tls.load(config)?,
        listen,
        contact_address: config
            .text(&scheduler("contact-address"))?
            .map(str::to_owned),
        dashboard: match args.common.wants_dashboard() {
            true => Some(dashboard(&args.dashboard_address)?),
            false => None,
        },
        dashboard_prefix: args.dashboard_prefix.trim_matches('/').to_owned(),
        core: core_config(config)?,
        connect_timeout: config
            .duration("distributed.comm.timeouts.connect")?
            .unwrap_or(defaults.connect_timeout),
        outbox: OutboxLimits {
            patience: config
                .duration("distributed.comm.timeouts.tcp")?
                .unwrap_or(defaults.outbox.patience),
            ..defaults.outbox
        },
        limits: Limits {
            silence: config
                .duration("distributed.comm.timeouts.tcp")?
                .unwrap_or(defaults.limits.silence),
            ..defaults.limits
        },
        backlog: config
            .count("distributed.comm.socket-backlog")?
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(defaults.backlog),
        python: args.common.python.clone(),
        graph: graph_intake(args, config)?,
        interpreters: config
            .texts("oxidask.graph.interpreters")?
            .into_iter()
            .map(PathBuf::from)
            .collect(),
        preload: preload(args, config)?,
        scheduler_file: args.scheduler_file.clone(),
        pid_file: args.common.pid_file.clone(),
        control: args
            .control_address(config.in_pod())
            .map(dashboard)
            .transpose()
            .context("--control-address is malformed")?,
        idle_timeout: idle_timeout.filter(|timeout| *timeout > Duration::ZERO),
        adaptive_target_duration: config
            .duration("distributed.adaptive.target-duration")?
            .unwrap_or(defaults.adaptive_target_duration),
        python_policies: memory_policies(config)?.1,
        memory_measure: measure(
            config,
            "distributed.scheduler.active-memory-manager.measure",
        )?,
        rebalance: rebalance_rules(config)?,
        extensions: extension_limits(config)?,
        blocked_handlers: config.texts(&scheduler("blocked-handlers"))?,
        log_length: config
            .count("distributed.admin.log-length")?
            .unwrap_or(defaults.log_length),
        metrics_namespace: config
            .text("distributed.dashboard.prometheus.namespace")?
            .map_or(defaults.metrics_namespace, str::to_owned),
        ..Settings::default()
    };
    Ok((settings, notes))
}

fn graph_intake(args: &Args, config: &Config) -> anyhow::Result<IntakeConfig> {
    let defaults = IntakeConfig::default();
    Ok(IntakeConfig {
        python: args.common.python.clone(),
        helpers: config
            .count("oxidask.graph.helpers")?
            .unwrap_or(defaults.helpers),
        timeout: config
            .duration("oxidask.graph.timeout")?
            .unwrap_or(defaults.timeout),
        memory_limit: config
            .bytes("oxidask.graph.memory-limit")?
            .unwrap_or(defaults.memory_limit),
        ..defaults
    })
}

fn listen(
    args: &Args,
    config: &Config,
    has_tls: bool,
) -> anyhow::Result<Vec<oxidask_protocol::address::Address>> {
    let by_flags = args.common.names_tls_files();
    let required = config.bool("distributed.comm.require-encryption")?;
    let default_scheme = match config.text("distributed.comm.default-scheme")? {
        _ if by_flags || required == Some(true) => Scheme::Tls,
        None | Some("tcp") => Scheme::Tcp,
        Some("tls") => Scheme::Tls,
        Some(other) => bail!(
            "configuration distributed.comm.default-scheme is {other:?}, but tcp and tls are supported"
        ),
    };
    let listen = addresses(&Wanted {
        host: &args.host,
        port: args.port.as_deref(),
        interface: args.interface.as_deref(),
        protocol: args.protocol.as_deref(),
        default_scheme: Some(default_scheme),
    })?;
    for address in &listen {
        match address.scheme {
            Scheme::Tcp if required.unwrap_or(by_flags) => bail!(
                "encryption is required by the configuration, refusing to listen on {address}; use tls://"
            ),
            Scheme::Tls if !has_tls => bail!(
                "cannot listen on {address} without certificates; give --tls-ca-file, --tls-cert and --tls-key, or set distributed.comm.tls.ca-file and .scheduler.cert"
            ),
            _ => {}
        }
    }
    Ok(listen)
}

fn tls_files(args: &Args, config: &Config) -> anyhow::Result<TlsFiles> {
    let configured = TlsFiles::of_config(config, Role::Scheduler)?;
    Ok(args.common.tls_files(configured))
}

fn preload(args: &Args, config: &Config) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let (modules, argv) = if args.preload.is_empty() {
        (
            config.texts("distributed.scheduler.preload")?,
            config.texts("distributed.scheduler.preload-argv")?,
        )
    } else {
        (args.preload.clone(), args.preload_argv.clone())
    };
    Ok(modules
        .into_iter()
        .map(|module| (module, argv.clone()))
        .collect())
}

/// Which of a worker's memory a key names.
fn measure(config: &Config, key: &str) -> anyhow::Result<Measure> {
    match config.text(key)? {
        None => Ok(Measure::default()),
        Some(name) => match Measure::parse(name) {
            Some(measure) => Ok(measure),
            None => bail!(
                "configuration {key} is {name:?}, but must be one of {}",
                Measure::names()
            ),
        },
    }
}

/// The scheduler moves the data, so these keys of workers are read by it.
fn rebalance_rules(config: &Config) -> anyhow::Result<Rules> {
    let defaults = Rules::default();
    let key = |name: &str| format!("distributed.worker.memory.rebalance.{name}");
    let share = |name: &str, default: f64| -> anyhow::Result<f64> {
        Ok(config.float(&key(name))?.unwrap_or(default))
    };
    Ok(Rules {
        measure: measure(config, &key("measure"))?,
        gap: share("sender-recipient-gap", defaults.gap)?,
        sender_min: share("sender-min", defaults.sender_min)?,
        recipient_max: share("recipient-max", defaults.recipient_max)?,
    })
}

/// Which policies the active memory manager has: whether superfluous copies are dropped, and whether there are others,
/// which are Python.
fn memory_policies(config: &Config) -> anyhow::Result<(bool, bool)> {
    const KEY: &str = "distributed.scheduler.active-memory-manager.policies";
    let Some(policies) = config.tree().get(KEY) else {
        return Ok((true, false));
    };
    let Tree::List(policies) = policies else {
        bail!("configuration {KEY} must be a list of classes with their arguments, not {policies}");
    };
    let (mut reduces, mut others) = (false, false);
    for policy in policies {
        match policy.get("class") {
            Some(Tree::Text(class)) if class == REDUCE_REPLICAS => reduces = true,
            Some(Tree::Text(_)) => others = true,
            _ => bail!("configuration {KEY}: {policy} names no class"),
        }
    }
    Ok((reduces, others))
}

fn extension_limits(config: &Config) -> anyhow::Result<ExtensionLimits> {
    let defaults = ExtensionLimits::default();
    let length = |page: &str, default: usize| {
        let key = format!("distributed.scheduler.dashboard.{page}.task-stream-length");
        config.count(&key).map(|length| length.unwrap_or(default))
    };
    Ok(ExtensionLimits {
        lease_validation_interval: config
            .duration("distributed.scheduler.locks.lease-validation-interval")?
            .unwrap_or(defaults.lease_validation_interval),
        events_per_topic: config
            .count("distributed.admin.low-level-log-length")?
            .unwrap_or(defaults.events_per_topic),
        events_cleanup_delay: config
            .duration("distributed.scheduler.events-cleanup-delay")?
            .unwrap_or(defaults.events_cleanup_delay),
        // The longer of the two, as in stock.
        task_stream_length: length("status", 1000)?.max(length("tasks", 100_000)?),
    })
}

fn core_config(config: &Config) -> anyhow::Result<core::Config> {
    let defaults = core::Config::default();
    let key = |name: &str| format!("distributed.scheduler.{name}");
    let duration = |name: &str, default: Duration| {
        config
            .duration(&key(name))
            .map(|duration| duration.unwrap_or(default))
    };
    let count = |name: &str, default: u64| {
        let count = config.count(&key(name));
        count.map(|count| count.map_or(default, |count| count as u64))
    };
    let mut durations = defaults.default_task_durations.clone();
    for (prefix, duration) in config.durations(&key("default-task-durations"))? {
        durations.retain(|(other, _)| *other != prefix);
        durations.push((prefix, duration.as_secs_f64()));
    }
    Ok(core::Config {
        worker_saturation: config
            .float(&key("worker-saturation"))?
            .unwrap_or(defaults.worker_saturation),
        allowed_failures: match config.count(&key("allowed-failures"))? {
            Some(count) => u32::try_from(count).unwrap_or(u32::MAX),
            None => defaults.allowed_failures,
        },
        bandwidth: config
            .bytes(&key("bandwidth"))?
            .map_or(defaults.bandwidth, |bytes| bytes as f64),
        unknown_task_duration: duration(
            "unknown-task-duration",
            Duration::from_secs_f64(defaults.unknown_task_duration),
        )?
        .as_secs_f64(),
        default_task_durations: durations,
        default_data_size: config
            .bytes(&key("default-data-size"))?
            .unwrap_or(defaults.default_data_size),
        worker_ttl: match config.tree().get(&key("worker-ttl")) {
            None => defaults.worker_ttl,
            Some(_) => config.duration(&key("worker-ttl"))?,
        },
        no_workers_timeout: config.duration(&key("no-workers-timeout"))?,
        work_stealing: config
            .bool(&key("work-stealing"))?
            .unwrap_or(defaults.work_stealing),
        work_stealing_interval: duration(
            "work-stealing-interval",
            defaults.work_stealing_interval,
        )?,
        active_memory_manager: config
            .bool(&key("active-memory-manager.start"))?
            .unwrap_or(defaults.active_memory_manager),
        active_memory_manager_interval: duration(
            "active-memory-manager.interval",
            defaults.active_memory_manager_interval,
        )?,
        reduce_replicas: memory_policies(config)?.0,
        rootish_dependencies: count("rootish-taskgroup", defaults.rootish_dependencies)?,
        rootish_dependency_tasks: count(
            "rootish-taskgroup-dependencies",
            defaults.rootish_dependency_tasks,
        )?,
        validate: config.bool(&key("validate"))?.unwrap_or(defaults.validate),
        transition_log_length: config
            .count("distributed.admin.low-level-log-length")?
            .unwrap_or(LOW_LEVEL_LOG_LENGTH),
        ..defaults
    })
}

#[cfg(test)]
mod tests;
