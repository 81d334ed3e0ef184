//! `/api/v1`: what operators ask and tell a scheduler without speaking Dask's wire.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tracing::warn;

use super::{Cluster, Retire, Shared};

/// Says that the API is there, and where the control API is.
pub(super) async fn index<C: Cluster>(State(shared): State<Shared<C>>) -> Json<Value> {
    let mut about = Map::new();
    about.insert("api".to_owned(), json!("v1"));
    if let Some(port) = shared.cluster.control_port() {
        about.insert("control".to_owned(), json!(port));
    }
    Json(Value::Object(about))
}

/// Retires workers: `{"n": 2}` or `{"workers": ["tcp://…"]}`; answers with the identities of those that went.
pub(super) async fn retire_workers<C: Cluster>(
    State(shared): State<Shared<C>>,
    body: Bytes,
) -> Response {
    let which = match retire_request(&body) {
        Ok(which) => which,
        Err(reason) => return failure(StatusCode::BAD_REQUEST, &reason),
    };
    match shared.cluster.retire(which).await {
        Ok(retired) => Json(retired).into_response(),
        Err(reason) => {
            warn!(reason, "retire_workers failed");
            failure(StatusCode::INTERNAL_SERVER_ERROR, &reason)
        }
    }
}

fn retire_request(body: &[u8]) -> Result<Retire, String> {
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    match (body.get("n"), body.get("workers")) {
        (Some(n), _) if n.as_u64() != Some(0) => n
            .as_u64()
            .map(Retire::Number)
            .ok_or_else(|| format!("\"n\" is {n}, but should be a number of workers")),
        (_, Some(Value::Array(workers))) => workers
            .iter()
            .map(|worker| match worker {
                Value::String(worker) => Ok(worker.clone()),
                Value::Number(name) => Ok(name.to_string()),
                other => Err(format!(
                    "\"workers\" holds {other}, but should hold addresses"
                )),
            })
            .collect::<Result<_, _>>()
            .map(Retire::Workers),
        (_, Some(other)) => Err(format!(
            "\"workers\" is {other}, but should be a list of addresses"
        )),
        _ => Ok(Retire::Workers(Vec::new())),
    }
}

/// The workers by name and address.
pub(super) async fn get_workers<C: Cluster>(State(shared): State<Shared<C>>) -> Json<Value> {
    let snapshot = shared.cluster.snapshot();
    let workers: Vec<Value> = snapshot
        .workers
        .iter()
        .map(|worker| json!({"name": worker.name, "address": worker.address}))
        .collect();
    Json(json!({"num_workers": workers.len(), "workers": workers}))
}

/// How many workers would be right.
pub(super) async fn adaptive_target<C: Cluster>(State(shared): State<Shared<C>>) -> Json<Value> {
    Json(json!({"workers": shared.cluster.adaptive_target()}))
}

/// Since when nothing has been to do.
pub(super) async fn check_idle<C: Cluster>(State(shared): State<Shared<C>>) -> Json<Value> {
    Json(json!({"idle_since": shared.cluster.check_idle()}))
}

fn failure(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({"Error": reason}))).into_response()
}
