//! Asks a real scheduler: the control API where it is announced, else the
//! HTTP API, else Dask's RPC.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::certificates::Certificates;
use super::control::Control;
use super::http::Http;
use super::rpc::Rpc;
use super::{
    Demand, Demands, Endpoint, GroupOffer, Moved, Retired, SchedulerApi, SchedulerError, WorkerInfo,
};

/// How long an answer over HTTP may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it is remembered which way a scheduler can be asked.
const REMEMBER: Duration = Duration::from_secs(600);

/// The real [`SchedulerApi`].
pub struct Live {
    http: Http,
    certificates: Certificates,
    /// By pod: the connection to its control API, if it announces one, and
    /// when that was asked.
    controls: Mutex<HashMap<String, (Option<Control>, Instant)>>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Live {
    /// Without connections; they are opened when needed. `client` reads the
    /// certificates of clusters that speak TLS.
    pub fn new(client: Option<Client>) -> Self {
        Self {
            http: Http::new(),
            certificates: Certificates::new(client),
            controls: Mutex::default(),
        }
    }

    /// The control API, if the scheduler announces it and can be reached there.
    async fn control(&self, at: &Endpoint) -> Option<Control> {
        let known = {
            let controls = self.controls.lock().expect("no holder of this lock panics");
            controls.get(&at.pod).cloned()
        };
        if let Some((control, asked)) = known
            && asked.elapsed() < REMEMBER
        {
            return control;
        }
        // A stock scheduler answers with text, or with 404.
        let answer = self.http.get(at, "/api/v1", ANSWER).await.ok();
        let port = answer.and_then(|answer| u16::try_from(answer["control"].as_u64()?).ok());
        let control = match port {
            Some(port) => {
                let tls = self.certificates.of(at).await.ok()?;
                Some(Control::connect(at, port, tls.as_ref()).await.ok()?)
            }
            None => None,
        };
        let mut controls = self.controls.lock().expect("no holder of this lock panics");
        controls.retain(|_, (_, asked)| asked.elapsed() < REMEMBER);
        controls.insert(at.pod.clone(), (control.clone(), Instant::now()));
        control
    }

    async fn rpc(&self, at: &Endpoint) -> Result<Rpc, String> {
        let tls = self.certificates.of(at).await?;
        Rpc::connect(at, tls.as_ref()).await
    }
}

fn unreachable(at: &Endpoint, http_error: String, comm_error: String) -> SchedulerError {
    SchedulerError::Unreachable {
        host: at.host.clone(),
        http: at.http,
        comm: at.comm,
        http_error,
        comm_error,
    }
}

/// Gives the answer of the control API back, unless it does not have the
/// question: then the other ways are tried.
macro_rules! answered {
    ($answer:expr) => {
        match $answer.await {
            Err(SchedulerError::Unsupported(_)) => {}
            answer => return answer,
        }
    };
}

impl SchedulerApi for Live {
    fn workers<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Vec<WorkerInfo>, SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                answered!(control.workers());
            }
            // RPC first: it knows what each worker has, HTTP only their names.
            let rpc = async { self.rpc(at).await?.workers().await };
            let comm_error = match rpc.await {
                Ok(workers) => return Ok(workers),
                Err(error) => error,
            };
            match self.http.get(at, "/api/v1/get_workers", ANSWER).await {
                Ok(answer) => Ok(named_workers(&answer)),
                Err(http_error) => Err(unreachable(at, http_error, comm_error)),
            }
        }
        .boxed()
    }

    fn connected<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Vec<WorkerInfo>, SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                answered!(control.workers());
            }
            let rpc = async { self.rpc(at).await?.connected().await };
            let http_error = "not asked".to_owned();
            rpc.await
                .map_err(|comm_error| unreachable(at, http_error, comm_error))
        }
        .boxed()
    }

    fn retire<'a>(
        &'a self,
        at: &'a Endpoint,
        addresses: &'a [String],
        timeout: Duration,
        moved: Moved<'a>,
    ) -> BoxFuture<'a, Result<Retired, SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                answered!(control.retire(addresses, timeout, moved));
            }
            // RPC first, because over HTTP the workers are removed at once:
            // their running tasks are lost, and their pods start them anew.
            let rpc = async { self.rpc(at).await?.retire(addresses, timeout).await };
            let comm_error = match rpc.await {
                Ok(retired) => return Ok(retired),
                Err(error) => error,
            };
            let body = json!({"workers": addresses});
            match self
                .http
                .post(at, "/api/v1/retire_workers", &body, timeout)
                .await
            {
                Ok(_) => Ok(Retired {
                    done: addresses.to_vec(),
                    left: Vec::new(),
                }),
                Err(http_error) => Err(unreachable(at, http_error, comm_error)),
            }
        }
        .boxed()
    }

    fn remove<'a>(
        &'a self,
        at: &'a Endpoint,
        addresses: &'a [String],
    ) -> BoxFuture<'a, Result<(), SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                answered!(control.remove(addresses));
            }
            let rpc = async { self.rpc(at).await?.remove(addresses).await };
            let http_error = "not asked".to_owned();
            rpc.await
                .map_err(|comm_error| unreachable(at, http_error, comm_error))
        }
        .boxed()
    }

    fn desired_workers<'a>(
        &'a self,
        at: &'a Endpoint,
        groups: &'a [GroupOffer],
    ) -> BoxFuture<'a, Result<Demand, SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                answered!(control.desired_workers(groups));
            }
            let path = "/api/v1/adaptive_target";
            let total = |total: i64| Demand {
                total,
                ..Demand::default()
            };
            let http_error = match self.http.get(at, path, ANSWER).await {
                Ok(answer) => {
                    return answer["workers"]
                        .as_f64()
                        .map(|n| total(n as i64))
                        .ok_or_else(|| unexpected(path, &answer));
                }
                Err(error) => error,
            };
            let rpc = async { self.rpc(at).await?.desired_workers().await };
            rpc.await
                .map(total)
                .map_err(|comm_error| unreachable(at, http_error, comm_error))
        }
        .boxed()
    }

    fn watch_desired_workers<'a>(
        &'a self,
        at: &'a Endpoint,
        groups: &'a [GroupOffer],
    ) -> BoxFuture<'a, Result<Option<Demands>, SchedulerError>> {
        async move {
            let Some(mut control) = self.control(at).await else {
                return Ok(None);
            };
            match control.watch_desired_workers(groups).await {
                Err(SchedulerError::Unsupported(_)) => Ok(None),
                demands => demands.map(Some),
            }
        }
        .boxed()
    }

    fn idle_since<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Option<f64>, SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                answered!(control.idle_since());
            }
            let http_error = match self.http.get(at, "/api/v1/check_idle", ANSWER).await {
                Ok(answer) => return Ok(answer["idle_since"].as_f64()),
                Err(error) => error,
            };
            let rpc = async { self.rpc(at).await?.idle_since().await };
            rpc.await
                .map_err(|comm_error| unreachable(at, http_error, comm_error))
        }
        .boxed()
    }
}

fn unexpected(question: &str, answer: &Value) -> SchedulerError {
    SchedulerError::Answer {
        question: question.to_owned(),
        answer: answer.to_string().chars().take(200).collect(),
    }
}

fn named_workers(answer: &Value) -> Vec<WorkerInfo> {
    let workers = answer["workers"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    workers
        .iter()
        .map(|worker| WorkerInfo {
            address: worker["address"].as_str().unwrap_or_default().to_owned(),
            name: match &worker["name"] {
                Value::String(name) => name.clone(),
                other => other.to_string(),
            },
            ..WorkerInfo::default()
        })
        .collect()
}
