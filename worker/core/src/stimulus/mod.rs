//! Events to recommendations.

mod execute;
mod scheduler;
mod transfer;

use crate::{
    Core,
    event::{Address, EventKind},
    ids::{PeerId, TaskId},
};

impl Core {
    pub(crate) fn stimulus(&mut self, kind: EventKind) {
        match kind {
            EventKind::ComputeTask(task) => self.compute_task(*task),
            EventKind::FreeKeys(keys) => self.free_keys(&keys),
            EventKind::RemoveReplicas(keys) => self.remove_replicas(&keys),
            EventKind::AcquireReplicas { who_has, nbytes } => {
                self.acquire_replicas(&who_has, &nbytes)
            }
            EventKind::StealRequest(key) => self.steal_request(key),
            EventKind::RefreshWhoHas(who_has) => self.refresh_who_has(&who_has),
            EventKind::CancelCompute(key) => self.cancel_compute(&key),
            EventKind::RemoveWorker(worker) => self.remove_worker(&worker),
            EventKind::Scattered(data) => self.scattered(data),
            EventKind::Gathered { worker, data } => self.gathered(&worker, data),
            EventKind::GatherBusy { worker } => self.gather_busy(&worker),
            EventKind::GatherFailed { worker } => self.gather_failed(&worker),
            EventKind::GatherErred { worker, error } => self.gather_erred(&worker, &error),
            EventKind::Executed {
                key,
                nbytes,
                duration,
            } => self.executed(&key, nbytes, duration),
            EventKind::ExecuteFailed { key, error } => self.execute_failed(&key, error),
            EventKind::Rescheduled(key) => self.rescheduled(&key),
            EventKind::Seceded {
                key,
                compute_duration,
            } => self.seceded(&key, compute_duration),
            EventKind::ExecutorLost {
                running,
                queued,
                resident,
                error,
            } => {
                self.data_lost(&resident);
                self.executor_lost(&running, &queued, &error);
            }
            EventKind::DataLost(keys) => self.data_lost(&keys),
            EventKind::Pause => self.paused = true,
            EventKind::Unpause => self.paused = false,
            EventKind::Tick => self.tick(),
        }
    }

    fn update_who_has(&mut self, id: TaskId, addresses: &[Address]) {
        let mut peers: Vec<PeerId> = Vec::with_capacity(addresses.len());
        for address in addresses {
            // The scheduler may not have heard yet that this worker dropped its copy.
            if self.peers.is_own(address) {
                continue;
            }
            let peer = self.peers.intern(address);
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        self.set_who_has(id, peers);
    }
}
