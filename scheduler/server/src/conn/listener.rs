//! Accepts connections and gives each a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oxidask_protocol::comm::{Tls, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::warn;

use super::request;
use crate::server::Server;

/// How long to wait when the system has no file descriptor for a connection.
const OUT_OF_DESCRIPTORS: std::time::Duration = std::time::Duration::from_millis(50);

/// Accepts until the server shuts down.
pub async fn listen(server: Arc<Server>, listener: TcpListener, tls: Option<Tls>) {
    let handshakes = Arc::new(Semaphore::new(server.settings.max_handshakes));
    let open = Arc::new(AtomicUsize::new(0));
    while let Some((stream, peer)) = next(&server, &listener).await {
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            warn!(%peer, "connection refused: too many have not said who they are");
            continue;
        };
        if open.load(Ordering::Relaxed) >= server.settings.max_connections {
            warn!(%peer, limit = server.settings.max_connections, "connection refused: too many are open");
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (server, tls, open) = (Arc::clone(&server), tls.clone(), Arc::clone(&open));
        tokio::spawn(async move {
            let shutdown = server.shutdown.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = connection(server, stream, peer, tls, permit) => {}
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// The next connection, or None when the scheduler closes.
pub(crate) async fn next(
    server: &Server,
    listener: &TcpListener,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.shutdown.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                let port = listener.local_addr().map_or(0, |address| address.port());
                warn!(%error, port, "failed to accept a connection");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

async fn connection(
    server: Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let timeout = server.settings.connect_timeout;
    match accept(stream, tls.as_ref(), server.settings.limits, timeout).await {
        Ok(comm) => {
            drop(permit);
            request::serve(server, comm).await;
        }
        Err(error) => {
            server.count_malformed(&error);
            warn!(%peer, error = &error as &dyn std::error::Error, "connection closed before its handshake was complete");
        }
    }
}
