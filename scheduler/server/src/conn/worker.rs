//! The stream of a worker: registration, then messages until it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use oxidask_protocol::comm::{Comm, CommError};
use oxidask_protocol::message::decode_batch;
use oxidask_protocol::message::rpc::Failure;
use oxidask_protocol::message::worker::{FromWorker, RegisterWorker};
use oxidask_protocol::wire::Pairs;
use oxidask_protocol::{Value, message::encode_one};
use oxidask_scheduler_core::event::WorkerStatus;
use oxidask_scheduler_core::{Event, WorkerId, heartbeat_interval};
use tracing::{debug, info, warn};

use super::outbox::Outbox;
use crate::clock::unix_time;
use crate::coordinate;
use crate::driver::Driver;
use crate::extensions::topics;
use crate::membership;
use crate::peers::{
    Memory, PeerName, WorkerPeer, distributed_version, host_of, normalise_address, range,
    takes_duration, wire_str,
};
use crate::server::Server;
use crate::translate::from_worker::{FromWorkers, amounts, seconds};
use crate::{steal_log, task_stream, versions};

/// Registers a worker and handles what it says until its stream ends.
pub async fn stream(
    server: Arc<Server>,
    mut comm: Comm,
    body: RegisterWorker,
) -> Result<(), CommError> {
    let address = normalise_address(&body.address);
    let taken = {
        let driver = server.driver();
        let name = PeerName::from_value(&body.name);
        let outside = range::refusal(&body.versions, &format!("worker {address}"));
        if let Some(text) = outside {
            warn!("{text}");
            Some(encode_one(&Value::map([
                ("status", Value::from("error")),
                ("message", text.into()),
                ("time", unix_time().into()),
            ])))
        } else if let Err(reason) = amounts(&body.resources.0) {
            Some(encode_one(&Failure::builtin("ValueError", &reason)))
        } else if let Some(name) = name.as_ref().filter(|name| driver.workers.is_barred(name)) {
            let name = name.text();
            info!(worker = %address, name, "a worker that was retired for good wants to come back");
            Some(encode_one(&Value::map([
                ("status", Value::from("error")),
                (
                    "message",
                    format!("worker {name} was retired and may not come back").into(),
                ),
                ("time", unix_time().into()),
            ])))
        } else if driver.workers.by_address(&address).is_some() {
            let text = format!("Worker already exists {address}");
            Some(encode_one(&Failure::builtin("ValueError", &text)))
        } else {
            name.filter(|name| driver.workers.by_name(name).is_some())
                .map(|name| {
                    let name = name.text();
                    warn!(worker = %address, name, "a worker wants a name that is taken");
                    encode_one(&Value::map([
                        ("status", Value::from("error")),
                        ("message", format!("name taken, {name}").into()),
                        ("time", unix_time().into()),
                    ]))
                })
        }
    };
    if let Some(refusal) = taken {
        return comm.writer.write(&refusal).await;
    }
    let outbox = Outbox::new(
        comm.writer,
        Arc::clone(&server.flusher),
        server.settings.outbox,
    );
    let worker = register(&server, &address, body, Arc::clone(&outbox));
    let mut reader = comm.reader;
    let mut texts = FromWorkers::default();
    let mut events = Vec::new();
    let ended = loop {
        let frames = tokio::select! {
            biased;
            ended = outbox.pump() => break match ended {
                Ok(()) => "closed by the scheduler".to_owned(),
                Err(error) => error.to_string(),
            },
            frames = reader.read() => match frames {
                Ok(Some(frames)) => frames,
                Ok(None) => break "end of stream".to_owned(),
                Err(error) => break describe(&error),
            },
        };
        match decode_batch::<FromWorker>(&frames) {
            Ok(batch) => {
                drop(frames);
                match messages(&server, worker, batch, &mut texts, &mut events) {
                    Ok(true) => {}
                    Ok(false) => break "closed by the worker".to_owned(),
                    Err(op) => break format!("unknown operation {op:?} on the stream"),
                }
            }
            Err(error) => {
                server.malformed.fetch_add(1, Ordering::Relaxed);
                break format!("malformed message: {error}");
            }
        }
    };
    info!(worker = %address, reason = ended, "worker left");
    let stimulus_id = format!("handle-worker-cleanup-{}", unix_time());
    membership::remove_worker(
        &server,
        &mut server.driver(),
        worker,
        false,
        false,
        &stimulus_id,
    );
    Ok(())
}

fn describe(error: &CommError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn register(server: &Server, address: &str, body: RegisterWorker, outbox: Arc<Outbox>) -> WorkerId {
    let now = unix_time();
    let plugins = server.plugins().worker.to_pairs();
    let mut driver = server.driver();
    let id = driver.workers.next_id();
    let status = WorkerStatus::parse(&body.status);
    let takes_duration = takes_duration(distributed_version(&body.versions));
    let count = driver.workers.len() + 1;
    let warning = {
        let name = body.server_id.0.as_deref().unwrap_or(address);
        let workers = driver.workers.iter().map(|peer| &peer.versions);
        versions::warning(&body.versions, name, workers, &server.intake.versions())
    };
    // Written first: what the core sends because of the registration comes after it.
    outbox.send_message(&encode_one(
        &oxidask_protocol::message::worker::RegisterWorkerReply {
            status: "OK".to_owned(),
            time: now,
            heartbeat_interval: heartbeat_interval(count).as_secs_f64(),
            worker_plugins: Pairs(plugins),
            warning: oxidask_protocol::wire::Omit(Some(warning)),
            error: oxidask_protocol::wire::Omit(Some(String::new())),
        },
    ));
    let peer = WorkerPeer {
        id,
        address: address.into(),
        address_wire: wire_str(address),
        name: body.name.detached(),
        host: host_of(address).into(),
        nthreads: body.nthreads,
        memory_limit: body.memory_limit.unwrap_or(0),
        resources: body.resources.0,
        local_directory: body.local_directory.0.unwrap_or_default(),
        services: body.services.detached(),
        nanny: body.nanny,
        pid: body.pid,
        versions: body.versions.detached(),
        metrics: body.metrics.detached(),
        memory: Memory::default(),
        extra: body.extra.detached(),
        server_id: body.server_id.0.unwrap_or_default(),
        last_seen: now,
        time_delay: if body.now.is_finite() {
            now - body.now
        } else {
            0.0
        },
        takes_duration,
        outbox,
    };
    info!(
        worker = address,
        name = PeerName::from_value(&peer.name).map_or_else(|| address.to_owned(), |n| n.text()),
        threads = peer.nthreads,
        "worker registered"
    );
    membership::add_worker(server, &mut driver, peer, status);
    id
}

/// Handles a batch. False when the worker ends the stream.
///
/// # Errors
/// The name of an operation that does not exist.
fn messages(
    server: &Server,
    worker: WorkerId,
    batch: Vec<FromWorker>,
    texts: &mut FromWorkers,
    events: &mut Vec<Event>,
) -> Result<bool, String> {
    let mut driver = server.driver();
    if driver.workers.get(worker).is_none() {
        // Removed in the meantime (retired, or silent for too long): the connection is only waited out.
        return Ok(true);
    }
    let records = server.coordination.records_tasks();
    for message in batch {
        match message {
            FromWorker::TaskFinished(message) => {
                if records {
                    task_stream::finished(server, &driver, worker, &message);
                }
                if !driver.observers.task_metadata.is_empty() {
                    let recordings = &mut driver.observers.task_metadata;
                    recordings.ended(&message.key, &message.metadata, "memory");
                }
                events.push(texts.finished(worker, message));
            }
            FromWorker::TaskErred(message) => {
                if records {
                    task_stream::erred(server, &driver, worker, &message);
                }
                if !driver.observers.task_metadata.is_empty() {
                    let recordings = &mut driver.observers.task_metadata;
                    recordings.ended(&message.key, &Value::Nil, "erred");
                }
                events.push(texts.erred(worker, message));
            }
            FromWorker::Reschedule(message) => events.push(Event::Rescheduled {
                worker,
                key: message.key,
            }),
            FromWorker::LongRunning(message) => events.push(Event::LongRunning {
                worker,
                key: message.key,
                run_id: message.run_id.0,
                compute_duration: message.compute_duration.and_then(seconds),
            }),
            FromWorker::AddKeys(message) => events.push(Event::KeysAdded {
                worker,
                keys: message.keys,
                stimulus_id: message.stimulus_id.into(),
            }),
            FromWorker::ReleaseWorkerData(message) => events.push(Event::WorkerDataReleased {
                worker,
                key: message.key,
            }),
            FromWorker::RequestRefreshWhoHas(message) => events.push(Event::WhoHasRequested {
                worker,
                keys: message.keys,
                stimulus_id: message.stimulus_id.into(),
            }),
            FromWorker::StatusChange(message) => {
                driver.handle_all(events.drain(..));
                debug!(?worker, status = message.status, "worker changed its state");
                let status = WorkerStatus::parse(&message.status);
                log_status(server, &mut driver, worker, status, &message.stimulus_id);
                driver.worker_status(worker, status);
            }
            FromWorker::StealResponse(message) => events.push(Event::StealResponded {
                worker,
                key: message.key,
                state: message.state,
                stimulus_id: message.stimulus_id.into(),
            }),
            FromWorker::KeepAlive(_) => {}
            FromWorker::LogEvent(message) => {
                if let Ok(topics) = topics(&message.topic) {
                    let from = driver
                        .workers
                        .get(worker)
                        .map(|peer| Arc::clone(&peer.address));
                    let event = signed(message.msg, from.as_deref(), &topics);
                    coordinate::log_event(server, &mut driver, &topics, &event);
                }
            }
            FromWorker::CloseStream(_) => {
                driver.handle_all(events.drain(..));
                return Ok(false);
            }
            FromWorker::Unknown(op) => {
                driver.handle_all(events.drain(..));
                return Err(op);
            }
        }
    }
    driver.handle_all(events.drain(..));
    steal_log::write(server, &mut driver);
    Ok(true)
}

/// Says in the event log that a worker says that it is in another state.
fn log_status(
    server: &Server,
    driver: &mut Driver,
    worker: WorkerId,
    status: WorkerStatus,
    stimulus_id: &str,
) {
    let Some(view) = driver.core().worker(worker) else {
        return;
    };
    if view.status == status {
        return;
    }
    let event = Value::map([
        ("action", Value::from("worker-status-change")),
        ("prev-status", view.status.as_str().into()),
        ("status", status.as_str().into()),
        ("stimulus_id", stimulus_id.into()),
    ]);
    coordinate::log_event(server, driver, &[&*view.address], &event);
}

/// A worker's event with the worker's address, unless its topic is that address. What is no map has no place for it.
///
/// Source: distributed `Scheduler.log_worker_event`.
fn signed(event: Value, from: Option<&str>, topics: &[&str]) -> Value {
    match (event, from) {
        (Value::Map(mut fields), Some(from)) if topics != [from] => {
            let name = Value::from("worker");
            fields.retain(|(field, _)| *field != name);
            fields.push((name, from.into()));
            Value::Map(fields)
        }
        (event, _) => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_worker_name_it_unless_their_topic_does() {
        let event = || Value::map([("worker", Value::from("me")), ("n", 1_u64.into())]);
        let from = Some("tcp://a:1");
        let signed_event = Value::map([("n", Value::from(1_u64)), ("worker", "tcp://a:1".into())]);
        assert_eq!(signed(event(), from, &["topic"]), signed_event);
        assert_eq!(signed(event(), from, &["tcp://a:1", "all"]), signed_event);
        assert_eq!(signed(event(), from, &["tcp://a:1"]), event());
        assert_eq!(signed("text".into(), from, &["topic"]), Value::from("text"));
    }
}
