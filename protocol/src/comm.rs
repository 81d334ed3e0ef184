//! Messages over TCP and TLS (feature `comm`).
//!
//! [`connect`] and [`accept`] exchange the handshake; what comes after is the caller's. One side of a connection
//! reads, the other writes, so the halves can be owned by different tasks.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::address::{Address, Scheme};
use crate::frame::{FrameDecoder, Limits, Memory, MessageHead, encode};
use crate::handshake::Handshake;
use crate::message::{decode_one, encode_one};
use crate::wire::Encode;
use crate::{DecodeError, msgpack::Writer};

/// Buffers given to one `writev`.
const MAX_SLICES: usize = 64;

/// Probes of a silent connection before it is given up.
const PROBES: u32 = 10;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CommError {
    /// The network failed.
    #[error("connection to {peer} failed")]
    Io {
        /// The other side.
        peer: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The peer sent something that is no message.
    #[error("malformed message from {peer}")]
    Decode {
        /// The other side.
        peer: String,
        /// What is wrong, and where.
        #[source]
        source: DecodeError,
    },
    /// The peer closed the connection in the middle of a message, or where an answer was due.
    #[error("{0} closed the connection")]
    Closed(String),
    /// A wait came to its end.
    #[error("no answer from {peer} within {seconds} s")]
    Timeout {
        /// The other side.
        peer: String,
        /// How long was waited. Unit: seconds.
        seconds: f64,
    },
    /// TLS is asked for, but no certificates are configured.
    #[error("{0} asks for TLS, but no certificates are configured (distributed.comm.tls)")]
    NoTls(String),
}

/// How to speak TLS, for both directions. Without it only `tcp://` works.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For connections that we open.
    pub client: Arc<ClientConfig>,
    /// For connections that we accept.
    pub server: Arc<ServerConfig>,
}

#[derive(Debug)]
enum Input {
    Tcp(OwnedReadHalf),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

#[derive(Debug)]
enum Output {
    Tcp(OwnedWriteHalf),
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

/// The reading half of a connection.
#[derive(Debug)]
pub struct CommReader {
    input: Input,
    decoder: FrameDecoder,
    peer: String,
}

/// The writing half of a connection.
#[derive(Debug)]
pub struct CommWriter {
    output: Output,
    peer: String,
}

/// A connection after the handshake.
#[derive(Debug)]
pub struct Comm {
    /// Its reading half.
    pub reader: CommReader,
    /// Its writing half.
    pub writer: CommWriter,
    /// What the other side said about itself.
    pub handshake: Handshake,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// Their end of the connection.
    pub remote: SocketAddr,
}

/// Opens a connection and exchanges the handshake.
///
/// # Errors
/// If the peer cannot be reached or does not answer within `timeout`.
pub async fn connect(
    address: &Address,
    tls: Option<&Tls>,
    limits: Limits,
    timeout: Duration,
) -> Result<Comm, CommError> {
    let peer = address.to_string();
    let open = async {
        let stream = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .map_err(io(&peer))?;
        match address.scheme {
            Scheme::Tcp => Comm::handshake(Socket::Tcp(stream), peer.clone(), limits).await,
            Scheme::Tls => {
                let tls = tls.ok_or_else(|| CommError::NoTls(peer.clone()))?;
                // Host names are not checked, as in stock Dask: the certificate must come from the cluster's own CA.
                let name = tokio_rustls::rustls::pki_types::ServerName::IpAddress(
                    std::net::IpAddr::from([127, 0, 0, 1]).into(),
                );
                let stream = TlsConnector::from(Arc::clone(&tls.client))
                    .connect(name, stream)
                    .await
                    .map_err(io(&peer))?;
                Comm::handshake(
                    Socket::Tls(Box::new(TlsStream::Client(stream))),
                    peer.clone(),
                    limits,
                )
                .await
            }
        }
    };
    within(timeout, &peer, open).await
}

/// Takes a connection that a listener accepted and exchanges the handshake.
///
/// # Errors
/// If the peer speaks another protocol, or is silent for longer than `timeout`.
pub async fn accept(
    stream: TcpStream,
    tls: Option<&Tls>,
    limits: Limits,
    timeout: Duration,
) -> Result<Comm, CommError> {
    let peer = stream
        .peer_addr()
        .map_or_else(|_| "unknown peer".to_owned(), |address| address.to_string());
    let open = async {
        match tls {
            None => Comm::handshake(Socket::Tcp(stream), peer.clone(), limits).await,
            Some(tls) => {
                let stream = TlsAcceptor::from(Arc::clone(&tls.server))
                    .accept(stream)
                    .await
                    .map_err(io(&peer))?;
                Comm::handshake(
                    Socket::Tls(Box::new(TlsStream::Server(stream))),
                    peer.clone(),
                    limits,
                )
                .await
            }
        }
    };
    within(timeout, &peer, open).await
}

async fn within<T>(
    timeout: Duration,
    peer: &str,
    work: impl Future<Output = Result<T, CommError>>,
) -> Result<T, CommError> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(CommError::Timeout {
            peer: peer.to_owned(),
            seconds: timeout.as_secs_f64(),
        }),
    }
}

fn io(peer: &str) -> impl FnOnce(std::io::Error) -> CommError {
    let peer = peer.to_owned();
    move |source| CommError::Io { peer, source }
}

/// Lets the system close the connection when the peer's host has not answered for so long, as stock Dask does: nothing
/// in the protocol would tell a silent peer from one whose host is gone. The system counts probes in whole seconds, so
/// less than eleven seconds are taken as eleven.
fn notice_dead_peers(tcp: &TcpStream, silence: Duration) -> rustix::io::Result<()> {
    let silence = silence.max(Duration::from_secs(u64::from(PROBES) + 1));
    let interval = Duration::from_secs((silence.as_secs() * 3 / 4 / u64::from(PROBES)).max(1));
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, silence - interval * PROBES)?;
    sockopt::set_tcp_keepintvl(tcp, interval)?;
    sockopt::set_tcp_keepcnt(tcp, PROBES)?;
    let milliseconds = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(tcp, milliseconds)
}

enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Comm {
    async fn handshake(socket: Socket, peer: String, limits: Limits) -> Result<Self, CommError> {
        let tcp = match &socket {
            Socket::Tcp(stream) => stream,
            Socket::Tls(stream) => stream.get_ref().0,
        };
        tcp.set_nodelay(true).map_err(io(&peer))?;
        // A system that does not know one of the options can still carry messages.
        let _ = notice_dead_peers(tcp, limits.silence);
        let local = tcp.local_addr().map_err(io(&peer))?;
        let remote = tcp.peer_addr().map_err(io(&peer))?;
        let (input, output) = match socket {
            Socket::Tcp(stream) => {
                let (r, w) = stream.into_split();
                (Input::Tcp(r), Output::Tcp(w))
            }
            Socket::Tls(stream) => {
                let (r, w) = tokio::io::split(*stream);
                (Input::Tls(r), Output::Tls(w))
            }
        };
        let mut writer = CommWriter {
            output,
            peer: peer.clone(),
        };
        // Nobody may make us allocate before it has shown that it speaks Dask.
        let decoder = FrameDecoder::new(Limits {
            frames: 16,
            message_bytes: 64 * 1024,
            ..limits
        });
        let mut reader = CommReader {
            input,
            decoder,
            peer: peer.clone(),
        };
        writer.write(&encode_one(&Handshake::ours())).await?;
        let frames = reader
            .read()
            .await?
            .ok_or_else(|| CommError::Closed(peer.clone()))?;
        let handshake = decode_one(&frames).map_err(|source| CommError::Decode { peer, source })?;
        reader.decoder.set_limits(limits);
        Ok(Self {
            reader,
            writer,
            handshake,
            local,
            remote,
        })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// If the connection fails or closes.
    pub async fn request(&mut self, request: &impl Encode) -> Result<Vec<Bytes>, CommError> {
        self.writer.send(request).await?;
        self.reader
            .read()
            .await?
            .ok_or_else(|| CommError::Closed(self.reader.peer.clone()))
    }
}

/// One of the ways to ask a decoder for more.
type Next<T> = fn(&mut FrameDecoder) -> Result<Option<T>, DecodeError>;

impl CommReader {
    /// The next message, or `None` if the peer closed the connection between two messages.
    ///
    /// Cancel-safe: a read that is dropped loses no bytes.
    ///
    /// # Errors
    /// If the connection fails, ends in the middle of a message, or carries something else than messages.
    pub async fn read(&mut self) -> Result<Option<Vec<Bytes>>, CommError> {
        self.next(FrameDecoder::poll).await
    }

    /// As [`read`](Self::read), of a peer that may take its time but not rest: each wait for more bytes of the message
    /// ends after `patience`.
    ///
    /// # Errors
    /// As [`read`](Self::read), and if nothing comes for so long.
    pub async fn read_steadily(
        &mut self,
        patience: Duration,
    ) -> Result<Option<Vec<Bytes>>, CommError> {
        let peer = self.peer.clone();
        loop {
            let polled = self.poll(FrameDecoder::poll)?;
            if polled.is_some() || !within(patience, &peer, self.receive()).await? {
                return Ok(polled);
            }
        }
    }

    /// The beginning of the next message, or `None` if the peer closed the connection between two messages. The rest
    /// must be read with [`read_body`](Self::read_body) before anything else.
    ///
    /// Cancel-safe: a read that is dropped loses no bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_head(&mut self) -> Result<Option<MessageHead>, CommError> {
        self.next(FrameDecoder::poll_head).await
    }

    /// What `poll` gives as soon as enough has arrived, or `None` if the peer closed the connection before.
    async fn next<T>(&mut self, poll: Next<T>) -> Result<Option<T>, CommError> {
        loop {
            let polled = self.poll(poll)?;
            if polled.is_some() || !self.receive().await? {
                return Ok(polled);
            }
        }
    }

    fn poll<T>(&mut self, poll: Next<T>) -> Result<Option<T>, CommError> {
        poll(&mut self.decoder).map_err(|source| CommError::Decode {
            peer: self.peer.clone(),
            source,
        })
    }

    /// Some of the bytes that follow a head, `None` after the last.
    ///
    /// # Errors
    /// If the connection fails or ends before that.
    pub async fn read_body(&mut self) -> Result<Option<Bytes>, CommError> {
        loop {
            if let Some(bytes) = self.decoder.poll_body() {
                return Ok(Some(bytes));
            }
            if self.decoder.body_left() == 0 {
                return Ok(None);
            }
            self.receive().await?;
        }
    }

    /// Bytes of the present message that [`read_body`](Self::read_body) has not given.
    pub fn body_left(&self) -> usize {
        self.decoder.body_left()
    }

    /// Takes in bytes; false if the peer closed the connection between two messages.
    async fn receive(&mut self) -> Result<bool, CommError> {
        let n = if let Some(space) = self.decoder.lent() {
            let n = match &mut self.input {
                Input::Tcp(stream) => stream.read(space).await,
                Input::Tls(stream) => stream.read(space).await,
            }
            .map_err(io(&self.peer))?;
            self.decoder.filled(n);
            n
        } else {
            let (space, limit) = self.decoder.space();
            let mut space = bytes::BufMut::limit(space, limit);
            match &mut self.input {
                Input::Tcp(stream) => stream.read_buf(&mut space).await,
                Input::Tls(stream) => stream.read_buf(&mut space).await,
            }
            .map_err(io(&self.peer))?
        };
        if n == 0 && !self.decoder.is_between_messages() {
            return Err(CommError::Closed(self.peer.clone()));
        }
        Ok(n > 0)
    }

    /// Puts large frames of later messages into this memory, where it has room.
    pub fn set_memory(&mut self, memory: Arc<dyn Memory>) {
        self.decoder.set_memory(memory);
    }

    /// A message that has arrived already, without waiting.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_buffered(&mut self) -> Result<Option<Vec<Bytes>>, CommError> {
        self.poll(FrameDecoder::poll)
    }

    /// The other side, for log lines.
    pub fn peer(&self) -> &str {
        &self.peer
    }
}

impl CommWriter {
    /// Writes one message.
    ///
    /// Not cancel-safe, as all writing: a write that is dropped may leave half a message, so the connection must be
    /// dropped too.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn write(&mut self, frames: &[Bytes]) -> Result<(), CommError> {
        self.write_buffers(encode(frames)).await
    }

    /// Writes one value as a message.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn send(&mut self, value: &impl Encode) -> Result<(), CommError> {
        let mut w = Writer::new();
        value.encode(&mut w);
        self.write(&w.into_frames()).await
    }

    /// Writes buffers that [`encode`] made, of any number of messages.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn write_buffers(&mut self, buffers: Vec<Bytes>) -> Result<(), CommError> {
        match &mut self.output {
            Output::Tcp(stream) => write_all(stream, buffers).await,
            Output::Tls(stream) => write_all(stream, buffers).await,
        }
        .map_err(io(&self.peer))
    }

    /// Writes some of `buffers` if the connection takes them now.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.output {
            Output::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Output::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    /// Sends on what the TLS layer still holds back of the bytes written; nothing to do for TCP.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.output {
            Output::Tcp(_) => Poll::Ready(Ok(())),
            Output::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// The other side, for log lines.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Ends our side of the connection.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn shutdown(&mut self) -> Result<(), CommError> {
        match &mut self.output {
            Output::Tcp(stream) => stream.shutdown().await,
            Output::Tls(stream) => stream.shutdown().await,
        }
        .map_err(io(&self.peer))
    }
}

async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    buffers: Vec<Bytes>,
) -> std::io::Result<()> {
    let mut buffers: std::collections::VecDeque<Bytes> = buffers.into();
    while let Some(front) = buffers.front() {
        let mut written = if buffers.len() == 1 {
            stream.write(front).await?
        } else {
            let slices: Vec<IoSlice<'_>> = buffers
                .iter()
                .take(MAX_SLICES)
                .map(|b| IoSlice::new(b))
                .collect();
            stream.write_vectored(&slices).await?
        };
        if written == 0 && !front.is_empty() {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = buffers.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            buffers.pop_front();
        }
    }
    stream.flush().await
}
