//! The scheduler as its pages see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use oxidask_protocol::Value;
use oxidask_protocol::message::decode_one;
use oxidask_protocol::message::rpc::{RetireWorkers, ToScheduler};
use oxidask_protocol::wire::Omit;
use oxidask_scheduler_core::action::TaskStateName;
use oxidask_scheduler_core::event::WorkerStatus;
use serde_json::Value as Json;

use super::{Cluster, PrefixRow, Retire, SemaphoreRow, Snapshot, WorkerRow};
use crate::clock::unix_time;
use crate::driver::Driver;
use crate::extensions::SemaphoreView;
use crate::peers::WorkerPeer;
use crate::rpc;
use crate::server::Server;

impl Cluster for Arc<Server> {
    fn snapshot(&self) -> Snapshot {
        let driver = self.driver();
        let core = driver.core();
        let now = unix_time();
        let tasks = TaskStateName::KNOWN
            .iter()
            .zip(core.task_counts())
            .map(|(state, count)| (state.as_str(), count))
            .collect();
        let prefixes = core
            .prefixes()
            .into_iter()
            .map(|prefix| PrefixRow {
                name: prefix.name.to_string(),
                states: prefix.states.to_vec(),
                duration: prefix.duration,
                compute_seconds_total: prefix.totals.compute,
                transfer_seconds_total: prefix.totals.transfer,
                output_bytes: prefix.totals.output_bytes,
                suspicious_total: prefix.totals.suspicious,
            })
            .collect();
        Snapshot {
            id: self.id.clone(),
            address: self.address().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            started: self.clock.started(),
            now,
            clients: driver.clients.connected().count() as u64,
            clients_added_total: driver.clients.totals.0,
            clients_removed_total: driver.clients.totals.1,
            workers_added_total: driver.workers.totals.0,
            workers_removed_total: driver.workers.totals.1,
            desired_workers: self.desired_workers(&driver),
            workers: driver
                .workers
                .iter()
                .map(|peer| worker_row(&driver, peer, now))
                .collect(),
            tasks,
            prefixes,
            semaphores: self
                .coordination
                .with(|extensions| extensions.semaphores.view())
                .into_iter()
                .map(semaphore_row)
                .collect(),
            malformed_messages_total: self.malformed.load(Ordering::Relaxed),
        }
    }

    fn identity(&self) -> Json {
        json_of(&rpc::status::identity(self, -1))
    }

    fn adaptive_target(&self) -> u64 {
        self.desired_workers(&self.driver())
    }

    fn check_idle(&self) -> Option<f64> {
        let idle = self.driver().core().idle_since();
        idle.map(|since| self.clock.unix(since))
    }

    fn control_port(&self) -> Option<u16> {
        Server::control_port(self)
    }

    async fn retire(&self, which: Retire) -> Result<Json, String> {
        let (workers, n) = match which {
            Retire::Number(n) => (None, Some(n)),
            Retire::Workers(workers) => {
                (Some(workers.into_iter().map(Value::from).collect()), None)
            }
        };
        let request = RetireWorkers {
            workers,
            names: None,
            close_workers: false,
            remove: true,
            stimulus_id: format!("api-retire-workers-{}", unix_time()),
            memory_ratio: None,
            n,
            key: Value::Nil,
            minimum: None,
            target: None,
            attribute: Omit(None),
        };
        match rpc::answer(Self::clone(self), ToScheduler::RetireWorkers(request)).await {
            Ok(answer) => decode_one(&answer.into_frames())
                .map(|value: Value| json_of(&value))
                .map_err(|error| error.to_string()),
            Err(failure) => Err(failure.exception_text),
        }
    }
}

impl Server {
    fn desired_workers(&self, driver: &Driver) -> u64 {
        let seconds = self.settings.adaptive_target_duration.as_secs_f64();
        driver.core().adaptive_target(seconds) as u64
    }
}

fn semaphore_row(view: SemaphoreView) -> SemaphoreRow {
    SemaphoreRow {
        name: view.name.to_string(),
        max_leases: view.max_leases,
        active_leases: view.active as u64,
        pending_leases: view.pending as u64,
        acquire_total: view.acquired_total,
        release_total: view.released_total,
        average_pending_lease_time: view.average_wait,
    }
}

fn worker_row(driver: &Driver, peer: &WorkerPeer, now: f64) -> WorkerRow {
    let view = driver.core().worker(peer.id);
    let view = view.as_ref();
    let memory = peer.metrics.field("memory").and_then(Value::as_u64);
    WorkerRow {
        address: peer.address.to_string(),
        name: json_of(&peer.name),
        status: view
            .map_or(WorkerStatus::Closed, |view| view.status)
            .as_str(),
        nthreads: peer.nthreads,
        memory_limit: peer.memory_limit,
        memory: memory.unwrap_or(0),
        nbytes: view.map_or(0, |view| view.nbytes),
        in_memory: view.map_or(0, |view| view.has_what as u64),
        processing: view.map_or(0, |view| view.processing as u64),
        silent_for: (now - peer.last_seen).max(0.0),
    }
}

/// A message's value as JSON: bytes as their number, keys of maps as text, numbers that JSON lacks as null.
fn json_of(value: &Value) -> Json {
    match value {
        Value::Nil | Value::Payload(_) => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => i64::try_from(*value)
            .map(Json::from)
            .or_else(|_| u64::try_from(*value).map(Json::from))
            .unwrap_or_default(),
        Value::Float(value) => Json::from(*value),
        Value::Str(text) => Json::from(text.as_str()),
        Value::Bin(bytes) => Json::from(format!("<{} bytes>", bytes.len())),
        Value::Array(values) | Value::Set(values) => values.iter().map(json_of).collect(),
        Value::Map(pairs) => Json::Object(
            pairs
                .iter()
                .map(|(key, value)| {
                    let key = match key {
                        Value::Str(text) => text.clone(),
                        other => other
                            .to_key()
                            .map_or_else(|| json_of(other).to_string(), |key| key.to_string()),
                    };
                    (key, json_of(value))
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_messages_become_json() {
        let tuple = Value::array([Value::from("x"), Value::from(1_i64)]);
        let value = Value::Map(vec![
            (tuple, Value::from(u64::MAX)),
            (Value::from("nan"), Value::from(f64::NAN)),
            (Value::from("bin"), Value::Bin(vec![1, 2].into())),
        ]);
        assert_eq!(
            json_of(&value),
            json!({"('x', 1)": u64::MAX, "nan": null, "bin": "<2 bytes>"})
        );
    }
}
