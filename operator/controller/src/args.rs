//! The command line: ours, and what charts of the stock operator pass.

use std::time::Duration;

use clap::Parser;

use crate::context::Settings;
use crate::events::Level;
use crate::namespaces::{Choice, Namespaces};

/// Makes Dask clusters on Kubernetes.
#[derive(Clone, Debug, Parser)]
#[command(name = "oxidask-operator", version)]
pub struct Args {
    /// Work on all namespaces (the default).
    #[arg(short = 'A', long, conflicts_with = "namespaces")]
    pub all_namespaces: bool,

    /// Work on this namespace only; may be given several times, or be patterns:
    /// team-*,!*-test
    #[arg(short = 'n', long = "namespace", value_name = "NAMESPACE")]
    pub namespaces: Vec<Choice>,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(
        short = 'L',
        long,
        value_name = "URL",
        default_value = "http://0.0.0.0:8080/healthz"
    )]
    pub liveness: String,

    /// Act only while holding a lease, so that several processes may run.
    #[arg(long, env = "OXIDASK_LEADER_ELECTION")]
    pub leader_election: bool,

    /// Namespace of the lease; that of the pod if not given.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Resources that are worked on at a time.
    #[arg(long, env = "OXIDASK_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Image that brings our programs into others, where the resource names none.
    #[arg(
        long,
        env = "OXIDASK_BINARIES_IMAGE",
        value_name = "IMAGE",
        default_value = concat!("ghcr.io/oxidask/binaries:", env!("CARGO_PKG_VERSION"))
    )]
    pub binaries_image: String,

    /// Seconds that a worker has to hand over its results when it is retired,
    /// where the resource does not say.
    #[arg(long, env = "OXIDASK_DRAIN_TIMEOUT_SECONDS", default_value_t = 60)]
    pub drain_timeout_seconds: u64,

    /// Most workers of one group that are created in one go; 0: all.
    #[arg(long, env = "DASK_KUBERNETES__CONTROLLER__WORKER_ALLOCATION__BATCH_SIZE", value_name = "N", value_parser = number)]
    pub worker_batch_size: Option<usize>,

    /// Seconds between two such batches.
    #[arg(long, env = "DASK_KUBERNETES__CONTROLLER__WORKER_ALLOCATION__DELAY", value_name = "SECONDS", value_parser = number)]
    pub worker_batch_delay: Option<usize>,

    /// Whether Kubernetes Events are written.
    #[arg(long, env = "DASK_KUBERNETES__CONTROLLER__EVENTS__ENABLED", value_name = "BOOL", default_value = "true", value_parser = boolean)]
    pub events: bool,

    /// From which level on: INFO or WARNING.
    #[arg(
        long,
        env = "DASK_KUBERNETES__CONTROLLER__EVENTS__LEVEL",
        value_name = "LEVEL",
        default_value = "INFO"
    )]
    pub events_level: String,

    /// Log more; twice: log everything.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Log everything.
    #[arg(short, long)]
    pub debug: bool,

    /// Log warnings only.
    #[arg(short, long)]
    pub quiet: bool,

    /// plain, full or json.
    #[arg(long, default_value = "full", value_parser = ["plain", "full", "json"])]
    pub log_format: String,

    /// Without effect here; the stock operator's charts may pass it.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    pub log_refkey: Option<String>,

    /// Without effect here.
    #[arg(long, hide = true)]
    pub log_prefix: bool,

    /// Without effect here.
    #[arg(long, hide = true)]
    pub no_log_prefix: bool,

    /// Without effect here.
    #[arg(long, hide = true)]
    pub standalone: bool,

    /// Without effect here.
    #[arg(long, hide = true)]
    pub dev: bool,

    /// Without effect here; see --leader-election.
    #[arg(short = 'P', long, hide = true)]
    pub peering: Option<String>,

    /// Without effect here.
    #[arg(short = 'p', long, hide = true)]
    pub priority: Option<i64>,

    /// Without effect here: plugins of the stock operator are Python code.
    #[arg(short = 'm', long, hide = true)]
    pub module: Vec<String>,
}

impl Args {
    /// Names of flags that were given and do nothing here.
    pub fn without_effect(&self) -> Vec<&'static str> {
        [
            ("--log-refkey", self.log_refkey.is_some()),
            ("--log-prefix", self.log_prefix),
            ("--no-log-prefix", self.no_log_prefix),
            ("--standalone", self.standalone),
            ("--dev", self.dev),
            ("--peering", self.peering.is_some()),
            ("--priority", self.priority.is_some()),
            ("--module", !self.module.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }

    /// The namespaces to work on.
    pub fn namespaces(&self) -> Namespaces {
        Namespaces::new(self.namespaces.clone())
    }

    /// The settings for the controllers.
    pub fn settings(&self) -> Settings {
        Settings {
            batch_size: self.worker_batch_size.filter(|size| *size > 0),
            batch_delay: Duration::from_secs(self.worker_batch_delay.unwrap_or(0) as u64),
            drain_timeout: Duration::from_secs(self.drain_timeout_seconds),
            concurrency: self.concurrency.into(),
            programs_image: self.binaries_image.clone(),
            namespace: self
                .lease_namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
        }
    }

    /// Which Events are written.
    pub fn event_level(&self) -> Level {
        if !self.events {
            return Level::Off;
        }
        match self.events_level.to_ascii_uppercase().as_str() {
            "WARNING" | "ERROR" | "CRITICAL" | "30" | "40" | "50" => Level::Warning,
            _ => Level::Normal,
        }
    }

    /// The filter for log lines.
    pub fn log_filter(&self) -> &'static str {
        match (self.quiet, self.debug, self.verbose) {
            (true, _, _) => "warn",
            (_, true, _) | (_, _, 2..) => "debug",
            (_, _, 1) => "info,oxidask_operator=debug",
            _ => "info",
        }
    }

    /// Address and port of the HTTP server.
    ///
    /// # Errors
    /// The URL has another form than `http://ADDRESS:PORT/…`.
    pub fn http_address(&self) -> Result<std::net::SocketAddr, String> {
        let rest = self
            .liveness
            .strip_prefix("http://")
            .unwrap_or(&self.liveness);
        let address = rest.split('/').next().unwrap_or_default();
        let address = address.replace("localhost", "127.0.0.1");
        address.parse().map_err(|_| {
            format!(
                "--liveness {}: write http://ADDRESS:PORT/healthz",
                self.liveness
            )
        })
    }
}

/// A number, where Dask's configuration may also say "null" or nothing.
fn number(text: &str) -> Result<usize, String> {
    match text {
        "" | "null" | "None" => Ok(0),
        text => text.parse().map_err(|_| format!("{text} is no number")),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from([&["oxidask-operator"], args].concat()).unwrap()
    }

    #[test]
    fn what_the_stock_chart_passes_is_understood() {
        let args = parse(&["--liveness=http://0.0.0.0:8080/healthz", "--all-namespaces"]);
        assert_eq!(args.http_address(), Ok(([0, 0, 0, 0], 8080).into()));
        assert!(args.namespaces.is_empty());
        let two = parse(&["--namespace=a", "-n", "b"]).namespaces();
        assert_eq!(two.names(), Some(vec!["a", "b"]));
    }

    #[test]
    fn flags_of_the_stock_operator_are_taken_and_named() {
        let args = parse(&[
            "--verbose",
            "--standalone",
            "--dev",
            "-P",
            "x",
            "-p",
            "3",
            "-m",
            "plugin",
            "--log-format",
            "json",
            "--log-refkey",
        ]);
        assert_eq!(
            args.without_effect(),
            [
                "--log-refkey",
                "--standalone",
                "--dev",
                "--peering",
                "--priority",
                "--module"
            ]
        );
    }

    #[test]
    fn a_batch_size_of_nothing_means_all() {
        assert_eq!(number("null"), Ok(0));
        assert_eq!(
            parse(&["--worker-batch-size", "0"]).settings().batch_size,
            None
        );
        assert_eq!(
            parse(&["--worker-batch-size", "5"]).settings().batch_size,
            Some(5)
        );
    }
}
