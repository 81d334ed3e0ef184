//! Graph intake: what a Python client sends as a pickled expression becomes nodes with opaque run specs.
//!
//! Rust never opens a pickle. A pool of child interpreters ([`GraphIntake`]) unpickles, materialises and pickles
//! each node alone (`python/oxidask/scheduler/graph.py`); culling and ordering are done here ([`order`]).
//! The requests of one client are answered in the order in which they were submitted; those of different clients
//! do not wait for each other as long as there are helpers.

mod annotations;
mod answer;
pub mod dag;
mod environments;
mod error;
mod helper;
mod intake;
mod native;
pub mod order;
mod process;
mod queue;
mod request;

use std::sync::Arc;

use oxidask_protocol::{Key, Payload};

pub use annotations::{AnnotationError, Annotations};
pub use environments::Environments;
pub use error::{GraphError, GraphErrorKind};
pub use intake::{GraphEvents, GraphIntake, IntakeConfig};
pub use native::{NativeGraphError, nodes as native_nodes};

/// A graph as a client sent it, in an `update-graph` message.
#[derive(Debug, Clone)]
pub struct MaterialiseRequest {
    /// `expr_ser`: the pickled expression.
    pub expr: Payload,
    /// The keys that the client wants.
    pub wanted: Vec<Key>,
    /// The client's own order of tasks, smaller first. Without it one is computed.
    pub internal_priority: Option<Vec<(Key, i64)>>,
    /// `annotations`: a pickled dict that holds for all tasks.
    pub annotations: Option<Payload>,
}

/// One task of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its key.
    pub key: Key,
    /// The pickled node, as a worker takes it as `run_spec`.
    pub run_spec: Payload,
    /// Keys of the tasks that it needs, in this graph or known from an earlier one. No key twice.
    pub dependencies: Vec<Key>,
    /// The last part of the task's priority, smaller first: the client's, or else its place in our order.
    pub priority: i64,
    /// It creates data from little or nothing (`GraphNode.data_producer`), which makes it root-ish.
    pub data_producer: bool,
    /// It is the barrier task of a P2P shuffle.
    pub barrier: bool,
    /// What the user asked for; shared by the tasks that have the same.
    pub annotations: Arc<Annotations>,
}

/// What comes back for a graph: nodes in one or several parts, then exactly one `Done` or `Failed`.
#[derive(Debug)]
pub enum GraphEvent {
    /// Some nodes, the most urgent first where the order is ours. Together all that the wanted keys need, each once.
    Nodes(Vec<Node>),
    /// All nodes have come.
    Done(GraphEnd),
    /// The graph cannot be had. Nodes that came before are void.
    Failed(GraphError),
}

/// How a graph ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphEnd {
    /// Nodes in all.
    pub nodes: usize,
}
