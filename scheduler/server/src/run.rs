//! Builds a scheduler, runs it until it is told to stop.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use oxidask_protocol::address::{Address, Scheme};
use oxidask_settings::process::{self, OwnFile};
use oxidask_settings::telemetry::LogBuffer;
use tokio::net::{TcpListener, TcpSocket};
use tracing::{info, warn};

use crate::conn::listener::listen;
use crate::http::pages;
use crate::server::{Addresses, Server};
use crate::settings::Settings;
use crate::{chores, control, idle, questions};

/// Listens, tells where (`ready`), and runs until a signal or `terminate` ends it.
///
/// # Errors
/// If an address cannot be listened on.
pub async fn run(
    settings: Settings,
    log: LogBuffer,
    ready: impl FnOnce(&Arc<Server>),
) -> anyhow::Result<()> {
    let _pid_file = own_file(settings.pid_file.as_deref(), OwnFile::pid)?;
    let (server, work) = Server::new(settings, log);
    let mut contact = Vec::new();
    let mut listeners = Vec::new();
    for address in server.settings.listen.clone() {
        let listener = bind(&address, server.settings.backlog).await?;
        let port = listener.local_addr()?.port();
        contact.push(contact_address(&server.settings, &address, port).to_string());
        let tls = match address.scheme {
            Scheme::Tcp => None,
            Scheme::Tls => Some(
                server
                    .tls()
                    .cloned()
                    .with_context(|| format!("{address} asks for TLS, but no certificates are configured (distributed.comm.tls.scheduler)"))?,
            ),
        };
        listeners.push((listener, tls));
    }
    let dashboard = pages::bind(&server.settings).await?;
    let dashboard_port = match &dashboard {
        Some(listener) => listener.local_addr()?.port(),
        None => 0,
    };
    let control = control::bind(&server.settings).await?;
    let control_port = match &control {
        Some(listener) => Some(listener.local_addr()?.port()),
        None => None,
    };
    server.listening(Addresses {
        contact: contact.clone(),
        dashboard: dashboard_port,
        control: control_port,
    });
    for address in &contact {
        info!("  Scheduler at: {address:>25}");
    }
    if let Some(listener) = dashboard {
        info!("  dashboard at: {:>25}", listener.local_addr()?);
        tokio::spawn(pages::serve(Arc::clone(&server), listener));
    }
    if let Some(listener) = control {
        info!("control API at: {:>23}", listener.local_addr()?);
        tokio::spawn(control::serve(Arc::clone(&server), listener));
    }
    let identity = pages::identity(&server);
    let _scheduler_file = own_file(server.settings.scheduler_file.as_deref(), |path| {
        OwnFile::write(path, identity)
    })?;
    for (listener, tls) in listeners {
        tokio::spawn(listen(Arc::clone(&server), listener, tls));
    }
    let flusher = Arc::clone(&server.flusher);
    tokio::spawn(async move { flusher.run().await });
    tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.keep_time().await }
    });
    tokio::spawn(chores::run(Arc::clone(&server), work.chores));
    tokio::spawn(questions::run(Arc::clone(&server), work.questions));
    tokio::spawn(idle::watch(Arc::clone(&server)));
    tokio::spawn(process::return_when_at_rest());
    ready(&server);
    let mut stopped = Box::pin(stopped(&server));
    let reason = tokio::select! {
        biased;
        reason = &mut stopped => reason?,
        preloaded = preload(&server) => {
            preloaded?;
            stopped.await?
        }
    };
    info!(reason, "scheduler is closing");
    close(&server).await;
    Ok(())
}

/// Runs the modules of `--preload`, and policies of the memory manager, in the process beside the scheduler.
async fn preload(server: &Server) -> anyhow::Result<()> {
    if server.settings.python_policies {
        server.aside.memory_policies().await.context(
            "failed to start the policies of distributed.scheduler.active-memory-manager",
        )?;
    }
    if server.settings.preload.is_empty() {
        return Ok(());
    }
    let (modules, argv) = server.settings.preload.iter().cloned().unzip();
    server
        .aside
        .preload(modules, argv)
        .await
        .context("failed to preload")
}

/// A file that goes with the process, if one is asked for.
fn own_file(
    path: Option<&Path>,
    write: impl FnOnce(&Path) -> std::io::Result<OwnFile>,
) -> anyhow::Result<Option<OwnFile>> {
    path.map(|path| write(path).with_context(|| format!("failed to write {}", path.display())))
        .transpose()
}

/// Waits for what ends the scheduler and says what it was.
async fn stopped(server: &Server) -> anyhow::Result<String> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    Ok(tokio::select! {
        biased;
        _ = terminate.recv() => "SIGTERM".to_owned(),
        _ = interrupt.recv() => "SIGINT".to_owned(),
        reason = server.stop_reason() => reason,
    })
}

/// How long peers may take to hear that the scheduler closes.
const FAREWELL: std::time::Duration = std::time::Duration::from_millis(500);

/// How long plugins and preloads may take for their end.
const TEARDOWN: std::time::Duration = std::time::Duration::from_secs(5);

/// Tells all workers to shut down, then ends every connection.
async fn close(server: &Arc<Server>) {
    let outboxes: Vec<_> = {
        let driver = server.driver();
        driver
            .workers
            .iter()
            .map(|peer| {
                peer.outbox
                    .send(|w| crate::translate::to_worker::close(w, "scheduler-close"));
                peer.outbox.send(crate::translate::to_worker::close_stream);
                Arc::clone(&peer.outbox)
            })
            .collect()
    };
    let farewell = async {
        for outbox in &outboxes {
            outbox.flushed().await;
        }
    };
    let (told, closed) = tokio::join!(
        tokio::time::timeout(FAREWELL, farewell),
        tokio::time::timeout(TEARDOWN, server.aside.close()),
    );
    if told.is_err() {
        warn!("some workers did not take the last message in time");
    }
    if closed.is_err() {
        warn!("plugins and preloads did not end in time");
    }
    server.shutdown.cancel();
    // Connection tasks see the token when they run next.
    tokio::task::yield_now().await;
}

async fn bind(address: &Address, backlog: u32) -> anyhow::Result<TcpListener> {
    let host = if address.host.is_empty() {
        "0.0.0.0"
    } else {
        address.host.as_str()
    };
    let resolved = tokio::net::lookup_host((host, address.port))
        .await
        .with_context(|| format!("failed to resolve {host}"))?;
    let mut last = None;
    for socket_address in resolved {
        let socket = if socket_address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        match socket
            .bind(socket_address)
            .and_then(|()| socket.listen(backlog))
        {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into());
    Err(error).with_context(|| format!("failed to listen on {host}:{}", address.port))
}

/// The address that peers are told: that of the settings, or the one listened on, with this machine's own address
/// in place of "all".
fn contact_address(settings: &Settings, listen: &Address, port: u16) -> Address {
    if let Some(text) = &settings.contact_address
        && let Ok(address) = Address::parse(text, listen.scheme, Some(port))
    {
        return Address {
            port: if address.port == 0 {
                port
            } else {
                address.port
            },
            ..address
        };
    }
    let host = match listen.host.as_str() {
        "" | "0.0.0.0" | "::" => own_address(),
        host => host.to_owned(),
    };
    Address {
        scheme: listen.scheme,
        host,
        port,
    }
}

/// The address under which other machines reach this one: that of the route to the outside. Nothing is sent.
fn own_address() -> String {
    let route = || -> std::io::Result<String> {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        // An address of the documentation range; a UDP socket that connects only looks the route up.
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip().to_string())
    };
    route().unwrap_or_else(|_| "127.0.0.1".to_owned())
}
