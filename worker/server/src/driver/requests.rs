//! What connections ask of the driver, and transfers that end.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use oxidask_protocol::{Key, Payload, Value, message::worker::StartStop, wire::Omit};
use oxidask_worker_core::EventKind;
use tokio::sync::oneshot;

use super::{Driver, Status};
use crate::{
    clock::unix,
    executor::wire::control,
    input::{GetDataReply, Input, Request},
    store::{Entry, MemoryFile, Segment},
    transfer::TransferOutcome,
};

impl Driver {
    pub(super) fn request(&mut self, request: Request) {
        match request {
            Request::GetData { keys, reply } => self.get_data(keys, reply),
            Request::UpdateData {
                data,
                stimulus_id,
                reply,
            } => {
                let nbytes = self.update_data(data, &stimulus_id);
                let _ = reply.send(nbytes);
            }
            Request::FreeKeys { keys, stimulus_id } => {
                self.event(EventKind::FreeKeys(keys), stimulus_id)
            }
            Request::Relay { op, frames, reply } => self.relay(op, frames, reply),
            Request::Query { query, reply } => {
                let answer = self.query(query);
                let _ = reply.send(answer);
            }
        }
    }

    fn get_data(&mut self, keys: Vec<Key>, reply: oneshot::Sender<GetDataReply>) {
        let limit = if self.status == Status::Paused {
            1
        } else {
            self.settings.outgoing_connections
        };
        if self.serving.load(Ordering::Relaxed) >= limit {
            let _ = reply.send(GetDataReply::Busy);
            return;
        }
        self.gather_values(keys, self.serving.clone(), reply);
    }

    /// Answers with values that are here, as soon as all are in this process's hands. `count` is one higher until
    /// whoever gets them is done.
    pub(super) fn gather_values(
        &mut self,
        keys: Vec<Key>,
        count: Arc<AtomicUsize>,
        reply: oneshot::Sender<GetDataReply>,
    ) {
        count.fetch_add(1, Ordering::Relaxed);
        let (mut ready, mut wanted) = (Vec::new(), Vec::new());
        for key in keys {
            match self.store.get(&key) {
                Some(Entry {
                    payload: Some(payload),
                    file,
                    ..
                }) => {
                    ready.push((key, payload.clone(), file.clone()));
                }
                Some(entry) => wanted.push((entry.id, key)),
                // Left out: the requester asks the scheduler where it is.
                None => {}
            }
        }
        let fresh = self.gets.add(ready, wanted, reply, count);
        let (spilled, resident) = fresh.into_iter().partition(|id| self.read_spilled(*id));
        drop::<Vec<u64>>(spilled);
        self.seal(resident);
    }

    /// Read a spilled value for those who wait for it; false if it is not spilled.
    fn read_spilled(&mut self, id: u64) -> bool {
        let Some((
            _,
            Entry {
                spilled: Some(file),
                ..
            },
        )) = self.store.by_id(id)
        else {
            return false;
        };
        let (file, inputs) = (file.clone(), self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            let read = file.read();
            inputs.send_blocking(Input::Unspilled { id, read });
        });
        true
    }

    pub(super) fn unspilled(&mut self, id: u64, read: std::io::Result<Payload>) {
        match read {
            Ok(payload) => self.gets.value_ready(id, &payload, None),
            Err(error) => {
                tracing::error!(%error, "a spilled value cannot be read; it is given up");
                self.gets.value_gone(id);
                if let Some((key, _)) = self.store.by_id(id) {
                    self.event(EventKind::DataLost(vec![key]), "spilled-data-lost");
                }
            }
        }
    }

    /// Ask executors for header and frames of values that they have.
    pub(super) fn seal(&mut self, ids: Vec<u64>) {
        let mut by_executor: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
        for id in ids {
            let holder = self
                .store
                .by_id(id)
                .and_then(|(_, entry)| entry.holders.first());
            match holder.filter(|holder| self.executors[*holder].handle.is_some()) {
                Some(holder) => by_executor
                    .entry(holder)
                    .or_default()
                    .push(Value::Int(id.into())),
                None => self.gets.value_gone(id),
            }
        }
        for (executor, ids) in by_executor {
            if let Some(handle) = self.handle(executor) {
                let fields = vec![("ids", Value::Array(ids))];
                handle.send_control(control("seal", fields, Vec::new()));
            }
        }
    }

    /// Keep values that came from outside. Gives their sizes.
    pub(super) fn update_data(
        &mut self,
        data: Vec<(Key, Payload)>,
        stimulus_id: &str,
    ) -> Vec<(Key, u64)> {
        let sized = data.into_iter().map(|(key, payload)| {
            let nbytes = payload
                .frames
                .as_slice()
                .iter()
                .map(|frame| frame.len() as u64)
                .sum();
            (key, payload, nbytes)
        });
        let sized: Vec<_> = sized.collect();
        let nbytes: Vec<_> = sized
            .iter()
            .map(|(key, _, nbytes)| (key.clone(), *nbytes))
            .collect();
        for (key, payload, nbytes) in sized {
            self.receive(key, payload, nbytes, None);
        }
        self.event(EventKind::Scattered(nbytes.clone()), stimulus_id);
        nbytes
    }

    /// Put a received value into the store, unless it is there.
    pub(super) fn receive(
        &mut self,
        key: Key,
        payload: Payload,
        nbytes: u64,
        file: Option<Arc<MemoryFile>>,
    ) {
        if self.core.in_memory(&key) {
            return;
        }
        let id = self.store.next_id();
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        for frame in payload.frames.as_slice() {
            if let Some(segment) = self.peers.segments.find(frame)
                && !segments.iter().any(|known| known.id() == segment.id())
            {
                segments.push(segment);
            }
        }
        let entry = Entry {
            file,
            segments,
            ..Entry::received(id, nbytes, payload)
        };
        if let Some(old) = self.store.insert(key, entry) {
            self.drop_from_executors(&old);
        }
    }

    pub(super) fn transferred(&mut self, worker: &Arc<str>, outcome: TransferOutcome) {
        let worker = worker.clone();
        match outcome {
            TransferOutcome::Data { data, seconds } => {
                let mut sizes = Vec::with_capacity(data.len());
                let mut total = 0;
                for (key, payload, file) in data {
                    let nbytes = payload.nbytes();
                    total += nbytes;
                    sizes.push((key.clone(), nbytes));
                    self.receive(key, payload, nbytes, file);
                }
                self.meter.transferred(&worker, total, seconds);
                let stop = unix();
                for (key, _) in &sizes {
                    if let Some(entry) = self.store.get_mut(key) {
                        entry.came = Some(Box::new(StartStop {
                            action: "transfer".to_owned(),
                            start: stop - seconds,
                            stop,
                            source: Omit(Some(worker.to_string())),
                        }));
                    }
                }
                self.event(
                    EventKind::Gathered {
                        worker,
                        data: sizes,
                    },
                    "gather-dep-success",
                );
            }
            TransferOutcome::Busy => {
                self.event(EventKind::GatherBusy { worker }, "gather-dep-busy")
            }
            TransferOutcome::Failed(text) => {
                tracing::warn!(%worker, "transfer failed: {text}");
                self.event(
                    EventKind::GatherFailed { worker },
                    "gather-dep-network-failure",
                );
            }
        }
    }
}
