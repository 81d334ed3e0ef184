//! Nannies that start.

use std::sync::Arc;

use oxidask_protocol::Value;
use oxidask_protocol::comm::{Comm, CommError};
use oxidask_protocol::message::rpc::Address;

use crate::server::Server;

/// `register_nanny`: gives a nanny its plugins and waits until its worker is up.
pub async fn starting(server: Arc<Server>, mut comm: Comm, body: Address) -> Result<(), CommError> {
    let plugins = server.plugins().nanny.to_pairs();
    server.plugins().starting_nannies.push(body.address.clone());
    let plugins = plugins
        .into_iter()
        .map(|(name, pickle)| (Value::from(name), Value::Bin(pickle)))
        .collect();
    let reply = Value::map([
        ("status", Value::from("OK")),
        ("nanny-plugins", Value::Map(plugins)),
    ]);
    let result = match comm.writer.send(&reply).await {
        Ok(()) => comm.reader.read().await.map(|_| ()),
        Err(error) => Err(error),
    };
    let mut plugins = server.plugins();
    if let Some(at) = plugins
        .starting_nannies
        .iter()
        .position(|address| *address == body.address)
    {
        plugins.starting_nannies.remove(at);
    }
    plugins.nanny_started.notify_waiters();
    result
}
