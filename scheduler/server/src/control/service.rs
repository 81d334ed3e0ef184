//! The calls of the control API.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use oxidask_control::v1;
use oxidask_control::v1::control_server::Control;
use oxidask_scheduler_core::{WorkerGroup, WorkerId};
use tonic::{Request, Response, Status};
use tracing::info;

use super::watch::{Answers, changes};
use super::{convert, drain, retire};
use crate::server::Server;

/// Time between two states of the cluster that are sent, where the caller names none.
const STATUS_INTERVAL: u32 = 1000;

/// Time between two looks at how many workers would be right.
const DESIRED_INTERVAL: Duration = Duration::from_millis(250);

/// Names in one request.
const MAX_NAMES: usize = 100_000;

pub(super) struct ControlService {
    server: Arc<Server>,
}

impl ControlService {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self { server }
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        Ok(Response::new(convert::status(&self.server)))
    }

    type WatchStatusStream = Answers<v1::ClusterStatus>;

    async fn watch_status(
        &self,
        request: Request<v1::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let interval = request.into_inner().min_interval_ms;
        let interval = Duration::from_millis(interval.unwrap_or(STATUS_INTERVAL).max(50).into());
        let server = Arc::clone(&self.server);
        let look = move || convert::status(&server);
        Ok(Response::new(changes(interval, look, has_changed)))
    }

    async fn get_desired_workers(
        &self,
        request: Request<v1::GetDesiredWorkersRequest>,
    ) -> Result<Response<v1::DesiredWorkers>, Status> {
        let request = checked(request.into_inner())?;
        Ok(Response::new(desired(&self.server, &request)))
    }

    type WatchDesiredWorkersStream = Answers<v1::DesiredWorkers>;

    async fn watch_desired_workers(
        &self,
        request: Request<v1::GetDesiredWorkersRequest>,
    ) -> Result<Response<Self::WatchDesiredWorkersStream>, Status> {
        let request = checked(request.into_inner())?;
        let server = Arc::clone(&self.server);
        let look = move || desired(&server, &request);
        let is_new = |before: &v1::DesiredWorkers, now: &v1::DesiredWorkers| {
            (before.total, &before.by_group) != (now.total, &now.by_group)
        };
        Ok(Response::new(changes(DESIRED_INTERVAL, look, is_new)))
    }

    async fn choose_victims(
        &self,
        request: Request<v1::ChooseVictimsRequest>,
    ) -> Result<Response<v1::ChooseVictimsResponse>, Status> {
        let v1::ChooseVictimsRequest { count, among } = request.into_inner();
        let driver = self.server.driver();
        let among: Option<Vec<WorkerId>> = (!among.is_empty()).then(|| {
            let known = among.iter().filter_map(|a| driver.workers.by_address(a));
            known.map(|peer| peer.id).collect()
        });
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let unique = driver.core().unique();
        let victims = driver
            .core()
            .victims(count, among.as_deref())
            .into_iter()
            .filter_map(|id| driver.workers.get(id))
            .map(|peer| convert::worker(&driver, peer, &unique))
            .collect();
        Ok(Response::new(v1::ChooseVictimsResponse { victims }))
    }

    type RetireWorkersStream = Answers<v1::RetireProgress>;

    async fn retire_workers(
        &self,
        request: Request<v1::RetireWorkersRequest>,
    ) -> Result<Response<Self::RetireWorkersStream>, Status> {
        let request = request.into_inner();
        if request.addresses.len().max(request.bar_names.len()) > MAX_NAMES {
            return Err(Status::invalid_argument(format!(
                "at most {MAX_NAMES} workers can be named in one request"
            )));
        }
        Ok(Response::new(retire::retire(
            Arc::clone(&self.server),
            request,
        )))
    }

    type DrainStream = Answers<v1::DrainProgress>;

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<Self::DrainStream>, Status> {
        let server = Arc::clone(&self.server);
        Ok(Response::new(drain::drain(server, request.into_inner())))
    }

    async fn shutdown(
        &self,
        request: Request<v1::ShutdownRequest>,
    ) -> Result<Response<v1::ShutdownResponse>, Status> {
        let reason = request.into_inner().reason;
        info!(reason, "shutdown is asked for by the control API");
        let reason = if reason.is_empty() {
            "control-api"
        } else {
            &reason
        };
        self.server.shutdown_soon(reason);
        Ok(Response::new(v1::ShutdownResponse {}))
    }
}

/// Whether a state of the cluster says something new: more than that a worker lives.
fn has_changed(before: &v1::ClusterStatus, now: &v1::ClusterStatus) -> bool {
    let without_time = |status: &v1::ClusterStatus| {
        let mut status = status.clone();
        for worker in &mut status.workers {
            worker.last_seen_ms = 0;
        }
        status
    };
    without_time(before) != without_time(now)
}

fn checked(request: v1::GetDesiredWorkersRequest) -> Result<v1::GetDesiredWorkersRequest, Status> {
    match request.target_duration_seconds {
        Some(seconds) if !(seconds.is_finite() && seconds > 0.0) => Err(Status::invalid_argument(
            format!("target_duration_seconds is {seconds}, but should be more than 0"),
        )),
        _ => Ok(request),
    }
}

fn desired(server: &Server, request: &v1::GetDesiredWorkersRequest) -> v1::DesiredWorkers {
    let driver = server.driver();
    let core = driver.core();
    let target = request
        .target_duration_seconds
        .unwrap_or(server.settings.adaptive_target_duration.as_secs_f64());
    let reason = format!(
        "{:.0} s of work for {} workers",
        core.expected_seconds(),
        driver.workers.len()
    );
    if request.groups.is_empty() {
        return v1::DesiredWorkers {
            total: convert::count(core.adaptive_target(target)),
            by_group: HashMap::new(),
            reason,
        };
    }
    let groups: Vec<WorkerGroup> = request
        .groups
        .iter()
        .map(|group| WorkerGroup {
            nthreads: group.nthreads,
            resources: group.resources.clone().into_iter().collect(),
            members: driver
                .workers
                .iter()
                .filter(|peer| group.deployments.contains(&convert::name(peer)))
                .map(|peer| peer.id)
                .collect(),
        })
        .collect();
    let wanted = core.desired_by_group(&groups, target);
    let names = request.groups.iter().map(|group| group.name.clone());
    v1::DesiredWorkers {
        total: convert::count(wanted.iter().sum()),
        by_group: names.zip(wanted.into_iter().map(convert::count)).collect(),
        reason,
    }
}
