//! What a graph helper answers, read into nodes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use oxidask_protocol::msgpack::{Reader, Writer};
use oxidask_protocol::{DecodeError, DecodeErrorKind, Frames, Key, Payload, PayloadKind};
use rustc_hash::FxHashMap;

use super::dag::{Dag, DagError};
use super::order;
use super::{AnnotationError, Annotations, GraphError, GraphErrorKind, MaterialiseRequest, Node};

const DATA_PRODUCER: u8 = 1;
const BARRIER: u8 = 2;

/// Bytes of node pickles that share one allocation. One node that lives long keeps no more than this.
const ARENA: usize = 16 * 1024;

/// Most bytes of a header around its pickle.
const AROUND: usize = 48;

/// The first fields of every answer.
pub(super) struct Answer<'a> {
    pub(super) id: u64,
    pub(super) body: Body<'a>,
}

pub(super) enum Body<'a> {
    Structure(StructureAnswer<'a>),
    Nodes(NodesAnswer<'a>),
    Failed { error: GraphError, ends: bool },
}

/// Keys and dependencies of a whole graph, perhaps with all or the first of its nodes.
pub(super) struct StructureAnswer<'a> {
    keys: Vec<Key>,
    annotations: Vec<Annotations>,
    wrong_annotation: Option<AnnotationError>,
    /// The helper waits for an order.
    pub(super) asks_order: bool,
    columns: &'a [Bytes],
    pub(super) nodes: Option<NodesAnswer<'a>>,
}

/// Pickled nodes, in the order of the graph or in the order that was asked for.
pub(super) struct NodesAnswer<'a> {
    pickles: Vec<&'a [u8]>,
    /// Numbers of out-of-band buffers, by place in `pickles`.
    buffers: FxHashMap<usize, Vec<usize>>,
    pub(super) last: bool,
    /// Buffers that were not sent before.
    blobs: &'a [Bytes],
}

/// Number of columns that come with a structure.
const COLUMNS: usize = 4;

impl<'a> Answer<'a> {
    /// Reads a message.
    pub(super) fn read(frames: &'a [Bytes]) -> Result<Self, DecodeError> {
        let parts = frames.get(1..).unwrap_or_default();
        let mut r = Reader::of_message(frames)?;
        let mut op = "";
        let mut id = 0;
        let (mut keys, mut annotations, mut asks_order) = (Vec::new(), Vec::new(), false);
        let mut batch = Batch::default();
        let mut inner = None;
        let (mut has_traceback, mut ends) = (false, false);
        let (mut exception_text, mut traceback_text) = (String::new(), String::new());
        let mut wrong_annotation = None;
        for _ in 0..r.map()? {
            match r.str()? {
                "op" => op = r.str()?,
                "id" => id = r.uint()?,
                "keys" => {
                    keys = (0..r.array()?)
                        .map(|_| Key::read(&mut r))
                        .collect::<Result<_, _>>()?
                }
                "annotations" => {
                    for _ in 0..r.array()? {
                        match Annotations::read(Bytes::copy_from_slice(r.bin()?))? {
                            Ok(set) => annotations.push(set),
                            Err(error) => wrong_annotation = Some(error),
                        }
                    }
                }
                "asks_order" => asks_order = r.bool()?,
                "nodes" => {
                    let mut nodes = Batch::default();
                    for _ in 0..r.map()? {
                        let field = r.str()?;
                        nodes.field(field, &mut r)?;
                    }
                    inner = Some(nodes);
                }
                "traceback" => has_traceback = r.bool()?,
                "exception_text" => exception_text = r.str()?.to_owned(),
                "traceback_text" => traceback_text = r.str()?.to_owned(),
                "ends" => ends = r.bool()?,
                field => batch.field(field, &mut r)?,
            }
        }
        let body = match op {
            "structure" => {
                let columns = parts
                    .get(..COLUMNS)
                    .ok_or_else(|| missing(COLUMNS, frames.len()))?;
                let nodes = inner.map(|nodes| nodes.with(parts.get(COLUMNS..).unwrap_or_default()));
                Body::Structure(StructureAnswer {
                    keys,
                    annotations,
                    wrong_annotation,
                    asks_order,
                    columns,
                    nodes,
                })
            }
            "nodes" => Body::Nodes(batch.with(parts)),
            "failed" => {
                let exception = parts
                    .first()
                    .ok_or_else(|| missing(1, frames.len()))?
                    .clone();
                let traceback = if has_traceback {
                    parts.get(1).cloned()
                } else {
                    None
                };
                Body::Failed {
                    error: GraphError::raised(exception, traceback, exception_text, traceback_text),
                    ends,
                }
            }
            _ => {
                return r.fail(DecodeErrorKind::Unexpected {
                    expected: "an answer of the graph helper",
                    found: "another op",
                });
            }
        };
        Ok(Self { id, body })
    }
}

fn missing(index: usize, frames: usize) -> DecodeError {
    DecodeError::new(0, 0, DecodeErrorKind::NoSuchFrame { index, frames })
}

#[derive(Default)]
struct Batch<'a> {
    pickles: Vec<&'a [u8]>,
    buffers: FxHashMap<usize, Vec<usize>>,
    last: bool,
}

impl<'a> Batch<'a> {
    fn field(&mut self, name: &str, r: &mut Reader<'a>) -> Result<(), DecodeError> {
        match name {
            "pickles" => {
                self.pickles = (0..r.array()?).map(|_| r.bin()).collect::<Result<_, _>>()?
            }
            "buffers" => {
                for _ in 0..r.map()? {
                    let place = r.uint()? as usize;
                    let numbers = (0..r.array()?)
                        .map(|_| Ok(r.uint()? as usize))
                        .collect::<Result<_, DecodeError>>()?;
                    self.buffers.insert(place, numbers);
                }
            }
            "last" => self.last = r.bool()?,
            _ => r.skip()?,
        }
        Ok(())
    }

    fn with(self, blobs: &'a [Bytes]) -> NodesAnswer<'a> {
        NodesAnswer {
            pickles: self.pickles,
            buffers: self.buffers,
            last: self.last,
            blobs,
        }
    }
}

/// Why a structure is no graph.
pub(super) enum StructureError {
    /// The helper has sent nonsense.
    Malformed(DecodeError),
    /// The user has.
    Refused(Box<GraphError>),
}

/// The error that stock Dask raises when it orders such a graph.
fn cycle_error(cycle: &[u32], keys: &[Key]) -> Box<GraphError> {
    let mut text = "Cycle detected between the following keys:".to_owned();
    for position in cycle.iter().chain(cycle.first()) {
        text.push_str(&format!("\n  -> {}", keys[*position as usize]));
    }
    Box::new(GraphError::ours(GraphErrorKind::BadGraph, text))
}

/// A graph while its nodes come in.
pub(super) struct Graph {
    keys: Vec<Key>,
    dag: Dag,
    flags: Bytes,
    annotations: Vec<Arc<Annotations>>,
    /// Place in `annotations` for each node; empty if all have the first.
    annotation_of: Vec<u32>,
    /// Which node the next pickle is of: positions in the order in which they come. `None`: that of the graph.
    sequence: Option<Vec<u32>>,
    /// Place of each node in the order; for nodes that are not needed, anything.
    priority: Vec<i64>,
    received: usize,
    blobs: Vec<Bytes>,
    /// Lists of buffers that have been made, since most nodes with buffers share theirs.
    lists: HashMap<Vec<usize>, Frames>,
}

impl Graph {
    /// Checks a structure, and orders and culls it as far as the client has not.
    pub(super) fn new(
        answer: StructureAnswer<'_>,
        request: &MaterialiseRequest,
    ) -> Result<Self, StructureError> {
        let StructureAnswer {
            keys,
            annotations,
            wrong_annotation,
            asks_order,
            columns,
            nodes: _,
        } = answer;
        if let Some(error) = wrong_annotation {
            let error = GraphError::ours(GraphErrorKind::Raised, error.to_string());
            return Err(StructureError::Refused(Box::new(error)));
        }
        let inconsistent = || {
            let kind = DecodeErrorKind::OutOfRange("structure of a graph");
            StructureError::Malformed(DecodeError::new(1, 0, kind))
        };
        let [degrees, dependencies, flags, annotation_of] = columns else {
            return Err(inconsistent());
        };
        let dag = match Dag::new(&u32s(degrees), u32s(dependencies), keys.len()) {
            Ok(dag) => dag,
            Err(DagError::Inconsistent) => return Err(inconsistent()),
            Err(DagError::Cycle(cycle)) => {
                return Err(StructureError::Refused(cycle_error(&cycle, &keys)));
            }
        };
        let annotation_of = u32s(annotation_of);
        let uniform = annotation_of.is_empty();
        if flags.len() != dag.len()
            || annotations.is_empty()
            || !uniform && annotation_of.len() != dag.len()
            || annotation_of
                .iter()
                .any(|number| *number as usize >= annotations.len())
        {
            return Err(inconsistent());
        }
        let mut graph = Self {
            dag,
            flags: Bytes::copy_from_slice(flags),
            annotations: annotations.into_iter().map(Arc::new).collect(),
            annotation_of,
            sequence: None,
            priority: Vec::new(),
            received: 0,
            blobs: Vec::new(),
            lists: HashMap::new(),
            keys,
        };
        match &request.internal_priority {
            Some(given) => graph.priority = graph.given_priorities(given),
            None => {
                let wanted = if asks_order {
                    graph.positions(&request.wanted)
                } else {
                    None
                };
                let sequence = order::order(&graph.dag, wanted.as_deref());
                graph.priority = vec![0; graph.dag.len()];
                for (place, position) in sequence.iter().enumerate() {
                    graph.priority[*position as usize] = place as i64;
                }
                if asks_order {
                    graph.sequence = Some(sequence);
                }
            }
        }
        Ok(graph)
    }

    /// What the helper is to pickle, in this order, if it has asked.
    pub(super) fn sequence(&self) -> Option<&[u32]> {
        self.sequence.as_deref()
    }

    /// Nodes so far.
    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// Positions of the wanted keys; `None` if none of them is in the graph, which then cannot be culled.
    fn positions(&self, wanted: &[Key]) -> Option<Vec<u32>> {
        let of_key: HashMap<&Key, u32> = self.keys[..self.dag.len()].iter().zip(0..).collect();
        let positions: Vec<u32> = wanted
            .iter()
            .filter_map(|key| of_key.get(key).copied())
            .collect();
        if positions.is_empty() {
            None
        } else {
            Some(positions)
        }
    }

    fn given_priorities(&self, given: &[(Key, i64)]) -> Vec<i64> {
        let keys = &self.keys[..self.dag.len()];
        if given.len() == keys.len() && given.iter().zip(keys).all(|((key, _), known)| key == known)
        {
            return given.iter().map(|(_, priority)| *priority).collect();
        }
        let given: HashMap<&Key, i64> = given
            .iter()
            .map(|(key, priority)| (key, *priority))
            .collect();
        // Literals that the client has moved to nodes of their own stand in no order; all may need them, so they go first.
        let first = given
            .values()
            .min()
            .map_or(0, |least| least.saturating_sub(1));
        keys.iter()
            .map(|key| given.get(key).copied().unwrap_or(first))
            .collect()
    }

    /// Nodes out of their pickles.
    pub(super) fn nodes(&mut self, answer: NodesAnswer<'_>) -> Result<Vec<Node>, DecodeError> {
        self.blobs.extend_from_slice(answer.blobs);
        let mut arena = Arena::default();
        let mut nodes = Vec::with_capacity(answer.pickles.len());
        for (place, pickle) in answer.pickles.iter().enumerate() {
            let frames = match answer.buffers.get(&place) {
                Some(numbers) => self.list(numbers)?,
                None => Frames::default(),
            };
            arena.push(pickle, frames, &mut nodes);
        }
        arena.close(&mut nodes);
        nodes
            .into_iter()
            .map(|run_spec| self.node(run_spec))
            .collect()
    }

    fn node(&mut self, run_spec: Payload) -> Result<Node, DecodeError> {
        let too_many = || DecodeError::new(0, 0, DecodeErrorKind::OutOfRange("nodes of a graph"));
        let position = match &self.sequence {
            Some(sequence) => *sequence.get(self.received).ok_or_else(too_many)? as usize,
            None => self.received,
        };
        if position >= self.dag.len() {
            return Err(too_many());
        }
        self.received += 1;
        let annotations = self
            .annotation_of
            .get(position)
            .map_or(0, |number| *number as usize);
        Ok(Node {
            key: self.keys[position].clone(),
            run_spec,
            dependencies: self
                .dag
                .dependencies(position)
                .iter()
                .map(|at| self.keys[*at as usize].clone())
                .collect(),
            priority: self.priority[position],
            data_producer: self.flags[position] & DATA_PRODUCER != 0,
            barrier: self.flags[position] & BARRIER != 0,
            annotations: Arc::clone(&self.annotations[annotations]),
        })
    }

    fn list(&mut self, numbers: &[usize]) -> Result<Frames, DecodeError> {
        if let Some(list) = self.lists.get(numbers) {
            return Ok(list.clone());
        }
        let blob = |number: &usize| {
            self.blobs
                .get(*number)
                .cloned()
                .ok_or_else(|| missing(*number, self.blobs.len()))
        };
        let list: Frames = numbers
            .iter()
            .map(blob)
            .collect::<Result<Vec<_>, _>>()?
            .into();
        self.lists.insert(numbers.to_vec(), list.clone());
        Ok(list)
    }
}

/// Writes payload headers one after the other, so that small ones share allocations.
#[derive(Default)]
struct Arena {
    writer: Writer,
    open: Vec<(usize, Frames)>,
}

impl Arena {
    fn push(&mut self, pickle: &[u8], frames: Frames, out: &mut Vec<Payload>) {
        if self.writer.len() + AROUND + pickle.len() > ARENA {
            self.close(out);
        }
        let w = &mut self.writer;
        w.map(2);
        w.str("pickled-obj");
        w.bin(pickle);
        w.str("num-sub-frames");
        w.uint(frames.as_slice().len() as u64);
        self.open.push((w.len(), frames));
    }

    fn close(&mut self, out: &mut Vec<Payload>) {
        let document = std::mem::take(&mut self.writer).into_document();
        let mut start = 0;
        for (end, frames) in self.open.drain(..) {
            out.push(Payload {
                kind: PayloadKind::Pickled,
                header: document.slice(start..end),
                frames,
            });
            start = end;
        }
    }
}

fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|chunk| u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]))
        .collect()
}
