//! What needs the scheduler's own Python process.

use std::sync::Arc;

use oxidask_protocol::Value;
use oxidask_protocol::comm::{Comm, CommError};
use oxidask_protocol::message::encode_one;
use oxidask_protocol::message::rpc::{Failure, Feed, RunFunction};

use super::reply::Refusal;
use super::{Answer, Outcome, plugins};
use crate::aside::{AsideError, FeedRequest, RunFunction as Function};
use crate::server::Server;

/// An exception of that process, for the caller.
pub(super) fn refusal(error: AsideError) -> Refusal {
    Box::new(Failure {
        status: "uncaught-error".to_owned(),
        exception: Value::Payload(error.exception),
        traceback: error.traceback.map_or(Value::Nil, Value::Payload),
        exception_text: error.exception_text,
        traceback_text: error.traceback_text,
    })
}

/// `run_function`: what `Client.run_on_scheduler` sends.
pub(super) async fn run_function(server: &Arc<Server>, body: RunFunction) -> Outcome {
    let request = Function {
        function: body.function,
        args: body.args.0.unwrap_or_default(),
        kwargs: body.kwargs.0.unwrap_or_default(),
        wait: body.wait,
    };
    let message = server.aside.run_function(request).await.map_err(refusal)?;
    // The function may have added a plugin.
    plugins::observe(server);
    Ok(Answer::message(message))
}

/// An operation that takes Dask's own code, such as a report drawn with bokeh.
pub(super) async fn operation(server: &Arc<Server>, name: &str, args: Value) -> Outcome {
    let message = server.aside.operation(name, args).await.map_err(refusal)?;
    Ok(Answer::message(message))
}

/// `versions`: those of the Python environment that graphs are opened in.
pub(super) async fn versions(server: &Arc<Server>, packages: Value) -> Outcome {
    let message = server.aside.versions(packages).await.map_err(refusal)?;
    Ok(Answer::message(message))
}

/// `feed`: a stream of what a Python function finds out, until the peer leaves.
pub async fn feed(server: Arc<Server>, mut comm: Comm, body: Feed) -> Result<(), CommError> {
    let mut feed = server.aside.feed(FeedRequest {
        setup: body.setup.unwrap_or_default(),
        function: body.function.unwrap_or_default(),
        teardown: body.teardown.unwrap_or_default(),
        interval: body.interval.0.into(),
    });
    loop {
        tokio::select! {
            biased;
            message = feed.next() => match message {
                Some(Ok(message)) => comm.writer.write(&message).await?,
                Some(Err(error)) => {
                    return comm.writer.write(&encode_one(&*refusal(error))).await;
                }
                None => return Ok(()),
            },
            frames = comm.reader.read() => match frames {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Ok(()),
            },
        }
    }
}
