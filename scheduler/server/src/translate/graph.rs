//! A client's `update-graph` as a question to graph intake, and its nodes as tasks.

use std::sync::Arc;
use std::time::Duration;

use oxidask_protocol::message::client::{NativeNode, UpdateGraph, UpdateNativeGraph};
use oxidask_protocol::msgpack::Reader;
use oxidask_protocol::wire::Decode;
use oxidask_protocol::{Key, Payload, Value};
use oxidask_scheduler_core::event::{self, Actors, NewTask, SpanTag, TaskRole};
use oxidask_scheduler_core::{ClientId, Event};
use rustc_hash::FxHashMap;

use crate::graph::{Annotations, MaterialiseRequest, Node};
use crate::peers::PeerName;

/// What a graph is for; kept while its nodes are being made.
#[derive(Debug)]
pub struct Plan {
    /// Keys that the client wants.
    pub wanted: Vec<Key>,
    submitting_task: Option<Key>,
    fifo_timeout: Duration,
    actors: Actors,
    user_priority: f64,
    span_metadata: Option<Payload>,
    code: Option<Payload>,
}

/// Splits the message into what Python is asked and what is kept.
pub fn question(message: UpdateGraph) -> (MaterialiseRequest, Plan) {
    let wanted = message.keys.keys;
    let plan = Plan {
        wanted: wanted.clone(),
        submitting_task: message.submitting_task,
        fifo_timeout: seconds(message.fifo_timeout.0.unwrap_or(0.0)),
        actors: match &message.actors {
            Value::Bool(true) => Actors::Wanted,
            Value::Array(keys) | Value::Set(keys) => {
                Actors::Keys(keys.iter().filter_map(Value::to_key).collect())
            }
            _ => Actors::None,
        },
        user_priority: message
            .user_priority
            .0
            .and_then(|priority| priority.as_f64())
            .unwrap_or(0.0),
        span_metadata: payload(message.span_metadata),
        code: payload(message.code),
    };
    let request = MaterialiseRequest {
        expr: message.expr_ser,
        wanted,
        internal_priority: message.internal_priority.map(|pairs| pairs.0),
        annotations: payload(message.annotations),
    };
    (request, plan)
}

/// Splits the message into its tasks and what is kept.
pub fn native(message: UpdateNativeGraph) -> (Vec<NativeNode>, Plan) {
    let plan = Plan {
        wanted: message.keys.keys,
        submitting_task: None,
        fifo_timeout: seconds(message.fifo_timeout.0.unwrap_or(0.0)),
        actors: Actors::None,
        user_priority: 0.0,
        span_metadata: None,
        code: None,
    };
    (message.tasks, plan)
}

/// The event for a graph whose nodes have all come, in one or several parts.
pub fn event(client: ClientId, plan: Plan, nodes: Vec<Vec<Node>>, stimulus_id: Arc<str>) -> Event {
    let mut shared = Shared::default();
    let mut tasks = Vec::with_capacity(nodes.iter().map(Vec::len).sum());
    for node in nodes.into_iter().flatten() {
        tasks.push(NewTask {
            key: node.key,
            run_spec: node.run_spec,
            dependencies: node.dependencies,
            order: node.priority,
            data_producer: node.data_producer,
            annotations: shared.annotations(&node.annotations),
            role: if node.barrier {
                TaskRole::ShuffleBarrier
            } else {
                TaskRole::Plain
            },
        });
    }
    // A large graph is taken in by parts, which must not need later ones.
    tasks.sort_by_key(|task| task.order);
    Event::UpdateGraph(event::UpdateGraph {
        client,
        tasks,
        wanted: plan.wanted,
        submitting_task: plan.submitting_task,
        fifo_timeout: plan.fifo_timeout,
        actors: plan.actors,
        user_priority: plan.user_priority,
        span_metadata: plan.span_metadata,
        code: plan.code,
        stimulus_id,
    })
}

fn payload(value: Value) -> Option<Payload> {
    match value {
        Value::Payload(payload) => Some(payload.detached()),
        _ => None,
    }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.max(0.0)).unwrap_or(Duration::MAX)
}

/// Annotations that were translated already; most tasks of a graph share theirs.
#[derive(Default)]
struct Shared {
    /// By the address of the original, which is kept so that no other can take that address.
    known: FxHashMap<usize, (Arc<Annotations>, Option<Arc<event::Annotations>>)>,
}

impl Shared {
    fn annotations(&mut self, from: &Arc<Annotations>) -> Option<Arc<event::Annotations>> {
        let (_, translated) = self
            .known
            .entry(Arc::as_ptr(from).addr())
            .or_insert_with(|| (Arc::clone(from), translate(from).map(Arc::new)));
        translated.clone()
    }
}

/// `None` where the user said nothing.
fn translate(from: &Annotations) -> Option<event::Annotations> {
    let raw = Value::decode(&mut Reader::new(&from.wire, &[])).ok()?;
    if raw.as_map().is_none_or(<[_]>::is_empty) {
        return None;
    }
    Some(event::Annotations {
        priority: (from.priority != 0.0).then_some(from.priority),
        workers: from
            .workers
            .iter()
            .filter_map(PeerName::from_value)
            .map(|name| name.text())
            .collect(),
        allow_other_workers: from.allow_other_workers,
        retries: from.retries,
        resources: from.resources.clone(),
        span: raw.field("span").and_then(SpanTag::from_value),
        raw: raw.detached(),
    })
}
