//! Flags that the command lines of scheduler and worker share.

use std::path::PathBuf;

use crate::tls::TlsFiles;

/// Certificates, HTTP, the process id and the interpreter.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct CommonArgs {
    /// CA cert(s) file for TLS (in PEM format)
    #[arg(long, value_name = "PATH")]
    pub tls_ca_file: Option<PathBuf>,
    /// Certificate file for TLS (in PEM format); it may hold the key too
    #[arg(long, value_name = "PATH")]
    pub tls_cert: Option<PathBuf>,
    /// Private key file for TLS (in PEM format)
    #[arg(long, value_name = "PATH")]
    pub tls_key: Option<PathBuf>,
    /// Launch the HTTP server; the default
    #[arg(long, overrides_with = "no_dashboard")]
    pub dashboard: bool,
    /// Launch no HTTP server
    #[arg(long)]
    pub no_dashboard: bool,
    /// File to write the process PID
    #[arg(long, value_name = "PATH")]
    pub pid_file: Option<PathBuf>,
    /// Python interpreter; else OXIDASK_PYTHON, else python3 of the PATH
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
}

impl CommonArgs {
    /// Whether an HTTP server is wanted.
    pub fn wants_dashboard(&self) -> bool {
        !self.no_dashboard
    }

    /// Whether a file for TLS is named.
    pub fn names_tls_files(&self) -> bool {
        self.tls_ca_file.is_some() || self.tls_cert.is_some() || self.tls_key.is_some()
    }

    /// The configured files, with those that the flags name in their place.
    pub fn tls_files(&self, configured: TlsFiles) -> TlsFiles {
        let given = |path: &Option<PathBuf>, configured: Option<String>| {
            let path = path.as_deref().map(|path| path.display().to_string());
            path.or(configured)
        };
        TlsFiles {
            ca_file: given(&self.tls_ca_file, configured.ca_file),
            cert: given(&self.tls_cert, configured.cert),
            key: given(&self.tls_key, configured.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_takes_the_place_of_the_configured_file_alone() {
        let args = CommonArgs {
            tls_cert: Some("flag.pem".into()),
            ..CommonArgs::default()
        };
        let configured = TlsFiles {
            ca_file: Some("ca.pem".to_owned()),
            cert: Some("configured.pem".to_owned()),
            key: None,
        };
        let files = args.tls_files(configured);
        assert_eq!(files.ca_file.as_deref(), Some("ca.pem"));
        assert_eq!(files.cert.as_deref(), Some("flag.pem"));
        assert_eq!(files.key, None);
        assert!(args.names_tls_files() && !CommonArgs::default().names_tls_files());
    }
}
