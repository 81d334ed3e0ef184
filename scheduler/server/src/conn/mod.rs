//! Connections: accepted ones, each with a task of its own, and those that we open.

mod backlog;
pub mod client;
pub(crate) mod first_byte;
pub mod listener;
pub mod outbox;
pub mod pool;
pub mod request;
pub mod worker;
