//! Graphs of native tasks: checked, culled and ordered here, without an interpreter.

use std::collections::HashMap;
use std::sync::Arc;

use oxidask_protocol::message::client::NativeNode;
use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::native::NativeTask;
use oxidask_protocol::wire::Encode;
use oxidask_protocol::{Key, Value};

use super::dag::{Dag, DagError};
use super::{Annotations, Node, order};

/// Why a native graph cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NativeGraphError {
    /// Two tasks have the same key.
    #[error("two tasks of the graph have the key {0}")]
    Twice(Key),
    /// Tasks need each other in a circle.
    #[error("cycle between the tasks {0}")]
    Cycle(String),
    /// More tasks or inputs than positions.
    #[error("the graph has more than 2^32 tasks or inputs")]
    TooLarge,
    /// What is asked for a task makes no sense.
    #[error("task {key}: {text}")]
    Annotation {
        /// The task.
        key: Key,
        /// What is wrong.
        text: String,
    },
}

/// The tasks that `wanted` needs, in the order in which they should run.
///
/// # Errors
/// If a key is there twice, tasks need each other in a circle, or an annotation has the wrong type.
pub fn nodes(tasks: Vec<NativeNode>, wanted: &[Key]) -> Result<Vec<Node>, NativeGraphError> {
    let mut positions: HashMap<Key, u32> = HashMap::with_capacity(tasks.len());
    for (at, task) in tasks.iter().enumerate() {
        let at = u32::try_from(at).map_err(|_| NativeGraphError::TooLarge)?;
        if positions.insert(task.key.clone(), at).is_some() {
            return Err(NativeGraphError::Twice(task.key.clone()));
        }
    }
    // Positions behind the graph are tasks known from earlier ones.
    let (mut degrees, mut needs) = (Vec::with_capacity(tasks.len()), Vec::new());
    for task in &tasks {
        let start = needs.len();
        for input in &task.inputs {
            let next = u32::try_from(positions.len()).map_err(|_| NativeGraphError::TooLarge)?;
            let at = *positions.entry(input.clone()).or_insert(next);
            if !needs[start..].contains(&at) {
                needs.push(at);
            }
        }
        degrees.push((needs.len() - start) as u32);
    }
    let dag = match Dag::new(&degrees, needs, positions.len()) {
        Ok(dag) => dag,
        Err(DagError::Cycle(cycle)) => {
            let keys = cycle.iter().map(|at| tasks[*at as usize].key.to_string());
            return Err(NativeGraphError::Cycle(
                keys.collect::<Vec<_>>().join(" -> "),
            ));
        }
        Err(DagError::Inconsistent) => return Err(NativeGraphError::TooLarge),
    };
    let roots: Vec<u32> = wanted
        .iter()
        .filter_map(|key| positions.get(key).copied())
        .collect();
    let sequence = order::order(&dag, Some(&roots));
    let plain = Arc::new(Annotations::none());
    let mut tasks: Vec<Option<NativeNode>> = tasks.into_iter().map(Some).collect();
    let mut nodes = Vec::with_capacity(sequence.len());
    for (place, at) in sequence.into_iter().enumerate() {
        // Each position stands in the order once.
        if let Some(task) = tasks.get_mut(at as usize).and_then(Option::take) {
            nodes.push(node(task, place as i64, &plain)?);
        }
    }
    Ok(nodes)
}

fn node(
    task: NativeNode,
    priority: i64,
    plain: &Arc<Annotations>,
) -> Result<Node, NativeGraphError> {
    let NativeNode {
        key,
        kernel,
        inputs,
        workers,
        retries,
    } = task;
    let annotations = match (workers.0, retries.0) {
        (None, None) => Arc::clone(plain),
        (workers, retries) => Arc::new(annotations(&key, workers, retries)?),
    };
    let mut dependencies: Vec<Key> = Vec::with_capacity(inputs.len());
    for input in &inputs {
        if !dependencies.contains(input) {
            dependencies.push(input.clone());
        }
    }
    let native = NativeTask { kernel, inputs };
    Ok(Node {
        run_spec: native.run_spec(&key),
        data_producer: dependencies.is_empty(),
        dependencies,
        priority,
        barrier: false,
        annotations,
        key,
    })
}

fn annotations(
    key: &Key,
    workers: Option<Vec<Value>>,
    retries: Option<u64>,
) -> Result<Annotations, NativeGraphError> {
    let wrong = |text: String| NativeGraphError::Annotation {
        key: key.clone(),
        text,
    };
    let pairs = [
        workers.map(|workers| ("workers", Value::Array(workers))),
        retries.map(|retries| ("retries", Value::from(retries))),
    ];
    let mut w = Writer::new();
    Value::map(pairs.into_iter().flatten()).encode(&mut w);
    match Annotations::read(w.into_document()) {
        Ok(Ok(annotations)) => Ok(annotations),
        Ok(Err(error)) => Err(wrong(error.to_string())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use oxidask_protocol::wire::Omit;

    use super::*;

    fn task(key: &str, inputs: &[&str]) -> NativeNode {
        NativeNode {
            key: Key::from(key),
            kernel: Bytes::from_static(b"\xa1k"),
            inputs: inputs.iter().map(|key| Key::from(*key)).collect(),
            workers: Omit(None),
            retries: Omit(None),
        }
    }

    fn keys(nodes: &[Node]) -> Vec<String> {
        nodes.iter().map(|node| node.key.to_string()).collect()
    }

    #[test]
    fn what_nobody_wants_is_left_out_and_needs_come_first() {
        let tasks = vec![task("c", &["b", "b"]), task("x", &[]), task("b", &["a"])];
        let nodes = nodes(tasks, &[Key::from("c")]).unwrap();
        assert_eq!(keys(&nodes), ["b", "c"]);
        assert_eq!(nodes[1].dependencies, [Key::from("b")]);
        let spec = NativeTask::of_run_spec(&nodes[1].run_spec)
            .unwrap()
            .unwrap();
        assert_eq!(spec.inputs, [Key::from("b"), Key::from("b")]);
    }

    #[test]
    fn circles_and_doubles_are_refused_by_name() {
        let circle = nodes(
            vec![task("a", &["b"]), task("b", &["a"])],
            &[Key::from("a")],
        );
        assert!(matches!(circle, Err(NativeGraphError::Cycle(_))));
        let twice = nodes(vec![task("a", &[]), task("a", &[])], &[Key::from("a")]);
        assert_eq!(twice, Err(NativeGraphError::Twice(Key::from("a"))));
    }

    #[test]
    fn workers_of_a_task_become_its_restriction() {
        let mut node = task("a", &[]);
        node.workers = Omit(Some(vec![Value::from("w0")]));
        let nodes = nodes(vec![node], &[Key::from("a")]).unwrap();
        assert_eq!(nodes[0].annotations.workers, [Value::from("w0")]);
    }
}
