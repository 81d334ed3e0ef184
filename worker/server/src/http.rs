//! `/health` and `/metrics`, for probes and Prometheus.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use oxidask_protocol::Value;
use prometheus::{Encoder, GaugeVec, Opts, Registry, TextEncoder};
use tokio::net::TcpListener;

use crate::{
    input::{CurrentInputs, Query},
    scheduler::ask,
};

/// Serve until the process ends.
pub(crate) async fn serve(listener: TcpListener, inputs: CurrentInputs) {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(inputs);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "HTTP ended");
    }
}

/// Answers as long as the driver answers.
async fn health(State(inputs): State<CurrentInputs>) -> (StatusCode, &'static str) {
    match ask(&inputs.get(), Query::Identity).await {
        Some(_) => (StatusCode::OK, "ok"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    }
}

async fn metrics(State(inputs): State<CurrentInputs>) -> (StatusCode, String) {
    let Some(metrics) = ask(&inputs.get(), Query::State).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    };
    match render(&metrics) {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Distributed's own names, from the metrics that the scheduler gets.
fn render(state: &Value) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
    let number = |path: &[&str]| {
        let value = path.iter().try_fold(state, |value, name| value.field(name));
        value.and_then(Value::as_f64).unwrap_or_default()
    };
    let family = |name: &str, help: &str, label: &[&str]| -> Result<GaugeVec, prometheus::Error> {
        let gauges = GaugeVec::new(Opts::new(name, help), label)?;
        registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    };
    let tasks = family(
        "dask_worker_tasks",
        "Number of tasks at worker.",
        &["state"],
    )?;
    for (name, count) in state
        .field("task_counts")
        .and_then(Value::as_map)
        .unwrap_or_default()
    {
        if let (Some(name), Some(count)) = (name.as_str(), count.as_f64()) {
            tasks.with_label_values(&[name]).set(count);
        }
    }
    let threads = family("dask_worker_threads", "Number of worker threads.", &[])?;
    threads
        .with_label_values::<&str>(&[])
        .set(number(&["nthreads"]));
    let memory = family("dask_worker_memory_bytes", "Memory breakdown.", &["type"])?;
    let managed = number(&["managed_bytes"]) - number(&["spilled_bytes", "memory"]);
    memory.with_label_values(&["managed"]).set(managed);
    memory
        .with_label_values(&["unmanaged"])
        .set((number(&["memory"]) - managed).max(0.0));
    memory
        .with_label_values(&["spilled"])
        .set(number(&["spilled_bytes", "disk"]));
    for (name, path, help) in [
        (
            "dask_worker_transfer_incoming_bytes",
            "incoming_bytes",
            "Bytes of incoming transfers.",
        ),
        (
            "dask_worker_transfer_incoming_count",
            "incoming_count",
            "Number of incoming transfers.",
        ),
        (
            "dask_worker_transfer_incoming_count_total",
            "incoming_count_total",
            "Incoming transfers since the start.",
        ),
        (
            "dask_worker_transfer_outgoing_count",
            "outgoing_count",
            "Number of outgoing transfers.",
        ),
    ] {
        family(name, help, &[])?
            .with_label_values::<&str>(&[])
            .set(number(&["transfer", path]));
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_metrics_are_those_that_are_served() {
        let text = render(&Value::map([(
            "task_counts",
            Value::map([("ready", Value::Int(1))]),
        )]))
        .unwrap();
        let mut served: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        served.sort_unstable();
        let table = include_str!("../../../docs/metrics.md")
            .split("## Worker")
            .nth(1)
            .unwrap();
        let documented: Vec<_> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(documented, served);
    }

    #[test]
    fn metrics_have_the_names_of_distributed() {
        let state = Value::map([
            ("task_counts", Value::map([("executing", Value::Int(2))])),
            ("nthreads", Value::Int(4)),
            ("managed_bytes", Value::Int(100)),
            ("memory", Value::Int(150)),
        ]);
        let text = render(&state).unwrap();
        assert!(
            text.contains("dask_worker_tasks{state=\"executing\"} 2"),
            "{text}"
        );
        assert!(text.contains("dask_worker_threads 4"), "{text}");
        assert!(
            text.contains("dask_worker_memory_bytes{type=\"unmanaged\"} 50"),
            "{text}"
        );
    }
}
