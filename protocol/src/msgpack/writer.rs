//! Writing one document, and the frames of the payloads that it names.

use bytes::Bytes;

use super::SET;
use crate::{Frames, Payload};

/// Longest str, bytes, array or map that msgpack can hold.
const MAX_LENGTH: usize = u32::MAX as usize;

/// Writes one msgpack document, and collects the frames of the payloads that it refers to.
#[derive(Debug, Default)]
pub struct Writer {
    document: Vec<u8>,
    /// Frames 1, 2, … of the message.
    frames: Vec<Bytes>,
}

impl Writer {
    /// An empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty document with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            document: Vec::with_capacity(bytes),
            frames: Vec::new(),
        }
    }

    /// The document alone, for messages and headers without payloads.
    pub fn into_document(self) -> Bytes {
        self.document.into()
    }

    /// All frames of the message, the document first.
    pub fn into_frames(self) -> Vec<Bytes> {
        let mut frames = Vec::with_capacity(1 + self.frames.len());
        frames.push(self.document.into());
        frames.extend(self.frames);
        frames
    }

    /// Bytes of document and frames so far.
    pub fn len(&self) -> usize {
        self.document.len() + self.frames.iter().map(Bytes::len).sum::<usize>()
    }

    /// True while nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.document.is_empty()
    }

    #[inline]
    fn put<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) {
        self.document.reserve(1 + N);
        self.document.push(tag);
        self.document.extend_from_slice(&bytes);
    }

    /// Writes nil.
    #[inline]
    pub fn nil(&mut self) {
        self.document.push(0xc0);
    }

    /// Writes a bool.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.document.push(if value { 0xc3 } else { 0xc2 });
    }

    /// Writes an integer ≥ 0 in the shortest form.
    #[inline]
    pub fn uint(&mut self, value: u64) {
        match value {
            0..=0x7f => self.document.push(value as u8),
            0x80..=0xff => self.put(0xcc, [value as u8]),
            0x100..=0xffff => self.put(0xcd, (value as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.put(0xce, (value as u32).to_be_bytes()),
            _ => self.put(0xcf, value.to_be_bytes()),
        }
    }

    /// Writes an integer in the shortest form.
    #[inline]
    pub fn int(&mut self, value: i64) {
        match value {
            0.. => self.uint(value as u64),
            -0x20..=-1 => self.document.push(value as u8),
            -0x80..=-0x21 => self.put(0xd0, (value as i8).to_be_bytes()),
            -0x8000..=-0x81 => self.put(0xd1, (value as i16).to_be_bytes()),
            -0x8000_0000..=-0x8001 => self.put(0xd2, (value as i32).to_be_bytes()),
            _ => self.put(0xd3, value.to_be_bytes()),
        }
    }

    /// Writes a float of 8 bytes.
    #[inline]
    pub fn f64(&mut self, value: f64) {
        self.put(0xcb, value.to_be_bytes());
    }

    #[inline]
    fn sized(&mut self, length: usize, tag8: Option<u8>, tag16: u8, tag32: u8) {
        match (tag8, length) {
            (Some(tag), 0..=0xff) => self.put(tag, [length as u8]),
            (_, 0..=0xffff) => self.put(tag16, (length as u16).to_be_bytes()),
            _ => {
                assert!(
                    length <= MAX_LENGTH,
                    "a msgpack value of {length} bytes or elements, at most {MAX_LENGTH}"
                );
                self.put(tag32, (length as u32).to_be_bytes());
            }
        }
    }

    /// Writes a string.
    ///
    /// # Panics
    /// Above 4 GiB, which msgpack cannot write; what was read from a message is below.
    #[inline]
    pub fn str(&mut self, value: &str) {
        match value.len() {
            n @ 0..=31 => self.document.push(0xa0 | n as u8),
            n => self.sized(n, Some(0xd9), 0xda, 0xdb),
        }
        self.document.extend_from_slice(value.as_bytes());
    }

    /// Writes a byte string.
    ///
    /// # Panics
    /// Above 4 GiB, as [`str`](Self::str).
    pub fn bin(&mut self, value: &[u8]) {
        self.sized(value.len(), Some(0xc4), 0xc5, 0xc6);
        self.document.extend_from_slice(value);
    }

    /// Writes the head of an array; `length` values must follow.
    #[inline]
    pub fn array(&mut self, length: usize) {
        match length {
            0..=15 => self.document.push(0x90 | length as u8),
            _ => self.sized(length, None, 0xdc, 0xdd),
        }
    }

    /// Writes the head of an array whose length is not known yet; say it by [`end_array`](Self::end_array).
    /// Gives the place to name there.
    pub fn begin_array(&mut self) -> usize {
        let at = self.document.len();
        self.document.extend_from_slice(&[0xdd, 0, 0, 0, 0]);
        at
    }

    /// Says how many values follow the head that [`begin_array`](Self::begin_array) wrote at `at`.
    pub fn end_array(&mut self, at: usize, length: u32) {
        self.document[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
    }

    /// Writes the head of a map; `length` keys and values must follow in turn.
    #[inline]
    pub fn map(&mut self, length: usize) {
        match length {
            0..=15 => self.document.push(0x80 | length as u8),
            _ => self.sized(length, None, 0xde, 0xdf),
        }
    }

    /// Writes the head of a Python set; `length` values must follow.
    pub fn set(&mut self, length: usize) {
        self.map(2);
        self.str(SET);
        self.bool(true);
        self.str("as-list");
        self.array(length);
    }

    /// Writes a value that is encoded already.
    #[inline]
    pub fn raw(&mut self, encoded: &[u8]) {
        self.document.extend_from_slice(encoded);
    }

    /// Writes a reference to a payload and appends its frames to the message.
    pub fn payload(&mut self, payload: &Payload) {
        self.map(1);
        self.str(payload.kind.marker());
        self.uint(1 + self.frames.len() as u64);
        self.frames.push(payload.header.clone());
        self.frames
            .extend_from_slice(Frames::as_slice(&payload.frames));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::Reader;

    #[test]
    fn numbers_and_heads_have_their_shortest_form() {
        for (value, bytes) in [
            (0_i64, 1),
            (0x7f, 1),
            (0x80, 2),
            (0xff, 2),
            (0x100, 3),
            (0xffff, 3),
            (0x1_0000, 5),
            (0xffff_ffff, 5),
            (0x1_0000_0000, 9),
            (i64::MAX, 9),
            (-1, 1),
            (-0x20, 1),
            (-0x21, 2),
            (-0x80, 2),
            (-0x81, 3),
            (-0x8000, 3),
            (-0x8001, 5),
            (-0x8000_0000, 5),
            (-0x8000_0001, 9),
            (i64::MIN, 9),
        ] {
            let mut w = Writer::new();
            w.int(value);
            let document = w.into_document();
            assert_eq!(document.len(), bytes, "{value}");
            assert_eq!(Reader::new(&document, &[]).i64(), Ok(value));
        }
        for (length, heads) in [
            (15, [1, 1, 1, 2]),
            (16, [3, 3, 1, 2]),
            (31, [3, 3, 1, 2]),
            (32, [3, 3, 2, 2]),
            (0xff, [3, 3, 2, 2]),
            (0x100, [3, 3, 3, 3]),
            (0xffff, [3, 3, 3, 3]),
            (0x1_0000, [5, 5, 5, 5]),
        ] {
            let written = |write: fn(&mut Writer, usize)| {
                let mut w = Writer::new();
                write(&mut w, length);
                w.len()
            };
            let ours = [
                written(|w, n| w.array(n)),
                written(|w, n| w.map(n)),
                written(|w, n| w.str(&"x".repeat(n))) - length,
                written(|w, n| w.bin(&vec![0; n])) - length,
            ];
            assert_eq!(ours, heads, "{length}");
        }
    }
}
