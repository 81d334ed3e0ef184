//! What is said to a graph helper (`oxidask/scheduler/graph.py` reads it).

use bytes::Bytes;
use oxidask_protocol::Payload;
use oxidask_protocol::msgpack::Writer;

use super::MaterialiseRequest;

/// A message: a msgpack document and raw parts.
pub(super) type Message = Vec<Bytes>;

/// Asks for the nodes of a graph.
pub(super) fn materialise(id: u64, request: &MaterialiseRequest) -> Message {
    let annotations = request
        .annotations
        .as_ref()
        .filter(|payload| !is_empty_dict(payload));
    let mut w = Writer::new();
    w.map(6);
    w.str("op");
    w.str("materialise");
    w.str("id");
    w.uint(id);
    w.str("header");
    w.raw(&request.expr.header);
    w.str("keys");
    w.array(request.wanted.len());
    request.wanted.iter().for_each(|key| w.raw(key.wire()));
    w.str("priority");
    w.bool(request.internal_priority.is_some());
    w.str("annotations");
    match annotations {
        Some(payload) => {
            w.array(2);
            w.bin(&payload.header);
            w.uint(payload.frames.as_slice().len() as u64);
        }
        None => w.nil(),
    }
    let mut message = vec![w.into_document()];
    message.extend_from_slice(request.expr.frames.as_slice());
    if let Some(payload) = annotations {
        message.extend_from_slice(payload.frames.as_slice());
    }
    message
}

/// Says which nodes are to be pickled, and in which order.
pub(super) fn order(id: u64, positions: &[u32]) -> Message {
    let mut w = Writer::new();
    w.map(2);
    w.str("op");
    w.str("order");
    w.str("id");
    w.uint(id);
    let positions: Vec<u8> = positions
        .iter()
        .flat_map(|position| position.to_ne_bytes())
        .collect();
    vec![w.into_document(), positions.into()]
}

/// Starts a scheduler plugin in the helper, or stops it.
pub(super) fn plugin(name: &str, pickle: Option<&Bytes>) -> Message {
    let mut w = Writer::new();
    w.map(2);
    w.str("op");
    w.str("plugin");
    w.str("name");
    w.str(name);
    let mut message = vec![w.into_document()];
    message.extend(pickle.cloned());
    message
}

/// `pickle.dumps({}, protocol=4 or 5)` inside a payload header: what clients send when there are no annotations.
fn is_empty_dict(payload: &Payload) -> bool {
    const PICKLED: [&[u8]; 2] = [b"\xc4\x04\x80\x05}\x94", b"\xc4\x05\x80\x05}\x94."];
    payload.frames.as_slice().is_empty()
        && PICKLED.iter().any(|pickled| {
            payload
                .header
                .windows(pickled.len())
                .any(|window| window == *pickled)
        })
}
