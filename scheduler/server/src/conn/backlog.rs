//! What a client has sent and what must wait behind a graph of its that Python is still working on.

use std::collections::VecDeque;

use oxidask_protocol::message::client::FromClient;

use crate::graph::{GraphEnd, GraphError, GraphEvent, GraphEvents, Node};
use crate::translate::graph::Plan;

/// Graphs that may be under way at once for one client. More are left in its socket.
const GRAPHS: usize = 1024;

/// Graphs and messages that wait for one client. More are left in its socket.
const ITEMS: usize = 65_536;

/// Messages in the order of the stream. The first is always a graph: what stands before one is handled at once.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    items: VecDeque<Item>,
    graphs: usize,
}

/// One entry of a backlog.
#[derive(Debug)]
pub(super) enum Item {
    /// A graph that is being materialised.
    Graph(Box<PendingGraph>),
    /// Anything else.
    Message(Box<FromClient>),
}

/// A graph whose nodes are coming in.
#[derive(Debug)]
pub(super) struct PendingGraph {
    /// Where its nodes come from.
    pub(super) events: GraphEvents,
    /// What it is for.
    pub(super) plan: Plan,
    /// The nodes so far, as they came: a list of all would be moved again and again while it grows.
    pub(super) nodes: Vec<Vec<Node>>,
    /// When it came. Unit: Unix seconds.
    pub(super) began: f64,
}

impl PendingGraph {
    /// Waits until all nodes are there.
    async fn complete(&mut self) -> Result<GraphEnd, Option<GraphError>> {
        loop {
            match self.events.recv().await {
                Some(GraphEvent::Nodes(nodes)) => self.nodes.push(nodes),
                Some(GraphEvent::Done(end)) => return Ok(end),
                Some(GraphEvent::Failed(error)) => return Err(Some(error)),
                None => return Err(None),
            }
        }
    }
}

impl Backlog {
    /// Whether nothing waits, so that a message can be handled at once.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether no more should be read from the client for now.
    pub(super) fn is_full(&self) -> bool {
        self.graphs >= GRAPHS || self.items.len() >= ITEMS
    }

    /// Appends a message or graph.
    pub(super) fn push(&mut self, item: Item) {
        self.graphs += usize::from(matches!(item, Item::Graph(_)));
        self.items.push_back(item);
    }

    /// The next message, if no graph stands before it.
    pub(super) fn pop_message(&mut self) -> Option<FromClient> {
        match self.items.front() {
            Some(Item::Message(_)) => match self.items.pop_front() {
                Some(Item::Message(message)) => Some(*message),
                _ => None,
            },
            _ => None,
        }
    }

    /// Waits for the first graph and takes it. Never ends while there is none. May be dropped and called again.
    pub(super) async fn next_graph(
        &mut self,
    ) -> (PendingGraph, Result<GraphEnd, Option<GraphError>>) {
        let Some(Item::Graph(first)) = self.items.front_mut() else {
            return std::future::pending().await;
        };
        let outcome = first.complete().await;
        match self.items.pop_front() {
            Some(Item::Graph(graph)) => {
                self.graphs -= 1;
                (*graph, outcome)
            }
            _ => std::future::pending().await,
        }
    }
}
