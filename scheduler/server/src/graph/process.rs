//! The process of a graph helper: what is sent to it, what it answers, what it is watched for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oxidask_python::{Child, ConnectionError, ConnectionReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer::{Answer, Body, Graph, StructureError};
use super::intake::{Shared, State};
use super::queue::Pending;
use super::request::{self, Message};
use super::{GraphEnd, GraphErrorKind, GraphEvent};

/// Requests that are sent before the first of them is answered.
pub(super) const WINDOW: usize = 64;

/// Bytes of requests that are sent before the first of them is answered.
const WINDOW_BYTES: u64 = 8 << 20;

/// How long a helper keeps serving one client while others wait.
const TURN: Duration = Duration::from_millis(100);

/// How long a client waits before a helper beyond the usual number is started for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a graph may go on that nobody waits for any more.
const ABANDONED: Duration = Duration::from_secs(5);

pub(super) struct Process {
    pub(super) child: Child,
    pub(super) reader: ConnectionReader,
    /// To the task that writes, so that reading never waits for writing.
    pub(super) outbox: mpsc::UnboundedSender<Message>,
    /// As far as this process knows the plugins.
    pub(super) plugin_changes: u64,
    pub(super) plugins: Vec<(String, Bytes)>,
    /// What the error texts call it.
    pub(super) interpreter: String,
}

/// A request that has been sent.
pub(super) struct Active {
    pub(super) id: u64,
    pub(super) pending: Pending,
    pub(super) graph: Option<Graph>,
    /// Nodes have been passed on, so that it cannot begin again.
    pub(super) begun: bool,
    /// It has failed already; what the helper still sends is passed over.
    pub(super) refused: bool,
}

/// How serving a client came to its end.
pub(super) enum End {
    /// Nothing is left, or it is another's turn.
    Done,
    /// The process is unusable; what was sent and not answered goes back into the queue.
    Lost(GraphErrorKind, String),
    /// The process has ended by itself after its last answer.
    Left,
}

pub(super) enum Taken {
    More,
    Left,
}

impl Process {
    /// Sends as many requests as fit.
    pub(super) fn top_up(
        &mut self,
        shared: &Shared,
        client: &str,
        began: Instant,
        request_id: &mut u64,
        active: &mut VecDeque<Active>,
    ) {
        let mut state = shared.state();
        let mut bytes: u64 = active
            .iter()
            .map(|active| active.pending.request.expr.nbytes())
            .sum();
        loop {
            let full = active.len() >= WINDOW || bytes >= WINDOW_BYTES;
            let anothers_turn = began.elapsed() > TURN && state.queues.oldest_wait().is_some();
            let next_is_suspect = state.queues.peek(client).is_some_and(|next| next.suspect);
            let alone = next_is_suspect || active.iter().any(|active| active.pending.suspect);
            if full || anothers_turn || alone && !active.is_empty() {
                return;
            }
            let Some(pending) = state.queues.pop(client) else {
                return;
            };
            if pending.events.is_closed() {
                continue;
            }
            if self.plugin_changes != state.plugin_changes {
                self.send_plugins(&state);
            }
            *request_id += 1;
            bytes += pending.request.expr.nbytes();
            self.send(request::materialise(*request_id, &pending.request));
            active.push_back(Active {
                id: *request_id,
                pending,
                graph: None,
                begun: false,
                refused: false,
            });
        }
    }

    fn send(&self, message: Message) {
        // The writer ends only with the process, which the reader notices.
        let _ = self.outbox.send(message);
    }

    fn send_plugins(&mut self, state: &State) {
        let gone = self
            .plugins
            .iter()
            .filter(|known| !state.plugins.contains(known));
        let stops: Vec<Message> = gone.map(|(name, _)| request::plugin(name, None)).collect();
        let new = state
            .plugins
            .iter()
            .filter(|wanted| !self.plugins.contains(wanted));
        let starts: Vec<Message> = new
            .map(|(name, pickle)| request::plugin(name, Some(pickle)))
            .collect();
        stops
            .into_iter()
            .chain(starts)
            .for_each(|message| self.send(message));
        self.plugins = state.plugins.clone();
        self.plugin_changes = state.plugin_changes;
    }

    /// Passes an answer on.
    pub(super) fn take(
        &mut self,
        frames: &[Bytes],
        active: &mut VecDeque<Active>,
    ) -> Result<Taken, (GraphErrorKind, String)> {
        let malformed = |error: oxidask_protocol::DecodeError| {
            (
                GraphErrorKind::Crashed,
                format!("sent a malformed answer: {error}"),
            )
        };
        let answer = Answer::read(frames).map_err(malformed)?;
        let Some(head) = active.front_mut().filter(|head| head.id == answer.id) else {
            return Err((
                GraphErrorKind::Crashed,
                format!("answered request {} out of turn", answer.id),
            ));
        };
        let nodes = match answer.body {
            Body::Failed { error, ends } => {
                if let Some(head) = active.pop_front() {
                    let _ = head.pending.events.send(GraphEvent::Failed(error));
                }
                return Ok(if ends { Taken::Left } else { Taken::More });
            }
            Body::Structure(mut structure) => {
                let nodes = structure.nodes.take();
                let asks_order = structure.asks_order;
                match Graph::new(structure, &head.pending.request) {
                    Ok(graph) => head.graph = Some(graph),
                    Err(StructureError::Malformed(error)) => return Err(malformed(error)),
                    Err(StructureError::Refused(error)) => {
                        let _ = head.pending.events.send(GraphEvent::Failed(*error));
                        head.refused = true;
                    }
                }
                if asks_order {
                    let positions = head
                        .graph
                        .as_ref()
                        .and_then(Graph::sequence)
                        .unwrap_or_default();
                    let _ = self.outbox.send(request::order(head.id, positions));
                }
                nodes
            }
            Body::Nodes(nodes) => Some(nodes),
        };
        let Some(nodes) = nodes else {
            return Ok(Taken::More);
        };
        if head.refused {
            if nodes.last {
                active.pop_front();
            }
            return Ok(Taken::More);
        }
        let Some(graph) = &mut head.graph else {
            return Err((
                GraphErrorKind::Crashed,
                "sent nodes before their structure".into(),
            ));
        };
        let last = nodes.last;
        let nodes = graph.nodes(nodes).map_err(malformed)?;
        head.begun |= !nodes.is_empty();
        let _ = head.pending.events.send(GraphEvent::Nodes(nodes));
        if last {
            let end = GraphEnd {
                nodes: graph.received(),
            };
            if let Some(head) = active.pop_front() {
                let _ = head.pending.events.send(GraphEvent::Done(end));
            }
        }
        Ok(Taken::More)
    }

    /// Checks time, memory and those who wait.
    pub(super) fn look(
        &self,
        shared: &Arc<Shared>,
        active: &VecDeque<Active>,
        head_since: Instant,
    ) -> Option<End> {
        let config = &shared.config;
        let abandoned = active
            .iter()
            .all(|active| active.pending.events.is_closed());
        let limit = if abandoned {
            config.timeout.min(ABANDONED)
        } else {
            config.timeout
        };
        if head_since.elapsed() > limit {
            let text = format!(
                "did not finish a graph within {} s (oxidask.graph.timeout)",
                limit.as_secs()
            );
            return Some(End::Lost(GraphErrorKind::TimedOut, text));
        }
        // The limit makes allocations fail by itself; this is for memory that it does not count, such as files in
        // /dev/shm. A quarter more leaves room for code and libraries.
        let most = config.memory_limit + config.memory_limit / 4;
        if config.memory_limit > 0
            && self
                .child
                .resident()
                .is_some_and(|resident| resident > most)
        {
            let text =
                format!("used more than {most} bytes of memory (oxidask.graph.memory-limit)");
            return Some(End::Lost(GraphErrorKind::OutOfMemory, text));
        }
        if shared
            .state()
            .queues
            .oldest_wait()
            .is_some_and(|since| since.elapsed() > PATIENCE)
        {
            shared.add_helper(true);
        }
        None
    }
}

pub(super) fn lost(error: &ConnectionError) -> (GraphErrorKind, String) {
    let text = match error {
        ConnectionError::Closed | ConnectionError::Io(_) => {
            "died while it worked on a graph".to_owned()
        }
        ConnectionError::Decode(error) => format!("sent a malformed answer: {error}"),
    };
    (GraphErrorKind::Crashed, text)
}
