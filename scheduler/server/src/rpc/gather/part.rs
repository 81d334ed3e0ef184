//! What one worker contributes to an answer, and the answer made of it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use oxidask_protocol::comm::Comm;
use oxidask_protocol::frame::MessageHead;
use oxidask_protocol::msgpack::{Reader, Writer};
use oxidask_protocol::wire::Decode;
use oxidask_protocol::{DecodeError, DecodeErrorKind, Key, PayloadKind};

/// The place of a payload in its message, counted from the frame after the document: kind, first frame.
pub(super) type Place = (PayloadKind, usize);

/// Results of one worker.
pub(crate) struct Part {
    /// Where each begins among the frames, in their order; the first begins at 0 and each ends where the next begins.
    pub(super) entries: Vec<(Key, Place)>,
    /// Unit: bytes.
    pub(super) lengths: Vec<usize>,
    pub(super) body: Body,
}

/// The bytes of the frames.
pub(super) enum Body {
    /// In pieces that need not end where frames do.
    Held(Vec<Bytes>),
    /// Not read yet from the connection to a worker, whose address is this.
    Waiting(Box<Comm>, Arc<str>),
}

/// The answer to `get_data` without its payloads.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: String,
    pub(super) entries: Vec<(Key, Place)>,
    pub(super) lengths: Vec<usize>,
}

impl Head {
    /// # Errors
    /// If the document is malformed, or its payloads do not share the frames without gap and overlap.
    pub(super) fn read(head: MessageHead) -> Result<Self, DecodeError> {
        let MessageHead { document, lengths } = head;
        let mut status = String::new();
        let mut entries = Vec::new();
        let mut r = Reader::of_slice(&document);
        for _ in 0..r.map()? {
            match r.str_or_skip()? {
                Some("status") => status = Decode::decode(&mut r)?,
                Some("data") => entries = read_entries(&mut r, lengths.len())?,
                _ => r.skip()?,
            }
        }
        Ok(Self {
            status,
            entries,
            lengths,
        })
    }
}

fn read_entries(r: &mut Reader<'_>, frames: usize) -> Result<Vec<(Key, Place)>, DecodeError> {
    let mut entries: Vec<(Key, Place)> = Vec::new();
    for _ in 0..r.map()? {
        let key = Key::decode(r)?;
        let mut value = r.clone();
        r.skip()?;
        if !value.is_map()? || value.map()? != 1 {
            return value.fail(DecodeErrorKind::BadMarker("__Serialized__"));
        }
        let kind = match value.str()? {
            text if text == PayloadKind::Serialized.marker() => PayloadKind::Serialized,
            text if text == PayloadKind::Pickled.marker() => PayloadKind::Pickled,
            _ => return value.fail(DecodeErrorKind::BadMarker("__Serialized__")),
        };
        let index = value.uint()?;
        match usize::try_from(index) {
            Ok(index) if index > 0 && index <= frames => entries.push((key, (kind, index - 1))),
            _ => return value.fail(DecodeErrorKind::BadMarker(kind.marker())),
        }
    }
    entries.sort_by_key(|(_, (_, first))| *first);
    let overlap = entries.windows(2).any(|pair| pair[0].1.1 == pair[1].1.1);
    if overlap || entries.first().is_some_and(|(_, (_, first))| *first != 0) {
        return r.fail(DecodeErrorKind::BadMarker("__Serialized__"));
    }
    Ok(entries)
}

impl Part {
    /// Each key with the lengths of its frames.
    pub(super) fn payloads(&self) -> impl Iterator<Item = (&Key, &[usize])> {
        let ends = self.entries.iter().skip(1).map(|(_, (_, first))| *first);
        self.entries
            .iter()
            .zip(ends.chain([self.lengths.len()]))
            .map(|((key, (_, first)), end)| (key, &self.lengths[*first..end]))
    }
}

/// `{"status": "OK", "data": …}` for all parts, and the lengths of the frames that follow.
pub(super) fn head_of(parts: &[Part]) -> (Bytes, Vec<usize>) {
    let mut w = Writer::new();
    w.map(2);
    w.str("status");
    w.str("OK");
    w.str("data");
    w.map(parts.iter().map(|part| part.entries.len()).sum());
    let mut lengths = Vec::new();
    for part in parts {
        for (key, (kind, first)) in &part.entries {
            w.raw(key.wire());
            w.map(1);
            w.str(kind.marker());
            w.uint((1 + lengths.len() + first) as u64);
        }
        lengths.extend_from_slice(&part.lengths);
    }
    (w.into_document(), lengths)
}

/// All frames of an answer whose parts have been taken in; a part that has not been is left out.
pub(super) fn whole(mut parts: Vec<Part>) -> Vec<Bytes> {
    parts.retain(|part| matches!(part.body, Body::Held(_)));
    let (document, lengths) = head_of(&parts);
    let mut bytes = BytesMut::with_capacity(lengths.iter().sum());
    for part in &parts {
        if let Body::Held(pieces) = &part.body {
            pieces
                .iter()
                .for_each(|piece| bytes.extend_from_slice(piece));
        }
    }
    let mut bytes = bytes.freeze();
    let frames = lengths.into_iter().map(|length| bytes.split_to(length));
    std::iter::once(document).chain(frames).collect()
}

#[cfg(test)]
mod tests {
    use oxidask_protocol::Value;
    use oxidask_protocol::message::{decode_one, encode_one};

    use super::*;

    fn head(data: &[(&str, u64)], frames: usize) -> Result<Head, DecodeError> {
        let place = |index: u64| Value::map([("__Serialized__", Value::from(index))]);
        let data = data.iter().map(|(key, index)| (*key, place(*index)));
        let reply = Value::map([("status", "OK".into()), ("data", Value::map(data))]);
        Head::read(MessageHead {
            document: encode_one(&reply)[0].clone(),
            lengths: vec![1; frames],
        })
    }

    #[test]
    fn payloads_share_the_frames_in_order() {
        let read = head(&[("b", 3), ("a", 1)], 4).unwrap();
        let part = Part {
            entries: read.entries,
            lengths: read.lengths,
            body: Body::Held(Vec::new()),
        };
        let shares: Vec<(String, usize)> = part
            .payloads()
            .map(|(key, lengths)| (key.to_string(), lengths.len()))
            .collect();
        assert_eq!(shares, [("a".to_owned(), 2), ("b".to_owned(), 2)]);
    }

    #[test]
    fn gaps_overlaps_and_places_outside_are_refused() {
        for data in [
            &[("a", 0)][..],
            &[("a", 2)],
            &[("a", 1), ("b", 1)],
            &[("a", 1), ("b", 9)],
        ] {
            assert!(head(data, 4).is_err(), "{data:?}");
        }
    }

    #[test]
    fn an_answer_of_several_workers_counts_frames_through() {
        let part = |key: &str, byte: u8| {
            let read = head(&[(key, 1)], 2).unwrap();
            Part {
                entries: read.entries,
                lengths: read.lengths,
                body: Body::Held(vec![Bytes::from(vec![byte; 2])]),
            }
        };
        let frames = whole(vec![part("a", 1), part("b", 2)]);
        assert_eq!(frames.len(), 5);
        assert_eq!((&frames[2][..], &frames[3][..]), (&[1][..], &[2][..]));
        // The frames are no payloads, so the document is looked at by itself.
        let places: Value = decode_one(&frames[..1]).unwrap_or(Value::Nil);
        assert_eq!(places, Value::Nil, "a marker needs its frames");
        let mut r = Reader::of_slice(&frames[0]);
        assert_eq!(r.map().unwrap(), 2);
    }
}
