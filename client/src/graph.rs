//! Graphs of native tasks.

use bytes::Bytes;
use oxidask_protocol::message::client::NativeNode;
use oxidask_protocol::wire::Omit;
use oxidask_protocol::{Key, Value};
use oxidask_worker_kernels::Kernel;

/// One task: a kernel and the keys of its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its key.
    pub key: Key,
    /// What it runs.
    pub kernel: Kernel,
    /// Keys of the arguments in order: tasks of the graph, or results that the cluster has, native or of Python.
    pub inputs: Vec<Key>,
    /// Addresses or names of workers where alone it may run; anywhere if empty.
    pub workers: Vec<String>,
}

impl Task {
    /// A task that may run anywhere.
    pub fn new(key: Key, kernel: Kernel, inputs: Vec<Key>) -> Self {
        Self {
            key,
            kernel,
            inputs,
            workers: Vec::new(),
        }
    }
}

/// Tasks that are submitted together.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// In any order; no key twice.
    pub tasks: Vec<Task>,
}

impl Graph {
    /// The same tasks, to run on these workers alone; anywhere if none is named.
    #[must_use]
    pub fn on(mut self, workers: &[String]) -> Self {
        for task in &mut self.tasks {
            task.workers = workers.to_vec();
        }
        self
    }

    pub(crate) fn into_nodes(self) -> Vec<NativeNode> {
        let node = |task: Task| NativeNode {
            key: task.key,
            kernel: Bytes::from(task.kernel.to_msgpack()),
            inputs: task.inputs,
            workers: Omit((!task.workers.is_empty()).then(|| {
                let workers = task.workers.iter();
                workers.map(|name| Value::from(name.as_str())).collect()
            })),
            retries: Omit(None),
        };
        self.tasks.into_iter().map(node).collect()
    }
}

impl FromIterator<Task> for Graph {
    fn from_iter<I: IntoIterator<Item = Task>>(tasks: I) -> Self {
        Self {
            tasks: tasks.into_iter().collect(),
        }
    }
}

/// 32 hexadecimal digits that no other call gives: what makes keys of a layer different from all others.
pub(crate) fn token() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    // Each RandomState has keys of its own, taken from the system's randomness.
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let half = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(call);
        hasher.write_u32(std::process::id());
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(), half())
}
