//! The HTTP server: health, metrics, the API that operators call, the state as JSON, a status page.
//!
//! It reads through [`Cluster`], so it knows neither the driver nor the wire.

mod api;
mod cluster;
mod listener;
mod metrics;
mod of_server;
mod page;
pub mod pages;
mod process;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

pub use cluster::{Cluster, PrefixRow, Retire, SemaphoreRow, Snapshot, WorkerRow};
use listener::Impatient;
pub use metrics::render as render_metrics;

/// Largest body of a request. A list of 10,000 worker addresses fits.
const MAX_BODY: usize = 1 << 20;

/// Time in which a connection must send its first byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the pages are made from.
#[derive(Debug)]
struct Shared<C> {
    cluster: Arc<C>,
    /// First word of the names of metrics.
    namespace: String,
}

impl<C> Clone for Shared<C> {
    fn clone(&self) -> Self {
        Self {
            cluster: Arc::clone(&self.cluster),
            namespace: self.namespace.clone(),
        }
    }
}

/// All pages, under `prefix` too unless it is empty. `namespace` begins the names of metrics.
pub fn router<C: Cluster>(cluster: Arc<C>, prefix: &str, namespace: &str) -> Router {
    let pages = Router::new()
        .route("/", get(page::status::<C>))
        .route("/status", get(page::status::<C>))
        .route("/health", get(|| async { text("ok") }))
        .route("/metrics", get(metrics::metrics::<C>))
        .route("/api/v1", get(api::index::<C>))
        .route("/api/v1/retire_workers", post(api::retire_workers::<C>))
        .route("/api/v1/get_workers", get(api::get_workers::<C>))
        .route("/api/v1/adaptive_target", get(api::adaptive_target::<C>))
        .route("/api/v1/check_idle", get(api::check_idle::<C>))
        .route("/json/counts.json", get(state::counts::<C>))
        .route("/json/identity.json", get(state::identity::<C>))
        .route("/json/state.json", get(state::state::<C>))
        .with_state(Shared {
            cluster,
            namespace: namespace.to_owned(),
        });
    let pages = if prefix.is_empty() {
        pages
    } else {
        // Probes ask for /health whatever the prefix is.
        pages.clone().nest(&format!("/{prefix}"), pages)
    };
    pages
        .fallback(|| async { (StatusCode::NOT_FOUND, text("no such page")) })
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
}

/// Serves the pages until `shutdown` is over.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    serve_within(listener, router, shutdown, PATIENCE).await
}

async fn serve_within(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    patience: Duration,
) -> std::io::Result<()> {
    axum::serve(Impatient::new(listener, patience), router)
        .with_graceful_shutdown(shutdown)
        .await
}

fn text(body: impl Into<String>) -> Response {
    with_type("text/plain; charset=utf-8", body.into())
}

fn with_type(content_type: &'static str, body: String) -> Response {
    let header = (header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    ([header], body).into_response()
}
