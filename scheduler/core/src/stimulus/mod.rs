//! What each event means: how it changes what is known, and which recommendations follow.

mod client;
mod data;
mod drain;
mod graph;
pub(crate) mod retire;
pub(crate) mod shuffle;
mod tasks;
pub(crate) mod timers;
mod workers;

use std::sync::Arc;

use crate::Core;
use crate::event::Event;

impl Core {
    /// Takes in an event. The recommendations that it leaves are carried out by the caller.
    pub(crate) fn apply(&mut self, event: Event) {
        if let Some(event) = self.defer(event) {
            self.apply_now(event);
        }
    }

    /// Takes in an event whose turn it is.
    pub(crate) fn apply_now(&mut self, event: Event) {
        let named = |core: &mut Self, name: &str| {
            core.stimulus = format!("{name}-{}", core.now.as_secs_f64()).into()
        };
        match event {
            Event::ClientAdded { client, name } => self.client_added(client, name),
            Event::ClientRemoved { client } => {
                named(self, "remove-client");
                if !self.slice_leave(client) {
                    self.client_removed(client);
                }
            }
            Event::UpdateGraph(graph) => {
                self.stimulus = Arc::clone(&graph.stimulus_id);
                if let Some(graph) = self.slice_graph(graph) {
                    self.update_graph(graph);
                }
            }
            Event::ClientDesiresKeys { client, keys } => {
                named(self, "client-desires-keys");
                if let Some(keys) = self.slice_keys(client, keys, true) {
                    self.client_desires_keys(client, &keys);
                }
            }
            Event::ClientReleasesKeys { client, keys } => {
                named(self, "client-releases-keys");
                if let Some(keys) = self.slice_keys(client, keys, false) {
                    self.client_releases_keys(client, &keys);
                }
            }
            Event::CancelKeys {
                client,
                keys,
                force,
                reason,
                message,
            } => {
                named(self, "cancel-key");
                self.cancel_keys(client, keys, force, reason, message);
            }
            Event::ReportKey { client, key } => self.report_key(client, key),
            Event::RetryKeys { keys } => {
                named(self, "stimulus-retry");
                self.retry_keys(keys);
            }
            Event::DataAdded { client, data } => {
                named(self, "scatter");
                self.data_added(client, data);
            }
            Event::Restart => {
                named(self, "restart");
                self.restart();
            }
            Event::WorkerAdded(new) => {
                named(self, "add-worker");
                self.worker_added(new);
            }
            Event::WorkerStatusChanged { worker, status } => {
                named(self, "worker-status-change");
                self.worker_status_changed(worker, status);
            }
            Event::WorkerRemoved {
                worker,
                expected,
                stimulus_id,
            } => {
                self.stimulus = stimulus_id;
                self.worker_removed(worker, expected);
            }
            Event::Heartbeat(heartbeat) => self.heartbeat(heartbeat),
            Event::ResourcesSet { worker, resources } => {
                named(self, "set-resources");
                self.resources_set(worker, resources);
            }
            Event::TaskFinished(finished) => {
                self.stimulus = Arc::clone(&finished.stimulus_id);
                self.task_finished(finished);
            }
            Event::TaskErred(erred) => {
                self.stimulus = Arc::clone(&erred.stimulus_id);
                self.task_erred(erred);
            }
            Event::Rescheduled { worker, key } => {
                named(self, "reschedule");
                self.rescheduled(worker, &key);
            }
            Event::LongRunning {
                worker,
                key,
                run_id,
                compute_duration,
            } => {
                named(self, "long-running");
                self.long_running(worker, &key, run_id, compute_duration);
            }
            Event::KeysAdded {
                worker,
                keys,
                stimulus_id,
            } => {
                self.stimulus = stimulus_id;
                self.keys_added(worker, keys);
            }
            Event::WorkerDataReleased { worker, key } => {
                named(self, "release-worker-data");
                self.worker_data_released(worker, &key);
            }
            Event::WhoHasRequested {
                worker,
                keys,
                stimulus_id,
            } => {
                self.stimulus = stimulus_id;
                self.who_has_requested(worker, keys);
            }
            Event::StealResponded {
                worker,
                key,
                state,
                stimulus_id,
            } => {
                self.stimulus = Arc::clone(&stimulus_id);
                self.steal_responded(worker, &key, state.as_deref(), &stimulus_id);
            }
            Event::ReplicasMissing { missing } => {
                named(self, "gather");
                self.replicas_missing(&missing);
            }
            Event::RetireWorkers {
                request,
                workers,
                stimulus_id,
            } => {
                self.stimulus = stimulus_id;
                self.retire_workers(request, workers);
            }
            Event::DrainingSet { draining } => {
                named(self, "drain");
                self.set_draining(draining);
            }
            Event::ReplicateTo {
                targets,
                stimulus_id,
            } => {
                self.stimulus = stimulus_id;
                self.replicate_to(&targets);
            }
            Event::ReplicasDropped {
                targets,
                stimulus_id,
            } => {
                self.stimulus = stimulus_id;
                self.drop_replicas(&targets);
            }
            Event::MemoryManager(command) => {
                named(self, "active_memory_manager");
                self.command_memory_manager(command);
            }
            Event::RestrictionsSet { key, workers } => {
                named(self, "set-restrictions");
                self.set_restriction(&key, workers);
            }
            Event::ShuffleStarted {
                id,
                run_id,
                worker_for,
                run_spec,
            } => {
                self.shuffle_started(id, run_id, worker_for, run_spec);
            }
            Event::ShuffleJoined { id, worker } => self.shuffle_joined(&id, worker),
            Event::ShuffleInconsistent { id, run_id } => {
                named(self, "p2p-inconsistent");
                self.shuffle_inconsistent(&id, run_id);
            }
            Event::ShuffleOutputRestricted { id, key, worker } => {
                self.shuffle_output_restricted(&id, key, worker)
            }
            Event::Tick => {
                named(self, "tick");
                self.tick();
            }
        }
    }
}
