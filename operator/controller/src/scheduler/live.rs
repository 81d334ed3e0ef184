//! Asks a real scheduler: the control API where it is announced, else the
//! HTTP API, else Dask's RPC.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::control::Control;
use super::http::Http;
use super::rpc::Rpc;
use super::{Endpoint, Retired, SchedulerApi, SchedulerError, WorkerInfo};

/// How long an answer over HTTP may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it is remembered which way a scheduler can be asked.
const REMEMBER: Duration = Duration::from_secs(600);

/// The real [`SchedulerApi`].
#[derive(Debug)]
pub struct Live {
    http: Http,
    /// By pod: the control port it announces, if any, and when that was asked.
    control_ports: Mutex<HashMap<String, (Option<u16>, Instant)>>,
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Live {
    /// Without connections; they are opened when needed.
    pub fn new() -> Self {
        Self {
            http: Http::new(),
            control_ports: Mutex::default(),
        }
    }

    /// The port of the control API, if the scheduler announces one.
    async fn control_port(&self, at: &Endpoint) -> Option<u16> {
        let known = {
            let ports = self
                .control_ports
                .lock()
                .expect("no holder of this lock panics");
            ports.get(&at.pod).copied()
        };
        if let Some((port, asked)) = known
            && asked.elapsed() < REMEMBER
        {
            return port;
        }
        // A stock scheduler answers with text, or with 404.
        let answer = self.http.get(at, "/api/v1", ANSWER).await;
        let port = answer
            .ok()
            .and_then(|answer| u16::try_from(answer["control"].as_u64()?).ok());
        let mut ports = self
            .control_ports
            .lock()
            .expect("no holder of this lock panics");
        ports.retain(|_, (_, asked)| asked.elapsed() < REMEMBER);
        ports.insert(at.pod.clone(), (port, Instant::now()));
        port
    }

    async fn control(&self, at: &Endpoint) -> Option<Control> {
        let port = self.control_port(at).await?;
        Control::connect(at, port).await.ok()
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

impl SchedulerApi for Live {
    fn workers<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Vec<WorkerInfo>, SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                return control.workers().await;
            }
            // RPC first: it knows what each worker has, HTTP only their names.
            let rpc = async { Rpc::connect(at).await?.workers().await };
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

    fn retire<'a>(
        &'a self,
        at: &'a Endpoint,
        addresses: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Retired, SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                return control.retire(addresses, timeout).await;
            }
            // RPC first, because over HTTP the workers are removed at once:
            // their running tasks are lost, and their pods start them anew.
            let rpc = async { Rpc::connect(at).await?.retire(addresses, timeout).await };
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

    fn desired_workers<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<i64, SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                return control.desired_workers().await;
            }
            let path = "/api/v1/adaptive_target";
            let http_error = match self.http.get(at, path, ANSWER).await {
                Ok(answer) => {
                    return answer["workers"]
                        .as_f64()
                        .map(|n| n as i64)
                        .ok_or_else(|| unexpected(path, &answer));
                }
                Err(error) => error,
            };
            let rpc = async { Rpc::connect(at).await?.desired_workers().await };
            rpc.await
                .map_err(|comm_error| unreachable(at, http_error, comm_error))
        }
        .boxed()
    }

    fn idle_since<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Option<f64>, SchedulerError>> {
        async move {
            if let Some(mut control) = self.control(at).await {
                return control.idle_since().await;
            }
            let http_error = match self.http.get(at, "/api/v1/check_idle", ANSWER).await {
                Ok(answer) => return Ok(answer["idle_since"].as_f64()),
                Err(error) => error,
            };
            let rpc = async { Rpc::connect(at).await?.idle_since().await };
            rpc.await
                .map_err(|comm_error| unreachable(at, http_error, comm_error))
        }
        .boxed()
    }
}

fn unexpected(question: &str, answer: &Value) -> SchedulerError {
    let mut answer = answer.to_string();
    answer.truncate(200);
    SchedulerError::Answer {
        question: question.to_owned(),
        answer,
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
