//! Frames: how one message is cut into lengths and bytes.

mod decode;
mod encode;
mod memory;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use decode::SMALL;
pub use decode::{FrameDecoder, MessageHead};
pub use encode::{encode, encode_head};
pub use memory::{Memory, Room};

/// What a peer may announce, and how long it may be silent, before the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Frames in one message.
    pub frames: u64,
    /// Bytes of one message, all frames together.
    pub message_bytes: u64,
    /// How long the peer's host may leave bytes or probes unanswered (`distributed.comm.timeouts.tcp`).
    pub silence: Duration,
}

impl Default for Limits {
    /// One million frames and 64 GiB, far above what Dask sends (it cuts frames at 64 MiB); half a minute.
    fn default() -> Self {
        Self {
            frames: 1_000_000,
            message_bytes: 64 << 30,
            silence: Duration::from_secs(30),
        }
    }
}
