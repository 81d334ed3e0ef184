//! The client for the API server, with its requests counted.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{BoxError, ServiceExt as _};

use crate::metrics::Metrics;

/// How long an answer may take to begin. Longer than the API server lets any
/// request take by itself, so it is the network that is silent.
const ANSWER: Duration = Duration::from_secs(65);

/// Connects as the environment says: a service account's token in a pod, else
/// the current context of the kubeconfig.
///
/// # Errors
/// Neither of them is there, or it cannot be read.
pub async fn connect(metrics: &Metrics) -> Result<Client> {
    let config = Config::infer().await.context(
        "failed to find an API server: neither a pod's service account nor a kubeconfig is there",
    )?;
    let client = ClientBuilder::try_from(config)
        .context("failed to set up the connection to the API server")?
        .build();
    Ok(patient(client, metrics))
}

/// The same client with each request counted, and given up when nothing
/// answers.
pub fn patient(client: Client, metrics: &Metrics) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(client.map_future_with(metrics.clone()), namespace)
}

/// Counts each request with its method and status.
trait Counted {
    fn map_future_with(self, metrics: Metrics) -> CountingService;
}

type CountingService = tower::util::BoxCloneService<Request<Body>, Response<Body>, BoxError>;

impl Counted for Client {
    fn map_future_with(self, metrics: Metrics) -> CountingService {
        let service = tower::service_fn(move |request: Request<Body>| {
            let (client, metrics) = (self.clone(), metrics.clone());
            async move {
                let method = request.method().as_str().to_owned();
                let answer = tokio::time::timeout(ANSWER, client.send(request))
                    .await
                    .map_err(|_| BoxError::from(format!("no answer within {ANSWER:?}")))
                    .and_then(|answer| answer.map_err(BoxError::from));
                let code = answer
                    .as_ref()
                    .map_or(0, |response| response.status().as_u16());
                metrics.api_request(&method, code);
                answer
            }
        });
        service.boxed_clone()
    }
}
