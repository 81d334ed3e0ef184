//! What the operator asks of a scheduler, whichever way it can be asked.
//!
//! [`Live`] asks a scheduler of ours through the control API, and a stock one
//! through its HTTP API or Dask's RPC. Tests put something else in its place.

mod certificates;
mod control;
mod http;
mod live;
mod rpc;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use live::Live;

use crate::views::{PodView, ServiceView};

/// Where a scheduler listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address of its pod.
    pub host: String,
    /// Port of its dashboard and HTTP API.
    pub http: u16,
    /// Port of Dask's protocol.
    pub comm: u16,
    /// The pod's uid: another process has another one.
    pub pod: String,
    /// Namespace and name of the Secret whose certificates it was started
    /// with, if it speaks TLS.
    pub secret: Option<(String, String)>,
}

impl Endpoint {
    /// The endpoint of a scheduler pod that is ready, or `None` if it is not.
    /// Ports are those of the Service named `tcp-comm` and `http-dashboard`
    /// (or like the Service itself), as clients look them up.
    pub fn of(pod: &PodView, service: Option<&ServiceView>) -> Option<Self> {
        if !pod.is_ready() {
            return None;
        }
        Some(Self {
            host: pod.status.pod_ip.clone()?,
            http: port(pod, service, "http-dashboard", 8787),
            comm: port(pod, service, "tcp-comm", 8786),
            pod: pod.metadata.uid.clone().unwrap_or_default(),
            secret: None,
        })
    }

    fn host_in_uri(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        }
    }
}

/// The pod's port behind the Service's port of that name.
fn port(pod: &PodView, service: Option<&ServiceView>, name: &str, default: u16) -> u16 {
    let named = |name: &str| {
        let ports = pod
            .spec
            .containers
            .iter()
            .flat_map(|container| &container.ports);
        ports
            .clone()
            .find(|port| port.name == name)
            .map(|port| port.container_port)
    };
    let of_service =
        service.and_then(|service| service.spec.ports.iter().find(|port| port.name == name));
    let Some(port) = of_service else {
        return named(name).unwrap_or(default);
    };
    if let Some(number) = port
        .target_port
        .as_u64()
        .and_then(|number| u16::try_from(number).ok())
    {
        return number;
    }
    let target = port.target_port.as_str();
    let number = target.and_then(|text| text.parse().ok());
    number
        .or_else(|| target.and_then(named))
        .unwrap_or(port.port)
}

/// A worker, as its scheduler knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerInfo {
    /// Its address, `tcp://host:port`.
    pub address: String,
    /// The name it was started with; its Deployment's, unless the user chose
    /// another.
    pub name: String,
    /// Its slots for tasks, where the scheduler says so.
    pub nthreads: Option<u64>,
    /// Tasks assigned to it and not finished.
    pub processing: u64,
    /// Results it holds.
    pub results: u64,
    /// Bytes of results: those that only it holds where the scheduler says so,
    /// else all of them.
    pub bytes: u64,
}

impl WorkerInfo {
    /// The host of its address, which is its pod's.
    pub fn host(&self) -> &str {
        let rest = self
            .address
            .split_once("://")
            .map_or(&*self.address, |(_, rest)| rest);
        let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
        host.trim_matches(['[', ']'])
    }
}

/// What one worker of a group offers, and which workers the group has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupOffer {
    /// Name of the group.
    pub name: String,
    /// Threads of a worker; 0 if not known.
    pub nthreads: u32,
    /// Deployments of its workers.
    pub deployments: Vec<String>,
}

/// How many workers a scheduler would like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// In all.
    pub total: i64,
    /// By group, where the scheduler tells groups apart.
    pub by_group: BTreeMap<String, i64>,
}

/// Demands, each after a change.
pub type Demands = BoxStream<'static, Result<Demand, SchedulerError>>;

/// Hears how far a retirement is: bytes moved so far, and bytes in all.
pub type Moved<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// How a retirement ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retired {
    /// Workers that can be ended without loss; unknown ones are among them.
    pub done: Vec<String>,
    /// Workers that still have tasks or results.
    pub left: Vec<String>,
}

/// Why a scheduler could not be asked, or did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// None of the ways to ask it works.
    #[error(
        "the scheduler at {host} answers neither on port {http} (HTTP) nor on port {comm} (Dask's protocol): {http_error}; {comm_error}"
    )]
    Unreachable {
        /// Its pod's address.
        host: String,
        /// The HTTP port tried.
        http: u16,
        /// The protocol's port tried.
        comm: u16,
        /// What came of the first.
        http_error: String,
        /// What came of the second.
        comm_error: String,
    },
    /// It answered with something else than expected.
    #[error("unexpected answer to {question}: {answer}")]
    Answer {
        /// What was asked.
        question: String,
        /// What came, shortened.
        answer: String,
    },
    /// The control API refused.
    #[error("control API: {0}")]
    Control(String),
    /// The control API of this scheduler does not have the question.
    #[error("control API: not served: {0}")]
    Unsupported(String),
}

/// The questions.
pub trait SchedulerApi: Send + Sync + 'static {
    /// The workers that are connected.
    fn workers<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Vec<WorkerInfo>, SchedulerError>>;

    /// The same with nothing but addresses and names: for a question that is
    /// asked often and must cost a stock scheduler little.
    fn connected<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Vec<WorkerInfo>, SchedulerError>> {
        self.workers(at)
    }

    /// Gives workers no more tasks, waits until they have none, and moves
    /// their results to others, for at most `timeout`. They stay connected, so
    /// that nothing starts them anew; ending them is up to the caller. `moved`
    /// hears how far it is, where the scheduler says so.
    fn retire<'a>(
        &'a self,
        at: &'a Endpoint,
        addresses: &'a [String],
        timeout: Duration,
        moved: Moved<'a>,
    ) -> BoxFuture<'a, Result<Retired, SchedulerError>>;

    /// Takes workers out of its books, whatever they still have: their time is
    /// over, and others are to begin with their tasks at once.
    fn remove<'a>(
        &'a self,
        at: &'a Endpoint,
        addresses: &'a [String],
    ) -> BoxFuture<'a, Result<(), SchedulerError>>;

    /// How many workers it would like, of these groups.
    fn desired_workers<'a>(
        &'a self,
        at: &'a Endpoint,
        groups: &'a [GroupOffer],
    ) -> BoxFuture<'a, Result<Demand, SchedulerError>>;

    /// The same at once and after each change; `None` if it must be asked.
    fn watch_desired_workers<'a>(
        &'a self,
        at: &'a Endpoint,
        groups: &'a [GroupOffer],
    ) -> BoxFuture<'a, Result<Option<Demands>, SchedulerError>>;

    /// Since when it has had nothing to do, in seconds since the epoch; `None`
    /// while it is busy.
    fn idle_since<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Option<f64>, SchedulerError>>;
}

/// An error with all its causes, as one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: &str) -> PodView {
        serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "spec": {"containers": [{"ports": [{"name": "tcp-comm", "containerPort": 1786}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn ports_are_those_behind_the_service() {
        let service = serde_json::from_value(json!({"spec": {"ports": [
            {"name": "tcp-comm", "port": 80, "targetPort": "tcp-comm"},
            {"name": "http-dashboard", "port": 81, "targetPort": 9787},
        ]}}))
        .unwrap();
        let endpoint = Endpoint::of(&pod("True"), Some(&service)).unwrap();
        assert_eq!((endpoint.comm, endpoint.http), (1786, 9787));
        let endpoint = Endpoint::of(&pod("True"), None).unwrap();
        assert_eq!((endpoint.comm, endpoint.http), (1786, 8787));
    }

    #[test]
    fn a_pod_that_is_not_ready_has_no_endpoint() {
        assert_eq!(Endpoint::of(&pod("False"), None), None);
    }

    #[test]
    fn the_host_of_a_worker_is_found_in_either_form() {
        let host = |address: &str| {
            WorkerInfo {
                address: address.to_owned(),
                ..WorkerInfo::default()
            }
            .host()
            .to_owned()
        };
        assert_eq!(host("tcp://10.0.0.1:4000"), "10.0.0.1");
        assert_eq!(host("tls://[fd00::1]:4000"), "fd00::1");
    }
}
