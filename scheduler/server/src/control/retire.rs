//! Workers leave without loss, with progress.

use std::sync::Arc;
use std::time::Duration;

use oxidask_control::v1;
use oxidask_control::v1::RetireState::{Deadline, Failed, Gone, Moving, Retired};
use oxidask_scheduler_core::WorkerId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::convert::count;
use super::progress::{deadline_after, each_change};
use super::watch::Answers;
use crate::clock::unix_time;
use crate::membership;
use crate::rpc::retire::log_retired;
use crate::server::Server;

/// Time between two looks at what has been moved.
const LOOK: Duration = Duration::from_millis(200);

/// Begins to retire workers and tells how it goes. Goes on when nobody listens any more.
pub(super) fn retire(
    server: Arc<Server>,
    request: v1::RetireWorkersRequest,
) -> Answers<v1::RetireProgress> {
    let v1::RetireWorkersRequest {
        addresses,
        timeout_ms,
        bar_names,
        close,
    } = request;
    let stimulus_id = format!("control-retire-workers-{}", unix_time());
    let mut driver = server.driver();
    driver.workers.bar(bar_names);
    let unique = driver.core().unique();
    let leavers: Vec<Leaver> = addresses
        .into_iter()
        .map(|address| {
            let id = driver.workers.by_address(&address).map(|peer| peer.id);
            let unique = id.and_then(|id| unique.get(&id));
            Leaver {
                id,
                at_first: unique.map_or(0, |unique| unique.bytes),
                progress: v1::RetireProgress {
                    address,
                    ..v1::RetireProgress::default()
                },
            }
        })
        .collect();
    let ids: Vec<WorkerId> = leavers.iter().filter_map(|leaver| leaver.id).collect();
    info!(workers = ids.len(), stimulus_id, "workers retire");
    let outcomes = driver.retire_each(ids, &stimulus_id);
    drop(driver);
    let mut retirement = Retirement {
        server,
        leavers,
        close: close.unwrap_or(true),
        deadline: timeout_ms.map(deadline_after),
        stimulus_id,
    };
    retirement.look();
    let (told, listener) = watch::channel(retirement.progress());
    tokio::spawn(retirement.run(outcomes, told));
    each_change(listener)
}

struct Leaver {
    /// `None` if the scheduler never knew it.
    id: Option<WorkerId>,
    /// Unique bytes when it was asked to go.
    at_first: u64,
    progress: v1::RetireProgress,
}

struct Retirement {
    server: Arc<Server>,
    leavers: Vec<Leaver>,
    close: bool,
    deadline: Option<Instant>,
    stimulus_id: String,
}

impl Retirement {
    async fn run(
        mut self,
        mut outcomes: mpsc::UnboundedReceiver<(WorkerId, bool)>,
        told: watch::Sender<Vec<v1::RetireProgress>>,
    ) {
        let mut is_over = false;
        while self.leavers.iter().any(|leaver| !leaver.has_ended()) && !is_over {
            tokio::select! {
                biased;
                () = self.server.shutdown.cancelled() => return,
                outcome = outcomes.recv() => match outcome {
                    Some((worker, may_go)) => self.ended(worker, may_go),
                    None => is_over = true,
                },
                () = tokio::time::sleep(LOOK) => {}
                () = until(self.deadline) => self.time_is_over(),
            }
            self.look();
            told.send_if_modified(|before| {
                let now = self.progress();
                let is_new = *before != now;
                *before = now;
                is_new
            });
        }
        for leaver in &mut self.leavers {
            if !leaver.has_ended() {
                // It left by itself.
                leaver.end(Gone, String::new());
            }
        }
        told.send_replace(self.progress());
        let (mut retired, mut kept) = (Vec::new(), Vec::new());
        for leaver in &self.leavers {
            let address: Arc<str> = leaver.progress.address.as_str().into();
            match leaver.progress.state() {
                Retired | Deadline => retired.push(address),
                Failed => kept.push(address),
                Gone | Moving | v1::RetireState::Unspecified => {}
            }
        }
        let mut driver = self.server.driver();
        log_retired(
            &self.server,
            &mut driver,
            &retired,
            &kept,
            &self.stimulus_id,
        );
    }

    fn progress(&self) -> Vec<v1::RetireProgress> {
        let progress = |leaver: &Leaver| leaver.progress.clone();
        self.leavers.iter().map(progress).collect()
    }

    /// Brings the figures of those that are still leaving up to date.
    fn look(&mut self) {
        let driver = self.server.driver();
        let unique = driver.core().unique();
        for leaver in &mut self.leavers {
            if leaver.has_ended() {
                continue;
            }
            let view = leaver.id.and_then(|id| driver.core().worker(id));
            let Some(view) = view else {
                leaver.end(Gone, String::new());
                continue;
            };
            let left = unique.get(&view.worker).map_or(0, |unique| unique.bytes);
            leaver.at_first = leaver.at_first.max(left);
            leaver.progress.set_state(Moving);
            leaver.progress.bytes_total = leaver.at_first;
            leaver.progress.bytes_moved = leaver.at_first - left;
            leaver.progress.executing = count(view.processing);
        }
    }

    fn ended(&mut self, worker: WorkerId, may_go: bool) {
        let Some(leaver) = self.leavers.iter_mut().find(|l| l.id == Some(worker)) else {
            return;
        };
        if leaver.has_ended() {
            return;
        }
        if may_go {
            leaver.progress.bytes_moved = leaver.progress.bytes_total;
            leaver.end(Retired, String::new());
            remove(&self.server, worker, self.close, &self.stimulus_id);
        } else {
            let why = "it holds results or actors that no other worker can take";
            warn!(worker = leaver.progress.address, why, "worker stays");
            leaver.end(Failed, why.to_owned());
        }
    }

    /// Those that are still leaving go with what they have.
    fn time_is_over(&mut self) {
        let unique = self.server.driver().core().unique();
        for leaver in &mut self.leavers {
            let Some(id) = leaver.id.filter(|_| !leaver.has_ended()) else {
                continue;
            };
            let unique = unique.get(&id).copied().unwrap_or_default();
            let lost = format!(
                "the time was over: lost {} results of {} bytes that nobody else held",
                unique.results, unique.bytes
            );
            warn!(worker = leaver.progress.address, lost, "worker goes");
            leaver.end(Deadline, lost);
            remove(&self.server, id, self.close, &self.stimulus_id);
        }
    }
}

impl Leaver {
    fn has_ended(&self) -> bool {
        match self.progress.state() {
            Retired | Gone | Deadline | Failed => true,
            Moving | v1::RetireState::Unspecified => false,
        }
    }

    fn end(&mut self, state: v1::RetireState, message: String) {
        self.progress.set_state(state);
        self.progress.message = message;
        self.progress.executing = 0;
    }
}

fn remove(server: &Server, worker: WorkerId, close: bool, stimulus_id: &str) {
    membership::remove_worker(
        server,
        &mut server.driver(),
        worker,
        true,
        close,
        stimulus_id,
    );
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
