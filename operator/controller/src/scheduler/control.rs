//! The control API of our own scheduler.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::Uri;
use hyper_util::rt::TokioIo;
use oxidask_control::v1;
use oxidask_control::v1::control_client::ControlClient;
use oxidask_protocol::comm::Tls;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint as Target};

use super::{Demand, Endpoint, GroupOffer, Moved, Retired, SchedulerError, WorkerInfo};

/// How long an answer may take that needs no work.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(3);
/// A peer that does not answer a ping for so long is gone: a watch says nothing
/// for hours otherwise.
const PING: Duration = Duration::from_secs(10);

/// A connection to a scheduler's control API; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Control {
    client: ControlClient<Channel>,
}

impl Control {
    /// Connects, with certificates if the scheduler was started with some.
    pub(super) async fn connect(
        at: &Endpoint,
        port: u16,
        tls: Option<&Tls>,
    ) -> Result<Self, SchedulerError> {
        let failed = |error: &dyn std::error::Error| {
            SchedulerError::Control(format!("port {port}: {}", super::causes(error)))
        };
        let target = Target::from_shared(format!("http://{}:{port}", at.host_in_uri()))
            .map_err(|error| failed(&error))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true);
        let channel = match tls {
            None => target.connect().await,
            Some(tls) => {
                // As in the rest of Dask, the authority counts and host names do not: tonic's own
                // connector would check them.
                let mut config = rustls::ClientConfig::clone(&tls.client);
                config.alpn_protocols = vec![b"h2".to_vec()];
                let connector = TlsConnector::from(Arc::new(config));
                let host = at.host.clone();
                let open = move |_: Uri| open(connector.clone(), host.clone(), port);
                target.connect_with_connector(tower::service_fn(open)).await
            }
        };
        Ok(Self {
            client: ControlClient::new(channel.map_err(|error| failed(&error))?),
        })
    }

    async fn status(&mut self) -> Result<v1::ClusterStatus, SchedulerError> {
        let answer = self.client.get_status(soon(v1::GetStatusRequest {}));
        Ok(answer.await.map_err(refused)?.into_inner())
    }

    pub(super) async fn workers(&mut self) -> Result<Vec<WorkerInfo>, SchedulerError> {
        let status = self.status().await?;
        Ok(status
            .workers
            .into_iter()
            .map(|worker| WorkerInfo {
                address: worker.address,
                name: worker.deployment.unwrap_or(worker.name),
                nthreads: Some(worker.nthreads.into()),
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

    pub(super) async fn desired_workers(
        &mut self,
        groups: &[GroupOffer],
    ) -> Result<Demand, SchedulerError> {
        let answer = self.client.get_desired_workers(soon(offers(groups)));
        Ok(answer.await.map_err(refused)?.into_inner().into())
    }

    pub(super) async fn watch_desired_workers(
        &mut self,
        groups: &[GroupOffer],
    ) -> Result<BoxStream<'static, Result<Demand, SchedulerError>>, SchedulerError> {
        let answers = self.client.watch_desired_workers(offers(groups));
        let answers = tokio::time::timeout(ANSWER, answers)
            .await
            .map_err(|_| SchedulerError::Control(format!("no answer within {ANSWER:?}")))?
            .map_err(refused)?
            .into_inner();
        let demand = |answer: Result<v1::DesiredWorkers, _>| answer.map(Demand::from);
        Ok(answers
            .map(move |answer| demand(answer).map_err(refused))
            .boxed())
    }

    /// Retires workers; `moved` hears how far it is after each step.
    pub(super) async fn retire(
        &mut self,
        addresses: &[String],
        timeout: Duration,
        moved: Moved<'_>,
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
        let mut bytes: HashMap<String, (u64, u64)> = HashMap::new();
        // The scheduler ends the stream at the deadline; this is for one that does not.
        let end = tokio::time::Instant::now() + timeout + ANSWER;
        while let Ok(step) = tokio::time::timeout_at(end, progress.message()).await {
            let Some(step) = step.map_err(refused)? else {
                break;
            };
            bytes.insert(step.address.clone(), (step.bytes_moved, step.bytes_total));
            let sum = |part: fn(&(u64, u64)) -> u64| bytes.values().map(part).sum();
            moved(sum(|of| of.0), sum(|of| of.1));
            match step.state() {
                v1::RetireState::Retired | v1::RetireState::Gone => retired.done.push(step.address),
                v1::RetireState::Deadline | v1::RetireState::Failed => {
                    retired.left.push(step.address);
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

impl Control {
    /// Takes workers out of the scheduler's books: a retirement without time.
    pub(super) async fn remove(&mut self, addresses: &[String]) -> Result<(), SchedulerError> {
        let request = v1::RetireWorkersRequest {
            addresses: addresses.to_vec(),
            timeout_ms: Some(0),
            bar_names: Vec::new(),
            close: Some(true),
        };
        let answer = self.client.retire_workers(soon(request)).await;
        let mut progress = answer.map_err(refused)?.into_inner();
        while progress.message().await.map_err(refused)?.is_some() {}
        Ok(())
    }
}

async fn open(
    connector: TlsConnector,
    host: String,
    port: u16,
) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(connector.connect(name, stream).await?))
}

fn soon<T>(request: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(ANSWER);
    request
}

fn offers(groups: &[GroupOffer]) -> v1::GetDesiredWorkersRequest {
    let groups = groups.iter().map(|group| v1::WorkerGroup {
        name: group.name.clone(),
        nthreads: group.nthreads,
        resources: HashMap::new(),
        deployments: group.deployments.clone(),
    });
    v1::GetDesiredWorkersRequest {
        groups: groups.collect(),
        target_duration_seconds: None,
    }
}

impl From<v1::DesiredWorkers> for Demand {
    fn from(answer: v1::DesiredWorkers) -> Self {
        let by_group = answer.by_group.into_iter();
        Self {
            total: answer.total.into(),
            by_group: by_group.map(|(name, n)| (name, n.into())).collect(),
        }
    }
}

fn refused(status: tonic::Status) -> SchedulerError {
    if status.code() == tonic::Code::Unimplemented {
        return SchedulerError::Unsupported(status.message().to_owned());
    }
    SchedulerError::Control(format!("{}: {}", status.code(), status.message()))
}
