//! Connecting to a scheduler as this process is configured to.

use anyhow::{Context as _, Result};
use oxidask_client::{Client, Options};
use oxidask_settings::tls::{Role, TlsFiles};
use oxidask_settings::{Config, Sources};

/// Connects to a scheduler; for `tls://` with the certificates of `distributed.comm.tls`, from Dask's files and
/// variables.
///
/// # Errors
/// If the configuration cannot be read, or there is no scheduler of ours.
pub(crate) async fn connect(address: &str) -> Result<Client> {
    let config = Config::load(&Sources::of_process())?;
    let files = TlsFiles::of_config(&config, Role::Client)?;
    let options = Options {
        tls: files.load(&config)?,
        ..Options::default()
    };
    Client::connect_with(address, options)
        .await
        .with_context(|| format!("failed to connect to {address}"))
}
