//! Where this worker listens, and the address that others are told.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use oxidask_protocol::address::{Address, Scheme};
use oxidask_settings::process::interface_address;
use tokio::net::TcpListener;

use crate::args::Args;

/// A listening socket, and the address to tell others.
pub(crate) async fn bind(args: &Args, scheduler: &str) -> Result<(TcpListener, String)> {
    let scheme = if scheduler.starts_with("tls") {
        Scheme::Tls
    } else {
        Scheme::Tcp
    };
    let mut listen = match &args.listen_address {
        Some(text) => Address::parse(text, scheme, Some(0))?,
        None => Address {
            scheme,
            host: args.host.clone().unwrap_or_default(),
            port: 0,
        },
    };
    if let Some(interface) = &args.interface {
        listen.host = interface_address(interface)?.to_string();
    }
    // The nth of several workers takes the nth port of the range, or the next that is free.
    let ports = ports(args.worker_port.as_deref())?;
    if listen.host.is_empty() {
        // The address by which the scheduler is reached, as stock chooses it.
        listen.host = own_address(scheduler).await;
    }
    let mut error = None;
    for port in ports {
        let port = if listen.port != 0 { listen.port } else { port };
        match TcpListener::bind((listen.host.as_str(), port)).await {
            Ok(listener) => {
                let port = listener.local_addr()?.port();
                let contact = match &args.contact_address {
                    Some(text) => {
                        let contact = Address::parse(text, scheme, Some(port))?;
                        Address {
                            port: if contact.port == 0 {
                                port
                            } else {
                                contact.port
                            },
                            ..contact
                        }
                    }
                    None => {
                        let host = listener.local_addr()?.ip();
                        let host = if host.is_unspecified() {
                            own_address(scheduler).await
                        } else {
                            host.to_string()
                        };
                        Address { scheme, host, port }
                    }
                };
                return Ok((listener, contact.to_string()));
            }
            Err(failed) => error = Some(failed),
        }
    }
    let error = error.map_or_else(|| "no port given".to_owned(), |error| error.to_string());
    bail!("failed to listen on {listen}: {error}")
}

fn ports(text: Option<&str>) -> Result<std::ops::RangeInclusive<u16>> {
    let Some(text) = text else { return Ok(0..=0) };
    let parse = |text: &str| {
        text.parse::<u16>()
            .with_context(|| format!("--worker-port: {text:?} is no port"))
    };
    match text.split_once(':') {
        Some((first, last)) => Ok(parse(first)?..=parse(last)?),
        None => parse(text).map(|port| port..=port),
    }
}

/// The local address of a route to the scheduler.
async fn own_address(scheduler: &str) -> String {
    let route = async {
        let address = Address::parse(scheduler, Scheme::Tcp, None).ok()?;
        let peer: SocketAddr = tokio::net::lookup_host((address.host.as_str(), address.port))
            .await
            .ok()?
            .next()?;
        let any: IpAddr = if peer.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
        socket.connect(peer).await.ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    route.await.unwrap_or_else(|| "127.0.0.1".to_owned())
}

/// A socket for HTTP, unless it is switched off: the address that is asked for, else any free port.
///
/// # Errors
/// If a port that was asked for is not free.
pub(crate) async fn dashboard(args: &Args) -> Result<Option<TcpListener>> {
    if !args.common.wants_dashboard() {
        return Ok(None);
    }
    let text = args.dashboard_address.as_deref().unwrap_or(":0");
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port: u16 = port
        .parse()
        .with_context(|| format!("--dashboard-address: {text:?} has no port"))?;
    let host = match host.trim_start_matches("http://") {
        "" => args.host.as_deref().unwrap_or("0.0.0.0"),
        host => host,
    };
    let listener = TcpListener::bind((host, port)).await;
    listener
        .map(Some)
        .with_context(|| format!("--dashboard-address: failed to listen on {host}:{port}"))
}
