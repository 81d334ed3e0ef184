//! Accepts connections for the control API, encrypted where certificates are configured.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use oxidask_control::v1::control_server::ControlServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::service::ControlService;
use crate::conn::first_byte::FirstByte;
use crate::conn::listener::next;
use crate::http::pages;
use crate::server::Server;
use crate::settings::Settings;

/// Connections at once: an operator, a command line, and a few that hang.
const MAX_CONNECTIONS: usize = 128;

/// A peer that is silent for so long is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(30);

/// How long it may take to answer that, and to begin to speak at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens for the control API, if there is to be one; a port that is taken is replaced by a free one, since the
/// port is announced.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn bind(settings: &Settings) -> anyhow::Result<Option<TcpListener>> {
    let Some((host, port)) = &settings.control else {
        return Ok(None);
    };
    pages::bind_or_next(host, *port, "the control API")
        .await
        .map(Some)
}

/// Serves the API until the scheduler closes.
pub async fn serve(server: Arc<Server>, listener: TcpListener) {
    let (sender, connections) = mpsc::channel::<io::Result<Connection>>(1);
    tokio::spawn(accept(Arc::clone(&server), listener, sender));
    let incoming = futures::stream::unfold(connections, |mut connections| async {
        connections.recv().await.map(|next| (next, connections))
    });
    let shutdown = server.shutdown.clone();
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_AFTER))
        .http2_keepalive_timeout(Some(PATIENCE))
        .add_service(ControlServer::new(ControlService::new(server)))
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await;
    if let Err(error) = served {
        warn!(
            error = &error as &dyn std::error::Error,
            "the control API ended"
        );
    }
}

/// Hands over connections whose handshake is complete; a slow one holds no other up.
async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    let tls = server.tls().map(|tls| {
        let mut config = rustls_of(tls);
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some((stream, peer)) = next(&server, &listener).await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            warn!(%peer, limit = MAX_CONNECTIONS, "connection to the control API refused: too many are open");
            continue;
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            let opened = tokio::time::timeout(PATIENCE, open(stream, tls, place)).await;
            match opened {
                // The receiver is gone when the scheduler closes.
                Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                Ok(Err(error)) => {
                    warn!(%peer, error = &error as &dyn std::error::Error, "connection to the control API refused");
                }
                Err(_) => debug!(%peer, "connection to the control API said nothing"),
            }
        });
    }
}

fn rustls_of(tls: &oxidask_protocol::comm::Tls) -> tokio_rustls::rustls::ServerConfig {
    tokio_rustls::rustls::ServerConfig::clone(&tls.server)
}

async fn open(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    place: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = match tls {
        Some(tls) => Stream::Tls(Box::new(tls.accept(stream).await?)),
        None => Stream::Tcp(stream),
    };
    Ok(Connection {
        stream: FirstByte::new(stream, PATIENCE),
        _place: place,
    })
}

/// A connection that counts for [`MAX_CONNECTIONS`] while it lives.
struct Connection {
    stream: FirstByte<Stream>,
    _place: OwnedSemaphorePermit,
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
