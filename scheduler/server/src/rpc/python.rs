//! What needs the scheduler's own Python process.

use std::sync::Arc;

use oxidask_protocol::Value;
use oxidask_protocol::comm::{Comm, CommError};
use oxidask_protocol::message::encode_one;
use oxidask_protocol::message::rpc::{Failure, Feed};

use crate::server::Server;

/// Versions of the packages that graphs are opened with.
pub(super) async fn versions(_server: &Arc<Server>) -> Value {
    Value::map([
        ("host", Value::Map(Vec::new())),
        ("packages", Value::Map(Vec::new())),
    ])
}

/// `feed`: a stream of what a Python function finds out.
pub async fn feed(_server: Arc<Server>, mut comm: Comm, _body: Feed) -> Result<(), CommError> {
    let text = "this scheduler does not support the operation \"feed\" yet";
    let failure = Failure::builtin("NotImplementedError", text);
    comm.writer.write(&encode_one(&failure)).await
}
