//! Reading one document from the front, borrowing from its frame.

use bytes::Bytes;

use super::{PICKLED, SERIALIZED, SET};
use crate::{DecodeError, DecodeErrorKind, Payload, PayloadKind};

/// Deepest nesting of arrays and maps that is read. Stock Dask stays below 20.
pub const MAX_DEPTH: usize = 128;

type Result<T> = std::result::Result<T, DecodeError>;

/// Reads one msgpack document from the front, borrowing from the frame.
///
/// What is built while reading is bounded by the input: arrays and maps are refused unless the document still has a
/// byte for every value that they and the arrays around them announce ([`collect`](Self::collect)), and every frame
/// is handed out at most once ([`take_payload`](Self::take_payload)).
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// The owner of `bytes`, for values that share its memory; without it they are copied.
    owner: Option<&'a Bytes>,
    frames: &'a [Bytes],
    at: usize,
    depth: usize,
    /// Values that the arrays and maps being collected still announce, the present one not counted.
    announced: usize,
    /// Last frame that belongs to a payload already read.
    taken: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `document`. `frames` are all frames of the message, for payloads (empty where none may occur).
    pub fn new(document: &'a Bytes, frames: &'a [Bytes]) -> Self {
        Self {
            bytes: document,
            owner: Some(document),
            frames,
            at: 0,
            depth: 0,
            announced: 0,
            taken: 0,
        }
    }

    /// A reader of bytes that belong to no message.
    pub fn of_slice(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            owner: None,
            frames: &[],
            at: 0,
            depth: 0,
            announced: 0,
            taken: 0,
        }
    }

    /// A reader of the document in frame 0 of a message.
    ///
    /// # Errors
    /// If there are no frames.
    pub fn of_message(frames: &'a [Bytes]) -> Result<Self> {
        match frames.first() {
            Some(document) => Ok(Self::new(document, frames)),
            None => Err(DecodeError::new(
                0,
                0,
                DecodeErrorKind::NoSuchFrame {
                    index: 0,
                    frames: 0,
                },
            )),
        }
    }

    /// An error at the current byte.
    #[cold]
    pub fn fail<T>(&self, kind: DecodeErrorKind) -> Result<T> {
        self.fail_at(self.at, kind)
    }

    /// An error at a byte passed before.
    #[cold]
    pub(crate) fn fail_at<T>(&self, at: usize, kind: DecodeErrorKind) -> Result<T> {
        Err(DecodeError::new(0, at, kind))
    }

    #[cold]
    fn unexpected<T>(&self, expected: &'static str) -> Result<T> {
        let found = type_name(self.peek()?);
        self.fail(DecodeErrorKind::Unexpected { expected, found })
    }

    /// Byte offset of the next value.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes that have not been read yet. No value can have more elements than this.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Checks that the document ends here.
    ///
    /// # Errors
    /// If anything follows the values read so far.
    pub fn finish(&self) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            n => self.fail(DecodeErrorKind::TrailingBytes(n)),
        }
    }

    /// The first byte of the next value.
    #[inline]
    pub fn peek(&self) -> Result<u8> {
        match self.bytes.get(self.at) {
            Some(byte) => Ok(*byte),
            None => self.fail(DecodeErrorKind::Truncated),
        }
    }

    #[inline]
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..n)) {
            Some(bytes) => {
                self.at += n;
                Ok(bytes)
            }
            None => self.fail(DecodeErrorKind::Truncated),
        }
    }

    #[inline]
    fn be<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        let mut out = [0; N];
        out.copy_from_slice(bytes);
        Ok(out)
    }

    /// True if the next value is nil, which is then consumed.
    #[inline]
    pub fn take_nil(&mut self) -> Result<bool> {
        let nil = self.peek()? == 0xc0;
        self.at += usize::from(nil);
        Ok(nil)
    }

    /// Reads a bool.
    pub fn bool(&mut self) -> Result<bool> {
        let value = match self.peek()? {
            0xc2 => false,
            0xc3 => true,
            _ => return self.unexpected("bool"),
        };
        self.at += 1;
        Ok(value)
    }

    /// Reads an integer: its value, or for a negative one its value modulo 2^64 and true.
    #[inline]
    fn wrapped(&mut self) -> Result<(u64, bool)> {
        let tag = self.peek()?;
        if !matches!(tag, 0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff) {
            return self.unexpected("int");
        }
        self.at += 1;
        let signed = match tag {
            0x00..=0x7f => return Ok((u64::from(tag), false)),
            0xcc => return Ok((u64::from(self.be::<1>()?[0]), false)),
            0xcd => return Ok((u64::from(u16::from_be_bytes(self.be()?)), false)),
            0xce => return Ok((u64::from(u32::from_be_bytes(self.be()?)), false)),
            0xcf => return Ok((u64::from_be_bytes(self.be()?), false)),
            0xd0 => i64::from(i8::from_be_bytes(self.be()?)),
            0xd1 => i64::from(i16::from_be_bytes(self.be()?)),
            0xd2 => i64::from(i32::from_be_bytes(self.be()?)),
            0xd3 => i64::from_be_bytes(self.be()?),
            _ => i64::from(tag as i8),
        };
        Ok((signed as u64, signed < 0))
    }

    /// Reads an integer of any width.
    pub fn int(&mut self) -> Result<i128> {
        Ok(match self.wrapped()? {
            (value, false) => i128::from(value),
            (value, true) => i128::from(value as i64),
        })
    }

    /// Reads an integer that fits `i64`.
    pub fn i64(&mut self) -> Result<i64> {
        let at = self.at;
        match self.wrapped()? {
            (value, false) if value > i64::MAX as u64 => {
                self.fail_at(at, DecodeErrorKind::OutOfRange("i64"))
            }
            (value, _) => Ok(value as i64),
        }
    }

    /// Reads an integer ≥ 0. Of a float the whole part is taken, since Python code computes sizes with floats.
    pub fn uint(&mut self) -> Result<u64> {
        let at = self.at;
        if matches!(self.peek()?, 0xca | 0xcb) {
            let value = self.f64()?;
            if value >= 0.0 && value < 2_f64.powi(64) {
                return Ok(value as u64);
            }
            return self.fail_at(at, DecodeErrorKind::OutOfRange("u64"));
        }
        match self.wrapped()? {
            (value, false) => Ok(value),
            (_, true) => self.fail_at(at, DecodeErrorKind::OutOfRange("u64")),
        }
    }

    /// Reads a float, or an integer as a float.
    pub fn f64(&mut self) -> Result<f64> {
        match self.peek()? {
            0xca => {
                self.at += 1;
                Ok(f64::from(f32::from_be_bytes(self.be()?)))
            }
            0xcb => {
                self.at += 1;
                Ok(f64::from_be_bytes(self.be()?))
            }
            0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff => Ok(match self.wrapped()? {
                (value, false) => value as f64,
                (value, true) => value as i64 as f64,
            }),
            _ => self.unexpected("float"),
        }
    }

    /// Reads a length whose width is that of `tag`: 1, 2 or 4 bytes for `base8`, `base8 + 1` and `base8 + 2`.
    #[inline]
    fn length(&mut self, tag: u8, base8: u8) -> Result<usize> {
        self.at += 1;
        Ok(match tag.wrapping_sub(base8) {
            0 => usize::from(self.be::<1>()?[0]),
            1 => usize::from(u16::from_be_bytes(self.be()?)),
            _ => u32::from_be_bytes(self.be()?) as usize,
        })
    }

    /// Reads the bytes of a string, which may not be UTF-8.
    #[inline]
    fn str_bytes(&mut self) -> Result<&'a [u8]> {
        let tag = self.peek()?;
        let length = match tag {
            0xa0..=0xbf => {
                self.at += 1;
                usize::from(tag & 0x1f)
            }
            0xd9..=0xdb => self.length(tag, 0xd9)?,
            _ => return self.unexpected("str"),
        };
        self.take(length)
    }

    /// Reads a string.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str> {
        let bytes = self.str_bytes()?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => self.fail_at(self.at - bytes.len(), DecodeErrorKind::NotUtf8),
        }
    }

    /// Reads a string, or skips a value of another type. For map keys that may be anything.
    pub fn str_or_skip(&mut self) -> Result<Option<&'a str>> {
        if self.is_str()? {
            self.str().map(Some)
        } else {
            self.skip().map(|()| None)
        }
    }

    /// Reads the name of a field: the bytes of a string, empty if a value of another type stands there.
    ///
    /// The bytes are compared with names that are UTF-8, so they need no check of their own.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<&'a [u8]> {
        if self.is_str()? {
            self.str_bytes()
        } else {
            self.skip().map(|()| &[][..])
        }
    }

    /// Reads a byte string.
    pub fn bin(&mut self) -> Result<&'a [u8]> {
        let tag = self.peek()?;
        let length = match tag {
            0xc4..=0xc6 => self.length(tag, 0xc4)?,
            _ => return self.unexpected("bin"),
        };
        self.take(length)
    }

    /// Reads a byte string as a slice that shares the frame's memory.
    pub fn shared_bin(&mut self) -> Result<Bytes> {
        let bytes = self.bin()?;
        Ok(match self.owner {
            Some(owner) => owner.slice_ref(bytes),
            None => Bytes::copy_from_slice(bytes),
        })
    }

    /// Reads the head of an array: how many values follow. Never more than bytes are left.
    pub fn array(&mut self) -> Result<usize> {
        let tag = self.peek()?;
        let length = match tag {
            0x90..=0x9f => {
                self.at += 1;
                usize::from(tag & 0x0f)
            }
            0xdc | 0xdd => self.length(tag, 0xdb)?,
            _ => return self.unexpected("array"),
        };
        self.check_count(length, length)
    }

    /// Reads the head of a map: how many pairs follow. Never more than twice that many bytes are left.
    pub fn map(&mut self) -> Result<usize> {
        let tag = self.peek()?;
        let length = match tag {
            0x80..=0x8f => {
                self.at += 1;
                usize::from(tag & 0x0f)
            }
            0xde | 0xdf => self.length(tag, 0xdd)?,
            _ => return self.unexpected("map"),
        };
        self.check_count(length, 2 * length)
    }

    /// Every value takes at least one byte, so fewer bytes than announced values are an end in the middle.
    #[inline]
    fn check_count(&self, count: usize, values: usize) -> Result<usize> {
        if values + self.announced > self.remaining() {
            self.fail(DecodeErrorKind::Truncated)
        } else {
            Ok(count)
        }
    }

    /// Runs `read` one level deeper. All recursion over nested values goes through here.
    #[inline]
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return self.fail(DecodeErrorKind::TooDeep(MAX_DEPTH));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Reads the `length` values of an array whose head was read, one level deeper, into a vector of that size.
    ///
    /// The vectors that are open at one time have room for at most as many elements as the document has bytes left:
    /// an array inside may announce only what those around it leave.
    pub fn collect<T>(
        &mut self,
        length: usize,
        read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.collect_by(length, 1, read)
    }

    /// As [`collect`](Self::collect), for the `length` pairs of a map.
    pub fn collect_pairs<K, V>(
        &mut self,
        length: usize,
        mut read: impl FnMut(&mut Self) -> Result<(K, V)>,
    ) -> Result<Vec<(K, V)>> {
        self.collect_by(length, 2, &mut read)
    }

    #[inline]
    fn collect_by<T>(
        &mut self,
        length: usize,
        values_each: usize,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.check_count(length, values_each * length)?;
        self.nested(|r| {
            let mut out = Vec::with_capacity(length);
            r.announced += values_each * length;
            for _ in 0..length {
                r.announced -= values_each;
                out.push(read(r)?);
            }
            Ok(out)
        })
    }

    /// Passes over one value of any type.
    pub fn skip(&mut self) -> Result<()> {
        // Counts values still to pass instead of recursing, so depth costs nothing.
        let mut pending = 1_usize;
        while pending > 0 {
            pending -= 1;
            let tag = self.peek()?;
            match tag {
                0xc0 | 0xc2 | 0xc3 | 0x00..=0x7f | 0xe0..=0xff => self.at += 1,
                0xcc | 0xd0 => self.pass(2)?,
                0xcd | 0xd1 => self.pass(3)?,
                0xce | 0xd2 | 0xca => self.pass(5)?,
                0xcf | 0xd3 | 0xcb => self.pass(9)?,
                0xa0..=0xbf => self.pass(1 + usize::from(tag & 0x1f))?,
                0xd9..=0xdb => {
                    let length = self.length(tag, 0xd9)?;
                    self.pass(length)?;
                }
                0xc4..=0xc6 => {
                    let length = self.length(tag, 0xc4)?;
                    self.pass(length)?;
                }
                0x90..=0x9f | 0xdc | 0xdd => {
                    pending += self.array()?;
                    self.check_count(0, pending)?;
                }
                0x80..=0x8f | 0xde | 0xdf => {
                    pending += 2 * self.map()?;
                    self.check_count(0, pending)?;
                }
                _ => return self.unexpected("a value without extension type"),
            }
        }
        Ok(())
    }

    #[inline]
    fn pass(&mut self, n: usize) -> Result<()> {
        self.take(n).map(|_| ())
    }

    /// The encoded bytes of the next value, which is passed over.
    pub fn raw(&mut self) -> Result<&'a [u8]> {
        let start = self.at;
        self.skip()?;
        Ok(&self.bytes[start..self.at])
    }

    /// The encoded bytes since `start`, a [`position`](Self::position) passed before.
    pub(crate) fn passed(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// True if the next value is a map.
    #[inline]
    pub fn is_map(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, 0x80..=0x8f | 0xde | 0xdf))
    }

    /// True if the next value is an array.
    #[inline]
    pub fn is_array(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, 0x90..=0x9f | 0xdc | 0xdd))
    }

    /// True if the next value is a string.
    #[inline]
    pub fn is_str(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, 0xa0..=0xbf | 0xd9..=0xdb))
    }

    /// True if the next value is a byte string.
    #[inline]
    pub fn is_bin(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, 0xc4..=0xc6))
    }

    /// Reads a payload reference, or gives `None` and stays in place if the next value is something else.
    ///
    /// Each payload must begin behind the frames of those read before, as senders write them. So a message cannot
    /// name one frame many times and have it counted and listed as often.
    pub fn take_payload(&mut self) -> Result<Option<Payload>> {
        if self.peek()? != 0x81 {
            return Ok(None);
        }
        let mut probe = self.clone();
        probe.map()?;
        let (kind, marker) = match probe.str_or_skip()? {
            Some(SERIALIZED) => (PayloadKind::Serialized, SERIALIZED),
            Some(PICKLED) => (PayloadKind::Pickled, PICKLED),
            _ => return Ok(None),
        };
        let index = match probe.int().map(usize::try_from) {
            Ok(Ok(index)) if index > 0 => index,
            _ => return self.fail(DecodeErrorKind::BadMarker(marker)),
        };
        if index <= self.taken {
            return self.fail(DecodeErrorKind::FrameTaken {
                index,
                taken: self.taken,
            });
        }
        let payload = Payload::from_frames(kind, index, self.frames, self.at)?;
        self.taken = index + payload.frames.as_slice().len();
        self.at = probe.at;
        Ok(Some(payload))
    }

    /// Reads the head of a sequence: an array, or a Python set in its marker map.
    /// Gives the number of elements and whether it is a set.
    pub fn sequence(&mut self) -> Result<(usize, bool)> {
        if !self.is_map()? {
            return Ok((self.array()?, false));
        }
        match self.take_set()? {
            Some(length) => Ok((length, true)),
            None => self.unexpected("array or set"),
        }
    }

    /// Reads the head of a Python set, or gives `None` and stays in place if the next value is something else.
    pub(crate) fn take_set(&mut self) -> Result<Option<usize>> {
        if self.peek()? != 0x82 {
            return Ok(None);
        }
        let mut probe = self.clone();
        probe.map()?;
        if probe.str_or_skip()? != Some(SET)
            || !matches!(probe.bool(), Ok(true))
            || !matches!(probe.str_or_skip(), Ok(Some("as-list")))
            || !probe.is_array()?
        {
            return Ok(None);
        }
        let length = probe.array()?;
        self.at = probe.at;
        Ok(Some(length))
    }
}

/// The msgpack type that a first byte announces.
fn type_name(tag: u8) -> &'static str {
    match tag {
        0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff => "int",
        0x80..=0x8f | 0xde | 0xdf => "map",
        0x90..=0x9f | 0xdc | 0xdd => "array",
        0xa0..=0xbf | 0xd9..=0xdb => "str",
        0xc0 => "nil",
        0xc2 | 0xc3 => "bool",
        0xc4..=0xc6 => "bin",
        0xca | 0xcb => "float",
        _ => "extension",
    }
}
