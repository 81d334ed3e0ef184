//! The answer to a client, passed on from the workers' connections piece by piece.
//!
//! Once the lengths are written there is no way back: a worker that dies in the middle is replaced by another holder
//! of its keys, or by itself when it has them again, if these are serialised to the same lengths. Otherwise the
//! client's connection ends.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::comm::{Comm, CommError, CommReader, CommWriter};
use oxidask_protocol::frame::encode_head;
use oxidask_protocol::wire::Omit;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::Event;
use oxidask_scheduler_core::action::TaskStateName;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::part::{Body, Part, head_of};
use super::{Gathered, acknowledge, fetch, refusal};
use crate::server::Server;

/// How long a client may take nothing of its answer, a worker bring nothing, and a lost result not be there again.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time between two looks for a holder of a lost result.
const LOOK: Duration = Duration::from_millis(50);

/// Writes what was gathered.
///
/// # Errors
/// If the client's connection fails, or can only be given up because results were lost in the middle.
pub(crate) async fn relay(
    server: &Arc<Server>,
    gathered: Gathered,
    client: &mut CommWriter,
) -> Result<(), CommError> {
    let (parts, serializers) = match gathered {
        Gathered::Failed(keys) => return client.write(&[refusal(&keys)]).await,
        Gathered::Parts { parts, serializers } => (parts, serializers),
    };
    let (document, lengths) = head_of(&parts);
    // A client is woken once for what is at hand.
    let mut at_hand = vec![encode_head(&document, &lengths)];
    for mut part in parts {
        match std::mem::replace(&mut part.body, Body::Held(Vec::new())) {
            Body::Held(pieces) => at_hand.extend(pieces),
            Body::Waiting(comm, address) => {
                write(client, std::mem::take(&mut at_hand)).await?;
                let source = (*comm, &address);
                pass_on_part(server, &part, source, &serializers, client).await?;
            }
        }
    }
    if at_hand.is_empty() {
        return Ok(());
    }
    write(client, at_hand).await
}

/// Why passing on stopped.
enum Stop {
    /// The client's connection cannot go on.
    Client(CommError),
    /// The worker's connection cannot go on.
    Worker(CommError),
}

async fn pass_on_part(
    server: &Arc<Server>,
    part: &Part,
    (mut comm, address): (Comm, &Arc<str>),
    serializers: &Omit<Value>,
    client: &mut CommWriter,
) -> Result<(), CommError> {
    let mut passed = 0;
    match pass_on(&mut comm.reader, 0, &mut passed, client).await {
        Ok(()) => {
            acknowledge(Arc::clone(server), comm, Arc::clone(address)).await;
            return Ok(());
        }
        Err(Stop::Client(error)) => return Err(error),
        Err(Stop::Worker(error)) => {
            warn!(worker = %address, %error, passed, "worker failed in the middle of its results; they are fetched again");
        }
    }
    drop(comm);
    for (key, lengths) in part.payloads() {
        let size = lengths.iter().sum();
        if passed >= size {
            passed -= size;
            continue;
        }
        let done = std::mem::take(&mut passed);
        let lost = Lost { key, lengths, done };
        fetch_again(server, lost, serializers, client).await?;
    }
    Ok(())
}

/// Passes the rest of a message on, without its first `skip` bytes. `passed` counts the others.
async fn pass_on(
    worker: &mut CommReader,
    mut skip: usize,
    passed: &mut usize,
    client: &mut CommWriter,
) -> Result<(), Stop> {
    loop {
        let piece = timeout(PATIENCE, worker.read_body()).await;
        let piece = piece
            .unwrap_or_else(|_| Err(too_slow(worker.peer())))
            .map_err(Stop::Worker)?;
        let Some(mut piece) = piece else {
            return Ok(());
        };
        let cut = skip.min(piece.len());
        skip -= cut;
        let piece = piece.split_off(cut);
        if piece.is_empty() {
            continue;
        }
        *passed += piece.len();
        write(client, vec![piece]).await.map_err(Stop::Client)?;
    }
}

/// A result whose worker failed in the middle.
struct Lost<'a> {
    key: &'a Key,
    /// Of its frames.
    lengths: &'a [usize],
    /// How many of its bytes were passed on before.
    done: usize,
}

/// Passes on the rest of one result from whoever has it, as soon as somebody has.
async fn fetch_again(
    server: &Arc<Server>,
    Lost {
        key,
        lengths,
        mut done,
    }: Lost<'_>,
    serializers: &Omit<Value>,
    client: &mut CommWriter,
) -> Result<(), CommError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let holder = {
            let driver = server.driver();
            let state = driver.core().task_state(key);
            if matches!(
                state,
                None | Some(TaskStateName::Erred | TaskStateName::Forgotten)
            ) {
                return Err(lost(client, key, "it cannot be computed again"));
            }
            let mut holders = driver.core().who_has(key).into_iter();
            holders.find_map(|id| Some((id, Arc::clone(&driver.workers.get(id)?.address))))
        };
        if Instant::now() > deadline {
            return Err(lost(client, key, "nobody has had it again in time"));
        }
        let Some((id, address)) = holder else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let keys = [key.clone()];
        // Without room, what comes stays in the connection.
        let fetched = fetch(server, &address, &keys, serializers, &AtomicUsize::new(0)).await;
        let part = match fetched {
            Ok(part) => part,
            Err(error) => {
                debug!(worker = %address, %error, "a holder of a lost result fails too");
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        let Body::Waiting(mut comm, _) = part.body else {
            let missing = vec![(key.clone(), id)];
            server.driver().handle(Event::ReplicasMissing { missing });
            continue;
        };
        if part.lengths != lengths {
            return Err(lost(client, key, "it has another size now"));
        }
        let mut passed = 0;
        let result = pass_on(&mut comm.reader, done, &mut passed, client).await;
        done += passed;
        match result {
            Ok(()) => {
                acknowledge(Arc::clone(server), *comm, address).await;
                return Ok(());
            }
            Err(Stop::Client(error)) => return Err(error),
            Err(Stop::Worker(error)) => {
                warn!(worker = %address, %error, key = %key, "worker failed in the middle of a result");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

async fn write(client: &mut CommWriter, pieces: Vec<Bytes>) -> Result<(), CommError> {
    let peer = client.peer().to_owned();
    timeout(PATIENCE, client.write_buffers(pieces))
        .await
        .unwrap_or_else(|_| Err(too_slow(&peer)))
}

fn too_slow(peer: &str) -> CommError {
    CommError::Timeout {
        peer: peer.to_owned(),
        seconds: PATIENCE.as_secs_f64(),
    }
}

fn lost(client: &CommWriter, key: &Key, why: &str) -> CommError {
    let text = format!("result {key} was lost while it was sent, and {why}");
    CommError::Io {
        peer: client.peer().to_owned(),
        source: std::io::Error::other(text),
    }
}
