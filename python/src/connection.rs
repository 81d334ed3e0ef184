//! Messages between us and a child, in the framing of Dask's comms (`oxidask/wire.py` is the other end).

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use bytes::{Buf, Bytes};
use oxidask_protocol::DecodeError;
use oxidask_protocol::frame::{FrameDecoder, Limits, encode};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// Most that a child may announce. It runs code of users, so it is a peer like any other.
const LIMITS: Limits = Limits {
    frames: 1 << 24,
    message_bytes: 64 << 30,
    // A socket of this machine is not silent because of the network.
    silence: Duration::MAX,
};

/// Buffers given to one `writev`.
const MAX_SLICES: usize = 64;

/// Why nothing more can be said to a child.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error("connection to the Python child failed")]
    Io(#[from] io::Error),
    /// The child sent something that is no message.
    #[error("malformed message from the Python child")]
    Decode(#[from] DecodeError),
    /// The child closed its end, most often because it ended.
    #[error("the Python child closed the connection")]
    Closed,
}

/// Our end of the socket that a child was started with.
#[derive(Debug)]
pub struct Connection {
    /// Messages from the child.
    pub reader: ConnectionReader,
    /// Messages to the child.
    pub writer: ConnectionWriter,
}

/// The reading half.
#[derive(Debug)]
pub struct ConnectionReader {
    input: OwnedReadHalf,
    decoder: FrameDecoder,
}

/// The writing half.
#[derive(Debug)]
pub struct ConnectionWriter {
    output: OwnedWriteHalf,
}

impl Connection {
    /// A connection over a socket whose other end a child has.
    pub fn new(stream: UnixStream) -> Self {
        let (input, output) = stream.into_split();
        Self {
            reader: ConnectionReader {
                input,
                decoder: FrameDecoder::new(LIMITS),
            },
            writer: ConnectionWriter { output },
        }
    }
}

impl ConnectionReader {
    /// The next message: its msgpack document, then its raw parts. May be dropped and called again.
    ///
    /// # Errors
    /// If the child has closed its end or sends what is no message.
    pub async fn read(&mut self) -> Result<Vec<Bytes>, ConnectionError> {
        loop {
            if let Some(frames) = self.decoder.poll()? {
                return Ok(frames);
            }
            let (space, limit) = self.decoder.space();
            let mut space = bytes::BufMut::limit(space, limit);
            if self.input.read_buf(&mut space).await? == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }
}

impl ConnectionWriter {
    /// Gives the writing to a task of its own, so that reading never waits for it: two sides that both only write
    /// would wait for each other. Messages that wait, up to `together` of them, are sent with one call.
    ///
    /// The task ends with the last sender or when the child has closed its end, which the reader notices too.
    pub fn into_outbox(mut self, together: usize) -> mpsc::UnboundedSender<Vec<Bytes>> {
        let (outbox, mut messages) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while messages.recv_many(&mut batch, together).await > 0 {
                if self.write(&batch).await.is_err() {
                    break;
                }
                batch.clear();
            }
        });
        outbox
    }

    /// Passes three descriptors with one byte. Only to a child that reads nothing else, since a descriptor is lost
    /// that is read together with other bytes.
    ///
    /// # Errors
    /// If the child has closed its end.
    pub(crate) async fn pass_fds(
        &mut self,
        fds: [BorrowedFd<'_>; 3],
    ) -> Result<(), ConnectionError> {
        let stream: &UnixStream = self.output.as_ref();
        let send = || {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&fds));
            let byte = [IoSlice::new(b"f")];
            Ok(sendmsg(stream, &byte, &mut control, SendFlags::empty())?)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
        Ok(())
    }

    /// Sends messages, each a document and its parts, in as few system calls as the socket allows.
    ///
    /// # Errors
    /// If the child has closed its end.
    pub async fn write(&mut self, messages: &[Vec<Bytes>]) -> Result<(), ConnectionError> {
        let mut buffers: Vec<Bytes> = messages.iter().flat_map(|frames| encode(frames)).collect();
        buffers.reverse();
        while !buffers.is_empty() {
            let slices: Vec<IoSlice<'_>> = buffers
                .iter()
                .rev()
                .take(MAX_SLICES)
                .map(|buffer| IoSlice::new(buffer))
                .collect();
            let mut sent = self.output.write_vectored(&slices).await?;
            if sent == 0 {
                return Err(ConnectionError::Closed);
            }
            while let Some(buffer) = buffers.last_mut() {
                let part = sent.min(buffer.len());
                buffer.advance(part);
                sent -= part;
                if !buffer.is_empty() {
                    break;
                }
                buffers.pop();
            }
        }
        Ok(())
    }
}
