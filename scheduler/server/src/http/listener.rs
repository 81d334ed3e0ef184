//! Accepts connections for the pages and closes those that say nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::conn::first_byte::FirstByte;

/// A listener whose connections must send something soon.
#[derive(Debug)]
pub(super) struct Impatient {
    listener: TcpListener,
    patience: Duration,
}

impl Impatient {
    pub(super) fn new(listener: TcpListener, patience: Duration) -> Self {
        Self { listener, patience }
    }
}

impl axum::serve::Listener for Impatient {
    type Io = FirstByte<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
        (FirstByte::new(stream, self.patience), peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
