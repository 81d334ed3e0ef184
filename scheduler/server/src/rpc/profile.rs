//! `profile`: what the threads of workers do, sampled there and merged here.

use std::sync::Arc;

use futures::future::join_all;
use indexmap::IndexMap;
use oxidask_protocol::Value;
use oxidask_protocol::message::rpc::Profile;
use tracing::debug;

use super::{Answer, Outcome, broadcast, coerce};
use crate::server::Server;

/// `profile`: one tree for all workers, or one for each. The scheduler itself runs no Python, so its own is empty.
pub(super) async fn profile(server: &Arc<Server>, body: Profile) -> Outcome {
    if body.scheduler {
        return Answer::value(empty());
    }
    let workers: Vec<Arc<str>> = {
        let driver = server.driver();
        match body.workers.as_array() {
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
    };
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
