//! Requests for values that wait until the executor has serialised them.

use std::sync::{Arc, atomic::AtomicUsize};

use hashbrown::HashMap;
use oxidask_protocol::{Key, Payload};
use tokio::sync::oneshot;

use crate::{
    input::{GetDataReply, ServeGuard},
    shared::Shared,
    store::MemoryFile,
};

/// A request that lacks some values yet.
struct Pending {
    /// How many values it waits for.
    missing: usize,
    data: Vec<Shared>,
    reply: oneshot::Sender<GetDataReply>,
    guard: ServeGuard,
}

/// All requests that wait.
#[derive(Default)]
pub(super) struct Gets {
    pending: HashMap<u64, Pending>,
    /// By number of the value: which requests wait for it, under which key.
    waiting: HashMap<u64, Vec<(u64, Key)>>,
    last: u64,
}

impl Gets {
    /// A request for `ready` values and those that `wanted` numbers will have. Gives the numbers to be
    /// serialised that nobody asked for before.
    pub(super) fn add(
        &mut self,
        ready: Vec<Shared>,
        wanted: Vec<(u64, Key)>,
        reply: oneshot::Sender<GetDataReply>,
        serving: Arc<AtomicUsize>,
    ) -> Vec<u64> {
        let guard = ServeGuard(serving);
        if wanted.is_empty() {
            // A requester that has gone needs no answer.
            let _ = reply.send(GetDataReply::Data(ready, guard));
            return Vec::new();
        }
        self.last += 1;
        let mut fresh = Vec::new();
        self.pending.insert(
            self.last,
            Pending {
                missing: wanted.len(),
                data: ready,
                reply,
                guard,
            },
        );
        for (id, key) in wanted {
            let waiting = self.waiting.entry(id).or_default();
            if waiting.is_empty() {
                fresh.push(id);
            }
            waiting.push((self.last, key));
        }
        fresh
    }

    /// The value `id` is serialised.
    pub(super) fn value_ready(
        &mut self,
        id: u64,
        payload: &Payload,
        file: Option<&Arc<MemoryFile>>,
    ) {
        self.resolve(id, Some((payload, file)));
    }

    /// The value `id` will not come: it is left out of the answers.
    pub(super) fn value_gone(&mut self, id: u64) {
        self.resolve(id, None);
    }

    fn resolve(&mut self, id: u64, value: Option<(&Payload, Option<&Arc<MemoryFile>>)>) {
        for (token, key) in self.waiting.remove(&id).unwrap_or_default() {
            let Some(pending) = self.pending.get_mut(&token) else {
                continue;
            };
            pending.missing -= 1;
            if let Some((payload, file)) = value {
                pending.data.push((key, payload.clone(), file.cloned()));
            }
            if pending.missing == 0
                && let Some(done) = self.pending.remove(&token)
            {
                let _ = done.reply.send(GetDataReply::Data(done.data, done.guard));
            }
        }
    }
}
