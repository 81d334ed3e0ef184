//! Requests of one connection, strictly one after the other, until it becomes a stream or ends.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_protocol::comm::{Comm, CommError};
use oxidask_protocol::message::rpc::{Envelope, Failure, ToScheduler};
use oxidask_protocol::message::{decode_one, encode_one, peek_op};
use oxidask_protocol::msgpack::Reader;
use oxidask_protocol::wire::Decode;
use oxidask_protocol::{DecodeError, DecodeErrorKind, Value};
use tracing::{debug, warn};

use super::{client, worker};
use crate::rpc::gather::{self, Gathered};
use crate::rpc::{self, Outcome};
use crate::server::Server;

/// Answers requests until the peer closes the connection or turns it into a stream.
pub async fn serve(server: Arc<Server>, comm: Comm) {
    let peer = comm.remote;
    if let Err(error) = requests(Arc::clone(&server), comm).await {
        server.count_malformed(&error);
        warn!(%peer, error = &error as &dyn std::error::Error, "connection closed");
    }
}

async fn requests(server: Arc<Server>, mut comm: Comm) -> Result<(), CommError> {
    let mut early = None;
    loop {
        let frames = match early.take() {
            Some(frames) => frames,
            None => match comm.reader.read().await {
                Ok(Some(frames)) => frames,
                Ok(None) | Err(CommError::Io { .. }) => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        let (envelope, call) = match decode(&frames) {
            Ok(request) => request,
            Err(Refusal::Malformed(source)) => {
                let peer = comm.reader.peer().to_owned();
                return Err(CommError::Decode { peer, source });
            }
            Err(Refusal::Wrong(wrong)) => {
                let (envelope, failure) = *wrong;
                debug!(peer = %comm.remote, error = failure.exception_text, "request refused");
                if envelope.reply {
                    comm.writer.write(&encode_one(&failure)).await?;
                }
                continue;
            }
        };
        drop(frames);
        // Somebody speaks Dask: graphs will come, and the first shall not wait for an interpreter to start.
        if !envelope.native && !is_without_python(&call) {
            server.warmed.call_once(|| server.intake.warm());
        }
        if server
            .settings
            .blocked_handlers
            .iter()
            .any(|op| op == call.op())
        {
            let text = format!(
                "The '{}' handler has been explicitly disallowed in Scheduler, possibly due to security concerns.",
                call.op()
            );
            if envelope.reply {
                let failure = Failure::builtin("ValueError", &text);
                comm.writer.write(&encode_one(&failure)).await?;
            }
            continue;
        }
        match call {
            ToScheduler::RegisterClient(body) => {
                return client::stream(server, comm, body, envelope.native).await;
            }
            ToScheduler::RegisterWorker(body) => {
                return worker::stream(server, comm, body).await;
            }
            ToScheduler::RegisterNanny(body) => {
                return rpc::nanny::starting(server, comm, body).await;
            }
            ToScheduler::SubscribeWorkerStatus(_) => {
                return rpc::status::watch(server, comm).await;
            }
            ToScheduler::Feed(body) => return rpc::python::feed(server, comm, body).await,
            ToScheduler::Close(_) => {
                if envelope.reply {
                    comm.writer.send(&"OK".to_owned()).await?;
                }
                return comm.writer.shutdown().await;
            }
            call => {
                let Some(answer) = answer(&server, &mut comm, call, &mut early).await? else {
                    return Ok(());
                };
                if envelope.reply {
                    match answer {
                        Reply::Whole(Ok(answer)) => {
                            comm.writer.write(&answer.into_frames()).await?;
                        }
                        Reply::Whole(Err(failure)) => {
                            comm.writer.write(&encode_one(&*failure)).await?;
                        }
                        Reply::Results(gathered) => {
                            gather::relay(&server, gathered, &mut comm.writer).await?;
                        }
                    }
                }
                if envelope.close {
                    return comm.writer.shutdown().await;
                }
            }
        }
    }
}

/// What a request is answered with.
enum Reply {
    Whole(Outcome),
    /// Results that may not be here yet.
    Results(Gathered),
}

async fn run(server: Arc<Server>, call: ToScheduler) -> Reply {
    match call {
        ToScheduler::Gather(body) => {
            Reply::Results(gather::gather(&server, body, gather::ROOM).await)
        }
        call => Reply::Whole(rpc::answer(server, call).await),
    }
}

/// Runs a request while watching whether the peer is still there. `None` if it went; what only waits for its sake
/// is then given up, all else is carried out to its end.
async fn answer(
    server: &Arc<Server>,
    comm: &mut Comm,
    call: ToScheduler,
    early: &mut Option<Vec<Bytes>>,
) -> Result<Option<Reply>, CommError> {
    let waits = rpc::only_waits(&call);
    let mut running = Box::pin(run(Arc::clone(server), call));
    loop {
        tokio::select! {
            biased;
            answer = &mut running => return Ok(Some(answer)),
            next = comm.reader.read(), if early.is_none() => match next {
                Ok(Some(frames)) => *early = Some(frames),
                Ok(None) | Err(CommError::Io { .. }) => {
                    if !waits {
                        tokio::spawn(running);
                    }
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        }
    }
}

/// Why a message is no request that we can run.
enum Refusal {
    /// The bytes are damaged, or no map with an `op`: the connection cannot go on.
    Malformed(DecodeError),
    /// The operation or its arguments are wrong: the caller is told, the connection goes on.
    Wrong(Box<(Envelope, Failure)>),
}

/// Reads a request that does not come from a connection.
///
/// # Errors
/// What the caller is to raise.
pub fn decode_call(frames: &[Bytes]) -> Result<ToScheduler, Box<Failure>> {
    match decode(frames) {
        Ok((_, call)) => Ok(call),
        Err(Refusal::Wrong(wrong)) => Err(Box::new(wrong.1)),
        Err(Refusal::Malformed(error)) => {
            Err(Box::new(Failure::builtin("ValueError", &error.to_string())))
        }
    }
}

fn decode(frames: &[Bytes]) -> Result<(Envelope, ToScheduler), Refusal> {
    let reader = Reader::of_message(frames).map_err(Refusal::Malformed)?;
    let op = peek_op(&reader).map_err(Refusal::Malformed)?;
    // Whatever else is wrong, a document that is damaged ends the connection.
    let mut whole = reader.clone();
    whole
        .skip()
        .and_then(|()| whole.finish())
        .map_err(Refusal::Malformed)?;
    let envelope = decode_envelope(&reader);
    match decode_one::<ToScheduler>(frames) {
        Ok(ToScheduler::Unknown(op)) => {
            let text = format!("unknown operation {op:?}: this scheduler has no such handler");
            Err(Refusal::Wrong(Box::new((
                envelope,
                Failure::builtin("ValueError", &text),
            ))))
        }
        Ok(call) => Ok((envelope, call)),
        Err(error) => {
            let text = match &error.kind {
                DecodeErrorKind::MissingField { field, .. } => {
                    format!("{op}() missing required argument: {field:?}")
                }
                _ => format!("{op}() got a wrong argument: {error}"),
            };
            Err(Refusal::Wrong(Box::new((
                envelope,
                Failure::builtin("TypeError", &text),
            ))))
        }
    }
}

fn decode_envelope(reader: &Reader<'_>) -> Envelope {
    Envelope::decode(&mut reader.clone()).unwrap_or(Envelope {
        reply: true,
        close: false,
        serializers: oxidask_protocol::wire::Omit(Some(Value::Nil)),
        native: false,
    })
}
/// Whether a worker speaks that has no interpreter itself, or is heard after its registration.
fn is_without_python(call: &ToScheduler) -> bool {
    match call {
        ToScheduler::RegisterWorker(body) => body
            .versions
            .field("packages")
            .and_then(Value::as_map)
            .is_some_and(<[_]>::is_empty),
        ToScheduler::RegisterNanny(_) | ToScheduler::HeartbeatWorker(_) => true,
        _ => false,
    }
}
