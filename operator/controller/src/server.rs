//! The operator's HTTP server: probes and metrics.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::metrics::Metrics;
use crate::run::Operator;

#[derive(Clone)]
struct Served {
    operator: Operator,
    metrics: Metrics,
}

/// Serves until `shutdown`.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    operator: Operator,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("failed to listen on {address}"))?;
    info!(%address, "serving /healthz, /readyz and /metrics");
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Served { operator, metrics });
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .context("the HTTP server failed")
}

/// Fails when work does not go on; the stock operator answers with the time.
async fn healthz(State(served): State<Served>) -> (StatusCode, Json<Value>) {
    match served.operator.health() {
        Ok(()) => (
            StatusCode::OK,
            Json(json!({"now": jiff::Timestamp::now().to_string()})),
        ),
        Err(fault) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"fault": fault})),
        ),
    }
}

/// Fails until all resources are known or another process leads.
async fn readyz(State(served): State<Served>) -> StatusCode {
    if served.operator.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn metrics_text(State(served): State<Served>) -> String {
    served.operator.sample_metrics();
    served.metrics.text()
}
