//! Dask's comm protocol: frames, msgpack documents, keys, payloads and typed messages.
//!
//! One message on the wire, all integers little-endian `u64`:
//!
//! ```text
//! N | F | len[0] … len[F-1] | frame[0] | frame[1] | … | frame[F-1]
//!     └──────── N bytes, ending after any frame ─────┘
//! ```
//!
//! Frame 0 is one msgpack document ([`msgpack`]); the other frames belong to out-of-band values that the
//! document refers to by index ([`Payload`]) and that this crate never opens.
//!
//! The way of a message: [`frame::FrameDecoder`] (bytes → frames) → [`message`] (frames → typed message), and
//! back through [`msgpack::Writer`] and [`frame::encode`].
//!
//! Nothing here knows a runtime, except [`comm`] (feature `comm`), which moves messages over TCP and TLS.
//! Recorded from distributed 2026.8.0. `docs/protocol.md` describes all of it; its §7 lists what differs from 2025.4 on.

#[macro_use]
pub mod wire;

pub mod address;
#[cfg(feature = "comm")]
pub mod comm;
pub mod compression;
mod error;
pub mod exception;
pub mod frame;
pub mod handshake;
mod key;
pub mod message;
pub mod msgpack;
pub mod native;
pub mod numpy;
mod payload;
#[cfg(test)]
mod sample;
mod value;

pub use error::{DecodeError, DecodeErrorDetail, DecodeErrorKind, Place};
pub use key::{Key, KeyError};
pub use payload::{Frames, Payload, PayloadKind, PickleTooLarge};
pub use value::Value;
