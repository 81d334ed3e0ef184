//! The pages of a running scheduler.

use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tracing::warn;

use super::{Cluster, router, serve as serve_router};
use crate::server::Server;
use crate::settings::Settings;

/// Listens for the HTTP server, if there is to be one. A port that is taken is replaced by a free one with a warning,
/// as stock Dask does.
///
/// # Errors
/// If the host cannot be listened on.
pub async fn bind(settings: &Settings) -> anyhow::Result<Option<TcpListener>> {
    let Some((host, port)) = &settings.dashboard else {
        return Ok(None);
    };
    bind_or_next(host, *port, "HTTP").await.map(Some)
}

/// Listens on a port, or on a free one if it is taken; `service` is named in messages. An empty host means all
/// interfaces.
pub(crate) async fn bind_or_next(
    host: &str,
    port: u16,
    service: &str,
) -> anyhow::Result<TcpListener> {
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let failed = || format!("failed to listen for {service} on {host}:{port}");
    match TcpListener::bind((host, port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let listener = TcpListener::bind((host, 0)).await.with_context(failed)?;
            let instead = listener.local_addr()?.port();
            warn!(
                port,
                instead, "port of {service} is in use; another one is taken"
            );
            Ok(listener)
        }
        Err(error) => Err(error).with_context(failed),
    }
}

/// Serves the pages until the scheduler closes.
pub async fn serve(server: Arc<Server>, listener: TcpListener) {
    let settings = &server.settings;
    let pages = router(
        Arc::new(Arc::clone(&server)),
        &settings.dashboard_prefix,
        &settings.metrics_namespace,
    );
    let shutdown = server.shutdown.clone();
    if let Err(error) = serve_router(listener, pages, shutdown.cancelled_owned()).await {
        warn!(%error, "the HTTP server ended");
    }
}

/// What the scheduler file holds: the identity as JSON.
pub fn identity(server: &Arc<Server>) -> String {
    format!("{:#}", server.identity())
}
