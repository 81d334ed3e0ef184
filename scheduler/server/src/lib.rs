//! Dask's scheduler as a server: connections, graph intake and operations around the core.
//!
//! One thread runs everything: [`run`] listens, each connection has a task ([`conn`]), all that happens goes
//! through the one [`driver`], and what the core asks for is written into the peers' outboxes
//! ([`conn::outbox`]), which leave when the tasks that were ready together have run.

pub mod args;
pub mod aside;
pub mod chores;
pub mod clock;
pub mod config;
mod config_keys;
pub mod conn;
pub mod control;
pub mod coordinate;
pub mod driver;
pub mod extensions;
pub mod graph;
pub mod graph_log;
pub mod http;
pub mod idle;
mod listen;
pub mod membership;
pub mod observe;
pub mod peers;
pub mod plugins;
pub mod questions;
pub mod rpc;
pub mod run;
pub mod server;
pub mod settings;
pub mod steal_log;
pub mod task_metadata;
pub mod task_stream;
pub mod translate;
pub mod versions;
