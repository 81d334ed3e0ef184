//! The control API of our own scheduler.

use std::time::Duration;

use oxidask_control::v1;
use oxidask_control::v1::control_client::ControlClient;
use tonic::transport::{Channel, Endpoint as Target};

use super::{Endpoint, Retired, SchedulerError, WorkerInfo};

/// How long an answer may take that needs no work.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection to a scheduler's control API.
pub(super) struct Control {
    client: ControlClient<Channel>,
}

impl Control {
    pub(super) async fn connect(at: &Endpoint, port: u16) -> Result<Self, SchedulerError> {
        let host = if at.host.contains(':') {
            format!("[{}]", at.host)
        } else {
            at.host.clone()
        };
        let channel = Target::from_shared(format!("http://{host}:{port}"))
            .map_err(|error| SchedulerError::Control(error.to_string()))?
            .connect_timeout(Duration::from_secs(3))
            .connect()
            .await
            .map_err(|error| SchedulerError::Control(format!("port {port}: {error}")))?;
        Ok(Self {
            client: ControlClient::new(channel),
        })
    }

    async fn status(&mut self) -> Result<v1::ClusterStatus, SchedulerError> {
        let mut request = tonic::Request::new(v1::GetStatusRequest {});
        request.set_timeout(ANSWER);
        let answer = self.client.get_status(request).await.map_err(refused)?;
        Ok(answer.into_inner())
    }

    pub(super) async fn workers(&mut self) -> Result<Vec<WorkerInfo>, SchedulerError> {
        let status = self.status().await?;
        Ok(status
            .workers
            .into_iter()
            .map(|worker| WorkerInfo {
                address: worker.address,
                name: worker.deployment.unwrap_or(worker.name),
                processing: worker.processing.max(worker.executing).into(),
                results: worker.bytes.min(1),
                bytes: worker.unique_bytes,
            })
            .collect())
    }

    pub(super) async fn idle_since(&mut self) -> Result<Option<f64>, SchedulerError> {
        let status = self.status().await?;
        Ok(status.idle_since_ms.map(|ms| ms as f64 / 1000.0))
    }

    pub(super) async fn desired_workers(&mut self) -> Result<i64, SchedulerError> {
        let mut request = tonic::Request::new(v1::GetDesiredWorkersRequest::default());
        request.set_timeout(ANSWER);
        let answer = self
            .client
            .get_desired_workers(request)
            .await
            .map_err(refused)?;
        Ok(answer.into_inner().total.into())
    }

    pub(super) async fn retire(
        &mut self,
        addresses: &[String],
        timeout: Duration,
    ) -> Result<Retired, SchedulerError> {
        let request = v1::RetireWorkersRequest {
            addresses: addresses.to_vec(),
            timeout_ms: Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            bar_names: Vec::new(),
            close: Some(false),
        };
        let mut progress = self
            .client
            .retire_workers(request)
            .await
            .map_err(refused)?
            .into_inner();
        let mut retired = Retired::default();
        while let Some(step) = progress.message().await.map_err(refused)? {
            match step.state() {
                v1::RetireState::Retired | v1::RetireState::Gone => retired.done.push(step.address),
                v1::RetireState::Deadline | v1::RetireState::Failed => {
                    retired.left.push(step.address)
                }
                v1::RetireState::Moving | v1::RetireState::Unspecified => {}
            }
        }
        for address in addresses {
            if !retired.done.contains(address) && !retired.left.contains(address) {
                retired.left.push(address.clone());
            }
        }
        Ok(retired)
    }
}

fn refused(status: tonic::Status) -> SchedulerError {
    SchedulerError::Control(format!("{}: {}", status.code(), status.message()))
}
