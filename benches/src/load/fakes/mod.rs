//! Workers and clients that speak the real protocol and do next to nothing else.

mod client;
mod worker;

use std::time::Duration;

use anyhow::{Context, Result};
use oxidask_protocol::Value;
use oxidask_protocol::address::Address;
use oxidask_protocol::comm::{Comm, connect};
use oxidask_protocol::frame::Limits;

pub(crate) use client::FakeClient;
pub(crate) use worker::{FakeWorkers, LARGE};

/// Time for a connection to a scheduler that is busy with a thousand others.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to the scheduler.
pub(crate) async fn open(address: &Address) -> Result<Comm> {
    connect(address, None, Limits::default(), PATIENCE)
        .await
        .with_context(|| format!("failed to connect to {address}"))
}

/// A request as a map of fields.
pub(crate) fn call<const N: usize>(op: &str, fields: [(&str, Value); N]) -> Value {
    let named = [("op", Value::from(op)), ("reply", true.into())];
    Value::map(named.into_iter().chain(fields))
}
