//! Graphs that a stock client sent, to be sent again under other keys.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use oxidask_protocol::frame::{FrameDecoder, Limits};
use oxidask_protocol::message::client::{FromClient, UpdateGraph};
use oxidask_protocol::message::decode_batch;
use oxidask_protocol::wire::{KeySet, Pairs};
use oxidask_protocol::{Key, Payload};

/// Stands in the keys of a recording where each run has a name of its own.
const PLACE: &[u8; 8] = b"XXXXXXXX";

/// One recorded graph.
pub(crate) struct Recording {
    graph: UpdateGraph,
}

/// The frames of a recorded message.
///
/// # Errors
/// If the file cannot be read or holds no message.
pub(crate) fn frames(folder: &Path, name: &str) -> Result<Vec<Bytes>> {
    let path = folder.join(name);
    let file =
        std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut decoder = FrameDecoder::new(Limits::default());
    let mut rest = &file[..];
    loop {
        if let Some(frames) = decoder.poll()? {
            return Ok(frames);
        }
        let (space, limit) = decoder.space();
        let taken = limit.min(rest.len());
        if taken == 0 {
            bail!("{} ends in the middle of its message", path.display());
        }
        space.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
}

impl Recording {
    pub(crate) fn read(folder: &Path, name: &str) -> Result<Self> {
        let frames = frames(folder, name)?;
        match decode_batch::<FromClient>(&frames)?.pop() {
            Some(FromClient::UpdateGraph(graph)) => Ok(Self { graph }),
            _ => bail!("the recording {name} holds no graph"),
        }
    }

    /// Tasks that it asks for.
    pub(crate) fn len(&self) -> usize {
        self.graph.keys.keys.len()
    }

    /// The graph with keys of its own. `run`: names it among all graphs of a scheduler.
    pub(crate) fn named(&self, run: u32) -> FromClient {
        let name = format!("{run:08x}");
        let mut graph = self.graph.clone();
        graph.expr_ser = payload(&graph.expr_ser, name.as_bytes());
        graph.keys = KeySet {
            keys: graph
                .keys
                .keys
                .iter()
                .map(|k| key(k, name.as_bytes()))
                .collect(),
            is_set: graph.keys.is_set,
        };
        graph.internal_priority = graph.internal_priority.map(|pairs| {
            let renamed = pairs.0.iter().map(|(k, n)| (key(k, name.as_bytes()), *n));
            Pairs(renamed.collect())
        });
        FromClient::UpdateGraph(graph)
    }
}

/// The keys that a graph asks for.
pub(crate) fn wanted(graph: &FromClient) -> &[Key] {
    match graph {
        FromClient::UpdateGraph(graph) => &graph.keys.keys,
        _ => &[],
    }
}

fn key(from: &Key, name: &[u8]) -> Key {
    Key::parse_wire(&renamed(from.wire(), name))
        .expect("a name of the same length changes no encoding")
}

fn payload(from: &Payload, name: &[u8]) -> Payload {
    let frames: Vec<Bytes> = from
        .frames
        .as_slice()
        .iter()
        .map(|frame| renamed(frame, name).into())
        .collect();
    Payload::new(from.kind, renamed(&from.header, name).into(), frames)
}

fn renamed(bytes: &[u8], name: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(PLACE.len())
        .position(|part| part == PLACE)
    {
        bytes[at + found..at + found + PLACE.len()].copy_from_slice(name);
        at += found + PLACE.len();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_gets_the_name() {
        let bytes = b"a-XXXXXXXX-1 and b-XXXXXXXX-2";
        assert_eq!(
            renamed(bytes, b"00000007"),
            b"a-00000007-1 and b-00000007-2"
        );
    }
}
