//! The command line: every flag of `dask worker`, each once.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

use oxidask_settings::args::CommonArgs;

/// Launch a Dask worker attached to an existing scheduler.
#[derive(Parser, Clone, Debug)]
#[command(name = "dask-worker", version, about, disable_help_flag = true)]
pub struct Args {
    /// Address of the scheduler, such as tcp://10.0.0.1:8786; else --scheduler-file or DASK_SCHEDULER_ADDRESS
    #[arg(env = "DASK_SCHEDULER_ADDRESS")]
    pub scheduler: Option<String>,
    /// Arguments for --preload modules
    #[arg(trailing_var_arg = true, value_name = "PRELOAD_ARGV")]
    pub preload_argv: Vec<String>,
    /// Flags of the scheduler too.
    #[command(flatten)]
    pub common: CommonArgs,

    /// Port for peers, or a range FIRST:LAST for several workers; default: any free one
    #[arg(long, alias = "port")]
    pub worker_port: Option<String>,
    /// Port of the nanny; without meaning here, where the worker is its own nanny
    #[arg(long)]
    pub nanny_port: Option<String>,
    /// Address for /health and /metrics, such as :8790
    #[arg(long)]
    pub dashboard_address: Option<String>,
    /// Address to bind, such as tcp://0.0.0.0:9000
    #[arg(long)]
    pub listen_address: Option<String>,
    /// Address that the scheduler and peers are told
    #[arg(long)]
    pub contact_address: Option<String>,
    /// Host to bind and to tell
    #[arg(long)]
    pub host: Option<String>,
    /// Network interface to bind, such as eth0
    #[arg(long)]
    pub interface: Option<String>,
    /// tcp or tls
    #[arg(long)]
    pub protocol: Option<String>,
    /// Tasks at once per worker; default: CPUs divided by workers
    #[arg(long)]
    pub nthreads: Option<usize>,
    /// Python processes behind each worker's address, which share its threads; the first one hosts plugins and actors
    #[arg(long, default_value_t = 1)]
    pub executors: usize,
    /// Workers to launch; negative counts back from the CPUs, auto chooses
    #[arg(long, alias = "nprocs", allow_hyphen_values = true)]
    pub nworkers: Option<String>,
    /// Unique name; with --nworkers a number is appended
    #[arg(long)]
    pub name: Option<String>,
    /// Bytes of memory per worker: a number, a fraction, a text such as 5GB, 0 for no limit, or auto
    #[arg(long)]
    pub memory_limit: Option<String>,
    /// Let Client.restart restart this worker (the default); executors are supervised in any case
    #[arg(long, overrides_with = "no_nanny")]
    pub nanny: bool,
    /// Let Client.restart remove this worker
    #[arg(long)]
    pub no_nanny: bool,
    /// Folder for spilled values and uploaded modules
    #[arg(long, value_name = "PATH")]
    pub local_directory: Option<PathBuf>,
    /// Resources such as "GPU=2 MEM=10e9"
    #[arg(long)]
    pub resources: Option<String>,
    /// JSON file with the scheduler's address
    #[arg(long, value_name = "PATH")]
    pub scheduler_file: Option<PathBuf>,
    /// Seconds to wait for the scheduler before giving up
    #[arg(long)]
    pub death_timeout: Option<String>,
    /// Without meaning here: there is no dashboard to prefix
    #[arg(long)]
    pub dashboard_prefix: Option<String>,
    /// Shut down after this time
    #[arg(long)]
    pub lifetime: Option<String>,
    /// Vary the lifetime by up to this much
    #[arg(long)]
    pub lifetime_stagger: Option<String>,
    /// Refused: a class cannot be hosted; use `dask worker`
    #[arg(long)]
    pub worker_class: Option<String>,
    /// Restart the worker after its lifetime
    #[arg(long, overrides_with = "no_lifetime_restart")]
    pub lifetime_restart: bool,
    /// Do not (the default)
    #[arg(long)]
    pub no_lifetime_restart: bool,
    /// Module or file to load in the executor, such as foo.bar or /path/foo.py
    #[arg(long)]
    pub preload: Vec<String>,
    /// Module for the nanny; loaded in the executor too, before the others
    #[arg(long)]
    pub preload_nanny: Vec<String>,
    /// Host name for TLS if it differs from the scheduler's
    #[arg(long)]
    pub scheduler_sni: Option<String>,
    /// Start the Python executor only when a task or request needs it; native tasks never do
    #[arg(long, env = "OXIDASK_LAZY_EXECUTOR")]
    pub lazy_executor: bool,
    /// Show this help
    #[arg(short, long, action = ArgAction::Help)]
    pub help: Option<bool>,
}

impl Args {
    /// Flags that are accepted and change nothing, with the reason.
    pub(crate) fn without_meaning(&self) -> Vec<&'static str> {
        let mut flags = Vec::new();
        if self.nanny_port.is_some() {
            flags.push("--nanny-port: the worker is its own nanny and has no second port");
        }
        if self.dashboard_prefix.is_some() {
            flags.push("--dashboard-prefix: there is no dashboard");
        }
        if self.scheduler_sni.is_some() {
            flags.push("--scheduler-sni: host names are not checked, certificates are");
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_the_stock_worker_is_known() {
        let line = "dask-worker tcp://h:1 --tls-ca-file a --tls-cert b --tls-key c --worker-port 1 --nanny-port 2 \
            --dashboard-address :1 --dashboard --listen-address tcp://:1 --contact-address tcp://h:1 --host h \
            --interface lo --protocol tcp --nthreads 1 --nworkers -1 --name n --memory-limit 1GB --nanny \
            --pid-file p --local-directory d --resources A=1 --scheduler-file f --death-timeout 5 \
            --dashboard-prefix x --lifetime 1h --lifetime-stagger 1m --worker-class c --lifetime-restart \
            --preload a --preload-nanny b --scheduler-sni s";
        Args::try_parse_from(line.split_whitespace()).unwrap();
        Args::try_parse_from([
            "dask-worker",
            "h:1",
            "--nprocs",
            "2",
            "--no-nanny",
            "--no-dashboard",
        ])
        .unwrap();
    }

    #[test]
    fn unknown_flag_is_an_error() {
        assert!(Args::try_parse_from(["dask-worker", "h:1", "--nthread", "1"]).is_err());
    }
}
