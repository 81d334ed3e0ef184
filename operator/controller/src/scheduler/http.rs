//! The scheduler's HTTP API, `/api/v1`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::{Endpoint, causes};

/// Longest answer that is read.
const MAX_ANSWER: usize = 16 << 20;

/// A client for all schedulers; connections are kept for a while.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(10))
            .build(connector);
        Self { client }
    }

    /// The JSON that `GET` gives, or why there is none, in a sentence.
    pub(super) async fn get(
        &self,
        at: &Endpoint,
        path: &str,
        timeout: Duration,
    ) -> Result<Value, String> {
        self.ask(at, "GET", path, Bytes::new(), timeout).await
    }

    /// The JSON that `POST` gives, or why there is none, in a sentence.
    pub(super) async fn post(
        &self,
        at: &Endpoint,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<Value, String> {
        self.ask(at, "POST", path, Bytes::from(body.to_string()), timeout)
            .await
    }

    async fn ask(
        &self,
        at: &Endpoint,
        method: &str,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Value, String> {
        let host = at.host_in_uri();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{host}:{}{path}", at.http))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| format!("{method} {path}: {error}"))?;
        let answer = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| format!("{method} {path}: {}", causes(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| format!("{method} {path}: {error}"))?
                .to_bytes();
            if !status.is_success() {
                return Err(format!("{method} {path}: status {status}"));
            }
            serde_json::from_slice(&body)
                .map_err(|_| format!("{method} {path}: the answer is not JSON"))
        };
        tokio::time::timeout(timeout, answer)
            .await
            .unwrap_or_else(|_| Err(format!("{method} {path}: no answer within {timeout:?}")))
    }
}
