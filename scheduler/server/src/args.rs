//! The command line: every flag of `dask scheduler`, and two of ours.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

use oxidask_settings::args::CommonArgs;

/// Where the control API is in a pod, unless the command line says otherwise.
const CONTROL_IN_POD: &str = ":8788";

/// Launch a Dask scheduler.
#[derive(Clone, Debug, Parser, Default)]
#[command(name = "dask-scheduler", version, about, max_term_width = 100)]
pub struct Args {
    /// Flags of the worker too.
    #[command(flatten)]
    pub common: CommonArgs,
    /// URI, IP or hostname of this server
    #[arg(long, default_value = "", hide_default_value = true)]
    pub host: String,
    /// Serving port, 8786 by default, 0 for any; several with commas, one for each protocol
    #[arg(long)]
    pub port: Option<String>,
    /// Preferred network interface like 'eth0' or 'ib0'
    #[arg(long)]
    pub interface: Option<String>,
    /// Protocol, tcp or tls; several with commas
    #[arg(long)]
    pub protocol: Option<String>,
    /// Address on which to listen for the status page, metrics and the HTTP API
    #[arg(long, default_value = ":8787")]
    pub dashboard_address: String,
    /// Refused: start a Jupyter server by itself instead
    #[arg(long, overrides_with = "no_jupyter")]
    pub jupyter: bool,
    /// The default
    #[arg(long)]
    pub no_jupyter: bool,
    /// Without effect
    #[arg(long, overrides_with = "no_show")]
    pub show: bool,
    /// Without effect
    #[arg(long)]
    pub no_show: bool,
    /// Prefix of the paths of the HTTP server
    #[arg(long, default_value = "", hide_default_value = true)]
    pub dashboard_prefix: String,
    /// Without effect
    #[arg(long, value_name = "BOOLEAN", action = ArgAction::Set)]
    pub use_xheaders: Option<bool>,
    /// File to write connection information; on a shared file system, clients and workers find the scheduler by it
    #[arg(long)]
    pub scheduler_file: Option<PathBuf>,
    /// Module that should be loaded by the scheduler's Python process, like "foo.bar" or "/path/to/foo.py"
    #[arg(long)]
    pub preload: Vec<String>,
    /// Time of inactivity after which the scheduler ends, such as "1 hour"
    #[arg(long)]
    pub idle_timeout: Option<String>,
    /// Address for the control API (gRPC), such as ":8788"; "none" for none. On at ":8788" in a pod, else off
    #[arg(long, value_name = "ADDRESS")]
    pub control_address: Option<String>,
    /// Arguments for the preloaded modules
    #[arg(
        value_name = "PRELOAD_ARGV",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub preload_argv: Vec<String>,
}

impl Args {
    /// Checks what flags mean together.
    ///
    /// # Errors
    /// If something is asked for that the scheduler does not have.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.jupyter {
            anyhow::bail!(
                "--jupyter is not supported: the scheduler's process runs no Python; start `jupyter server` beside it"
            );
        }
        if self.preload.is_empty()
            && let Some(first) = self.preload_argv.first()
        {
            anyhow::bail!(
                "unexpected argument {first:?}; arguments of preloaded modules need a --preload before them, and the flags are in --help"
            );
        }
        Ok(())
    }

    /// One sentence about each given flag that has no effect here.
    pub fn notes(&self) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if self.show || self.no_show {
            notes.push("--show and --no-show have no effect (deprecated in Dask)");
        }
        if self.use_xheaders.is_some() {
            notes.push("--use-xheaders has no effect (deprecated in Dask)");
        }
        notes
    }

    /// Where the control API is wanted, as it is written; `in_pod`: Kubernetes runs this process.
    pub fn control_address(&self, in_pod: bool) -> Option<&str> {
        match self.control_address.as_deref() {
            Some("none") => None,
            Some(address) => Some(address),
            None => in_pod.then_some(CONTROL_IN_POD),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        let args = std::iter::once("dask-scheduler").chain(args.iter().copied());
        Args::try_parse_from(args).map_err(|error| error.to_string())
    }

    /// The flags of `dask scheduler --help` in 2026.8.0.
    const STOCK_FLAGS: &[&str] = &[
        "host",
        "port",
        "interface",
        "protocol",
        "tls-ca-file",
        "tls-cert",
        "tls-key",
        "dashboard-address",
        "dashboard",
        "no-dashboard",
        "jupyter",
        "no-jupyter",
        "show",
        "no-show",
        "dashboard-prefix",
        "use-xheaders",
        "pid-file",
        "scheduler-file",
        "preload",
        "idle-timeout",
        "version",
        "help",
    ];

    #[test]
    fn every_flag_of_stock_is_there() {
        let mut command = Args::command();
        command.build();
        for flag in STOCK_FLAGS {
            let known = command
                .get_arguments()
                .any(|arg| arg.get_long() == Some(flag));
            assert!(known, "--{flag}");
        }
    }

    #[test]
    fn the_later_of_two_opposite_flags_counts() {
        assert!(
            !parse(&["--dashboard", "--no-dashboard"])
                .unwrap()
                .common
                .wants_dashboard()
        );
        assert!(
            parse(&["--no-dashboard", "--dashboard"])
                .unwrap()
                .common
                .wants_dashboard()
        );
        assert!(parse(&[]).unwrap().common.wants_dashboard());
        assert!(
            parse(&["--jupyter", "--no-jupyter"])
                .unwrap()
                .check()
                .is_ok()
        );
    }

    #[test]
    fn unknown_flags_and_stray_arguments_are_errors() {
        let check = |args: &[&str]| {
            parse(args).and_then(|args| args.check().map_err(|error| error.to_string()))
        };
        let unknown = check(&["--no-such-flag"]).unwrap_err();
        assert!(unknown.contains("--no-such-flag"), "{unknown}");
        let stray = check(&["stray"]).unwrap_err();
        assert!(stray.contains("\"stray\""), "{stray}");
        let jupyter = check(&["--jupyter"]).unwrap_err();
        assert!(jupyter.contains("jupyter server"), "{jupyter}");
        assert!(check(&["--use-xheaders", "perhaps"]).is_err());
    }

    #[test]
    fn arguments_after_a_preload_are_the_modules() {
        let args = parse(&["--preload", "a.py", "--port", "0", "--token", "x"]).unwrap();
        assert_eq!(args.preload, ["a.py"]);
        assert_eq!(args.port.as_deref(), Some("0"));
        assert_eq!(args.preload_argv, ["--token", "x"]);
        assert!(args.check().is_ok());
    }

    #[test]
    fn flags_without_effect_are_named() {
        let args = parse(&["--show", "--use-xheaders", "true"]).unwrap();
        assert_eq!(args.notes().len(), 2);
        assert!(parse(&["--port", "0"]).unwrap().notes().is_empty());
    }

    #[test]
    fn the_control_api_is_on_in_a_pod_and_where_it_is_asked_for() {
        let address = |flags: &[&str], in_pod| {
            let args = parse(flags).unwrap();
            args.control_address(in_pod).map(str::to_owned)
        };
        assert_eq!(address(&[], false), None);
        assert_eq!(address(&[], true).as_deref(), Some(":8788"));
        for in_pod in [false, true] {
            let given = address(&["--control-address", "h:1"], in_pod);
            assert_eq!(given.as_deref(), Some("h:1"));
            assert_eq!(address(&["--control-address", "none"], in_pod), None);
        }
    }
}
