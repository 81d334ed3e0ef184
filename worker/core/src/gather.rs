//! Which values to fetch from which peer: one transfer per peer, batched by priority.

use std::time::Duration;

use crate::{
    Core,
    action::{Action, Message},
    ids::{PeerId, TaskId},
    state::{Flight, State},
};

/// How long a busy peer is left alone. Source: distributed `Worker.retry_busy_worker_later`.
pub(crate) const BUSY_DELAY: Duration = Duration::from_millis(150);

/// How soon the scheduler is asked for holders after a key goes missing.
pub(crate) const FIRST_REFRESH: Duration = Duration::from_millis(100);

/// How often it is asked again. Source: distributed `Worker._find_missing`.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

impl Core {
    /// Start transfers until nothing is left to fetch or a limit is reached.
    pub(crate) fn start_transfers(&mut self) {
        while !self.paused && self.fetching > 0 && !self.throttled() {
            let Some(peer) = self.choose_peer() else {
                return;
            };
            let (tasks, nbytes) = self.choose_tasks(peer);
            if tasks.is_empty() {
                return;
            }
            self.start_transfer(peer, tasks, nbytes);
        }
    }

    fn throttled(&self) -> bool {
        let by_count = self.incoming_count >= self.config.incoming_connections
            && self.incoming_bytes >= self.config.incoming_throttle_bytes;
        by_count || (self.incoming_bytes > 0 && self.incoming_bytes >= self.config.incoming_bytes)
    }

    /// The free peer with the most urgent task; then peers on this host, then those with most to give.
    fn choose_peer(&self) -> Option<PeerId> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.in_flight.is_none() && peer.busy_until.is_none())
            .filter_map(|(id, peer)| {
                let (priority, _) = peer.needed.first()?;
                Some((
                    *priority,
                    !peer.local,
                    std::cmp::Reverse(peer.needed.len()),
                    id,
                ))
            })
            .min()
            .map(|(.., id)| id)
    }

    /// As many tasks by priority as one message may carry; at least one if nothing else flies.
    fn choose_tasks(&self, peer: PeerId) -> (Vec<TaskId>, u64) {
        let allowance = self
            .config
            .incoming_bytes
            .saturating_sub(self.incoming_bytes);
        let mut chosen = Vec::new();
        let mut nbytes: u64 = 0;
        for (_, id) in &self.peers[peer].needed {
            let total = nbytes.saturating_add(self.tasks[*id].size());
            let fits = if chosen.is_empty() {
                self.incoming_bytes == 0 || total <= allowance
            } else {
                total <= allowance.min(self.config.message_bytes)
            };
            if !fits {
                break;
            }
            chosen.push(*id);
            nbytes = total;
        }
        (chosen, nbytes)
    }

    fn start_transfer(&mut self, peer: PeerId, tasks: Vec<TaskId>, nbytes: u64) {
        for id in &tasks {
            self.set_state(*id, State::Flight);
            self.tasks[*id].flight = Some(peer);
        }
        self.incoming_count += 1;
        self.incoming_total += 1;
        self.incoming_bytes += nbytes;
        self.actions.push_back(Action::GatherDep {
            worker: self.peers[peer].address.clone(),
            keys: tasks.iter().map(|id| self.tasks[*id].key.clone()).collect(),
            nbytes,
            stimulus_id: self.stimulus_id.clone(),
        });
        self.peers[peer].in_flight = Some(Flight { tasks, nbytes });
    }

    /// Take the transfer from this peer off the books: its tasks, or nothing if none ran.
    pub(crate) fn end_transfer(&mut self, peer: PeerId) -> Vec<TaskId> {
        let Some(flight) = self.peers[peer].in_flight.take() else {
            return Vec::new();
        };
        self.incoming_count -= 1;
        self.incoming_bytes -= flight.nbytes;
        for id in &flight.tasks {
            self.tasks[*id].flight = None;
        }
        flight.tasks
    }

    /// Busy peers whose time has come may be asked again; missing keys are asked for.
    pub(crate) fn tick(&mut self) {
        let now = self.now;
        for peer in self.peers.iter_mut() {
            if peer.busy_until.is_some_and(|until| until <= now) {
                peer.busy_until = None;
            }
        }
        if self.refresh_at.is_some_and(|at| at <= now) {
            let keys = self
                .missing
                .iter()
                .map(|id| self.tasks[*id].key.clone())
                .collect();
            self.send(Message::RequestRefreshWhoHas(keys));
            self.refresh_at = Some(now + REFRESH_INTERVAL);
        }
    }
}
