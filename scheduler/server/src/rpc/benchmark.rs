//! `benchmark_hardware`: how fast the workers' disks, memory and network are, measured by them.

use std::sync::Arc;

use futures::future::join_all;
use indexmap::IndexMap;
use oxidask_protocol::Value;

use super::reply::Refusal;
use super::{Answer, Outcome, broadcast};
use crate::server::Server;

/// Measurements by size, as text.
type BySize = IndexMap<String, Vec<f64>>;

/// `benchmark_hardware`: for each kind, the mean over the workers by size of the data.
pub(super) async fn hardware(server: &Arc<Server>) -> Outcome {
    let workers: Vec<Arc<str>> = {
        let driver = server.driver();
        let addresses = driver.workers.iter().map(|peer| Arc::clone(&peer.address));
        addresses.collect()
    };
    let alone = |op: &'static str| {
        let calls = workers
            .iter()
            .map(move |worker| (worker, message(op, None)));
        ask(server, calls.collect())
    };
    let disk = alone("benchmark_disk").await?;
    let memory = alone("benchmark_memory").await?;
    let pairs = workers.chunks_exact(2);
    let pairs = pairs.map(|pair| (&pair[0], message("benchmark_network", Some(&pair[1]))));
    let network = ask(server, pairs.collect()).await?;
    Answer::value(Value::map([
        ("disk", means(&disk)),
        ("memory", means(&memory)),
        ("network", means(&network)),
    ]))
}

fn message(op: &str, peer: Option<&Arc<str>>) -> Value {
    let mut fields = vec![("op", Value::from(op))];
    fields.extend(peer.map(|peer| ("address", (&**peer).into())));
    Value::map(fields)
}

async fn ask(server: &Server, calls: Vec<(&Arc<str>, Value)>) -> Result<BySize, Refusal> {
    let calls = calls
        .iter()
        .map(|(worker, message)| broadcast::send(server, worker, message));
    let mut all = BySize::new();
    for answer in join_all(calls).await {
        for (size, speed) in answer?.as_map().unwrap_or_default() {
            if let (Some(size), Some(speed)) = (size.as_str(), speed.as_f64()) {
                all.entry(size.to_owned()).or_default().push(speed);
            }
        }
    }
    Ok(all)
}

fn means(measured: &BySize) -> Value {
    let mean = |speeds: &[f64]| speeds.iter().sum::<f64>() / speeds.len() as f64;
    let means = measured.iter();
    Value::map(means.map(|(size, speeds)| (size.as_str(), Value::from(mean(speeds)))))
}
