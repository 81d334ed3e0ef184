//! The dask-worker binary.
//!
//! [`run::run`] puts the parts together. One task owns the state machine and the store and does whatever one input
//! after the other asks for (`driver`); everything that waits (the scheduler's stream, peers, the executor's
//! sockets, timers) is a task of its own that sends inputs and takes orders through channels.

mod address;
pub mod args;
mod clock;
mod driver;
mod executor;
mod families;
mod folder;
mod http;
mod input;
mod limits;
mod listener;
mod metrics;
mod neighbours;
mod outbox;
pub mod run;
mod scheduler;
mod settings;
mod shared;
mod store;
mod stream;
mod transfer;
