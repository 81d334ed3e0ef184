//! The control API: what the operator and the command line ask of a running scheduler.
//!
//! gRPC on a port of its own, announced in `GET /api/v1`. With certificates it takes only peers that show one of the
//! same authority, as Dask's own port does. What each call means stands in `control.proto`.

mod convert;
mod drain;
mod listener;
mod progress;
mod retire;
mod service;
mod watch;

pub use listener::{bind, serve};
