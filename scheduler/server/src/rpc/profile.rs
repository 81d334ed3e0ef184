//! `profile`: what the threads of workers do, sampled there and merged here.

use std::sync::Arc;

use futures::future::join_all;
use indexmap::IndexMap;
use oxidask_protocol::Value;
use oxidask_protocol::message::rpc::{Profile, ProfileMetadata};
use tracing::debug;

use super::reply::raise;
use super::{Answer, Outcome, broadcast, coerce};
use crate::server::Server;

/// Time between two profiles of a worker, as long as it is not set (`distributed.worker.profile.cycle`). Unit: seconds.
const CYCLE: f64 = 1.0;

/// `profile`: one tree for all workers, or one for each. The scheduler itself runs no Python, so its own is empty.
pub(super) async fn profile(server: &Arc<Server>, body: Profile) -> Outcome {
    if body.scheduler {
        return Answer::value(empty());
    }
    let workers = workers(server, &body.workers);
    let message = Value::map([
        ("op", Value::from("profile")),
        ("start", body.start),
        ("stop", body.stop),
        ("key", body.key),
        ("server", body.server.into()),
    ]);
    let message = &message;
    let calls = workers.iter().map(|address| async move {
        let tree = broadcast::send(server, address, message).await;
        (address, tree)
    });
    let mut trees = Vec::new();
    for (address, tree) in join_all(calls).await {
        match tree {
            Ok(tree) => trees.push((address, tree)),
            // Those that do not answer are left out, as in stock Dask.
            Err(failure) => {
                debug!(worker = %address, error = failure.exception_text, "no profile");
            }
        }
    }
    if body.merge_workers {
        let trees: Vec<Value> = trees.into_iter().map(|(_, tree)| tree).collect();
        return Answer::value(merge(&trees.iter().collect::<Vec<_>>()));
    }
    Answer::value(Value::map(
        trees.into_iter().map(|(address, tree)| (&**address, tree)),
    ))
}

/// The workers that are asked: those named that are there, or all.
fn workers(server: &Server, names: &Value) -> Vec<Arc<str>> {
    let driver = server.driver();
    match names.as_array() {
        None => driver
            .workers
            .iter()
            .map(|peer| Arc::clone(&peer.address))
            .collect(),
        Some(names) => names
            .iter()
            .filter_map(|name| coerce(&driver, name).ok())
            .filter(|address| driver.workers.by_address(address).is_some())
            .collect(),
    }
}

/// `profile_metadata`: how many samples there are over time, in all and by prefix.
///
/// Source: distributed `Scheduler.get_profile_metadata`.
pub(super) async fn metadata(server: &Arc<Server>, body: ProfileMetadata) -> Outcome {
    let cycle = body.profile_cycle_interval.0.unwrap_or(CYCLE);
    if cycle <= 0.0 {
        return Err(raise(
            "ValueError",
            "profile_cycle_interval must be positive",
        ));
    }
    let wanted = body.workers.map_or(Value::Nil, Value::Array);
    let message = Value::map([
        ("op", Value::from("profile_metadata")),
        ("start", body.start.as_f64().unwrap_or(0.0).into()),
        ("stop", body.stop),
    ]);
    let message = &message;
    let calls = workers(server, &wanted).into_iter();
    let calls =
        calls.map(|address| async move { broadcast::send(server, &address, message).await.ok() });
    let answers: Vec<Value> = join_all(calls).await.into_iter().flatten().collect();
    Answer::value(over_time(&answers, cycle))
}

/// Sums what workers sampled, by interval.
fn over_time(answers: &[Value], cycle: f64) -> Value {
    let rows = |name: &'static str| {
        let of_worker = move |answer: &Value| {
            let rows = answer
                .field(name)
                .and_then(Value::as_array)
                .unwrap_or_default();
            rows.iter().filter_map(pair).collect::<Vec<_>>()
        };
        let mut rows: Vec<(f64, Value)> = answers.iter().flat_map(of_worker).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        rows.into_iter()
            .map(move |(at, what)| ((at / cycle).floor() * cycle, what))
    };
    let mut counts: Vec<(f64, u64)> = Vec::new();
    for (at, count) in rows("counts") {
        let count = count.as_u64().unwrap_or(0);
        match counts.last_mut().filter(|(last, _)| *last == at) {
            Some((_, sum)) => *sum += count,
            None => counts.push((at, count)),
        }
    }
    let mut times: Vec<f64> = Vec::new();
    let mut keys: IndexMap<String, IndexMap<usize, u64>> = IndexMap::new();
    for (at, by_key) in rows("keys") {
        if times.last() != Some(&at) {
            times.push(at);
        }
        for (key, count) in by_key.as_map().unwrap_or_default() {
            let Some(key) = key.as_str() else { continue };
            let of_key = keys.entry(key.to_owned()).or_default();
            *of_key.entry(times.len() - 1).or_default() += count.as_u64().unwrap_or(0);
        }
    }
    let row = |at: f64, count: u64| Value::Array(vec![at.into(), count.into()]);
    let series = |of_key: IndexMap<usize, u64>| {
        let count = |place: usize| of_key.get(&place).copied().unwrap_or(0);
        Value::Array(
            times
                .iter()
                .enumerate()
                .map(|(i, at)| row(*at, count(i)))
                .collect(),
        )
    };
    let keys = keys
        .into_iter()
        .map(|(key, of_key)| (Value::from(key), series(of_key)));
    Value::map([
        (
            "counts",
            Value::Array(counts.into_iter().map(|(at, n)| row(at, n)).collect()),
        ),
        ("keys", Value::Map(keys.collect())),
    ])
}

fn pair(row: &Value) -> Option<(f64, Value)> {
    match row.as_array()? {
        [at, what] => Some((at.as_f64()?, what.clone())),
        _ => None,
    }
}

/// A tree without samples.
fn empty() -> Value {
    Value::map([
        ("count", Value::from(0_u64)),
        ("children", Value::Map(Vec::new())),
        ("identifier", "root".into()),
        (
            "description",
            Value::map([
                ("filename", Value::from("")),
                ("name", "".into()),
                ("line_number", Value::from(0_u64)),
                ("line", "".into()),
            ]),
        ),
    ])
}

/// Sums trees node by node. The depth of what a peer sends is limited where it is decoded.
fn merge(trees: &[&Value]) -> Value {
    let Some(first) = trees.first() else {
        return empty();
    };
    let mut children: IndexMap<&str, Vec<&Value>> = IndexMap::new();
    let mut count = 0;
    for tree in trees {
        count += tree.field("count").and_then(Value::as_u64).unwrap_or(0);
        let own = tree.field("children").and_then(Value::as_map);
        for (name, child) in own.unwrap_or_default() {
            if let Some(name) = name.as_str() {
                children.entry(name).or_default().push(child);
            }
        }
    }
    let children = children.iter().map(|(name, trees)| (*name, merge(trees)));
    let of_first = |name| first.field(name).cloned().unwrap_or_default();
    Value::map([
        ("description", of_first("description")),
        ("children", Value::map(children.collect::<Vec<_>>())),
        ("count", count.into()),
        ("identifier", of_first("identifier")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(count: u64, children: Vec<(&str, Value)>) -> Value {
        Value::map([
            ("count", Value::from(count)),
            ("children", Value::map(children)),
            ("identifier", "root".into()),
            ("description", Value::Nil),
        ])
    }

    #[test]
    fn counts_of_equal_frames_are_added() {
        let a = tree(3, vec![("f", tree(3, Vec::new()))]);
        let b = tree(
            2,
            vec![("f", tree(1, Vec::new())), ("g", tree(1, Vec::new()))],
        );
        let merged = merge(&[&a, &b]);
        let expected = vec![("f", tree(4, Vec::new())), ("g", tree(1, Vec::new()))];
        let count = |tree: &Value| tree.field("count").and_then(Value::as_u64);
        assert_eq!(count(&merged), Some(5));
        for (name, child) in expected {
            let found = merged
                .field("children")
                .and_then(|c| c.field(name))
                .unwrap();
            assert_eq!(count(found), count(&child), "{name}");
        }
        assert_eq!(count(&merge(&[])), Some(0));
    }
}
