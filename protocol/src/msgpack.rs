//! Reading and writing msgpack documents by hand, with map keys of any type and payloads by reference.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{DecodeError, DecodeErrorKind, Frames, Payload, PayloadKind};

/// Deepest nesting of arrays and maps that is read. Stock Dask stays below 20.
pub const MAX_DEPTH: usize = 128;

type Result<T> = std::result::Result<T, DecodeError>;

/// Reads one msgpack document from the front, borrowing from the frame.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    document: &'a Bytes,
    frames: &'a [Bytes],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `document`. `frames` are all frames of the message, for payloads (empty where none may occur).
    pub fn new(document: &'a Bytes, frames: &'a [Bytes]) -> Self {
        Self {
            document,
            frames,
            at: 0,
            depth: 0,
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
    pub fn fail<T>(&self, kind: DecodeErrorKind) -> Result<T> {
        Err(DecodeError::new(0, self.at, kind))
    }

    /// Byte offset of the next value.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes that have not been read yet. No value can have more elements than this.
    pub fn remaining(&self) -> usize {
        self.document.len() - self.at
    }

    /// # Errors
    /// If anything follows the values read so far.
    pub fn finish(&self) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            n => self.fail(DecodeErrorKind::TrailingBytes(n)),
        }
    }

    /// The first byte of the next value.
    pub fn peek(&self) -> Result<u8> {
        match self.document.get(self.at) {
            Some(byte) => Ok(*byte),
            None => self.fail(DecodeErrorKind::Truncated),
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        match self.document.get(self.at..).and_then(|rest| rest.get(..n)) {
            Some(bytes) => {
                self.at += n;
                Ok(bytes)
            }
            None => self.fail(DecodeErrorKind::Truncated),
        }
    }

    fn be<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        let mut out = [0; N];
        out.copy_from_slice(bytes);
        Ok(out)
    }

    fn unexpected<T>(&self, expected: &'static str) -> Result<T> {
        let found = type_name(self.peek()?);
        self.fail(DecodeErrorKind::Unexpected { expected, found })
    }

    /// True if the next value is nil, which is then consumed.
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

    /// Reads an integer of any width.
    pub fn int(&mut self) -> Result<i128> {
        let tag = self.peek()?;
        if !matches!(tag, 0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff) {
            return self.unexpected("int");
        }
        self.at += 1;
        Ok(match tag {
            0x00..=0x7f => i128::from(tag),
            0xcc => i128::from(self.be::<1>()?[0]),
            0xcd => i128::from(u16::from_be_bytes(self.be()?)),
            0xce => i128::from(u32::from_be_bytes(self.be()?)),
            0xcf => i128::from(u64::from_be_bytes(self.be()?)),
            0xd0 => i128::from(i8::from_be_bytes(self.be()?)),
            0xd1 => i128::from(i16::from_be_bytes(self.be()?)),
            0xd2 => i128::from(i32::from_be_bytes(self.be()?)),
            0xd3 => i128::from(i64::from_be_bytes(self.be()?)),
            _ => i128::from(tag as i8),
        })
    }

    /// Reads an integer that fits `i64`.
    pub fn i64(&mut self) -> Result<i64> {
        let at = self.at;
        let value = self.int()?;
        i64::try_from(value)
            .map_err(|_| DecodeError::new(0, at, DecodeErrorKind::OutOfRange("i64")))
    }

    /// Reads an integer ≥ 0. Whole floats are accepted, since Python code computes sizes with floats.
    pub fn uint(&mut self) -> Result<u64> {
        let at = self.at;
        if matches!(self.peek()?, 0xca | 0xcb) {
            let value = self.f64()?;
            if value >= 0.0 && value < 2_f64.powi(64) && value.fract() == 0.0 {
                return Ok(value as u64);
            }
            return Err(DecodeError::new(0, at, DecodeErrorKind::OutOfRange("u64")));
        }
        let value = self.int()?;
        u64::try_from(value)
            .map_err(|_| DecodeError::new(0, at, DecodeErrorKind::OutOfRange("u64")))
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
            0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff => Ok(self.int()? as f64),
            _ => self.unexpected("float"),
        }
    }

    fn length(&mut self, tag: u8, base8: u8) -> Result<usize> {
        self.at += 1;
        Ok(match tag.wrapping_sub(base8) {
            0 => usize::from(self.be::<1>()?[0]),
            1 => usize::from(u16::from_be_bytes(self.be()?)),
            _ => u32::from_be_bytes(self.be()?) as usize,
        })
    }

    /// Reads a string.
    pub fn str(&mut self) -> Result<&'a str> {
        let tag = self.peek()?;
        let length = match tag {
            0xa0..=0xbf => {
                self.at += 1;
                usize::from(tag & 0x1f)
            }
            0xd9..=0xdb => self.length(tag, 0xd9)?,
            _ => return self.unexpected("str"),
        };
        let at = self.at;
        std::str::from_utf8(self.take(length)?)
            .map_err(|_| DecodeError::new(0, at, DecodeErrorKind::NotUtf8))
    }

    /// Reads a string, or skips a value of another type. For map keys that may be anything.
    pub fn str_or_skip(&mut self) -> Result<Option<&'a str>> {
        match self.peek()? {
            0xa0..=0xbf | 0xd9..=0xdb => self.str().map(Some),
            _ => self.skip().map(|()| None),
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
        Ok(self.document.slice_ref(bytes))
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
        self.check_count(length)
    }

    /// Reads the head of a map: how many pairs follow. Never more than bytes are left.
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
        self.check_count(length)
    }

    fn check_count(&self, count: usize) -> Result<usize> {
        if count > self.remaining() {
            self.fail(DecodeErrorKind::Truncated)
        } else {
            Ok(count)
        }
    }

    /// Runs `read` one level deeper. All recursion over nested values goes through here.
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return self.fail(DecodeErrorKind::TooDeep(MAX_DEPTH));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Passes over one value of any type.
    pub fn skip(&mut self) -> Result<()> {
        // Counts values still to pass instead of recursing, so depth costs nothing.
        let mut pending = 1_usize;
        while pending > 0 {
            pending -= 1;
            let tag = self.peek()?;
            match tag {
                0xc0 | 0xc2 | 0xc3 => self.at += 1,
                0x00..=0x7f | 0xe0..=0xff | 0xcc..=0xd3 => {
                    self.int()?;
                }
                0xca | 0xcb => {
                    self.f64()?;
                }
                0xa0..=0xbf => {
                    self.at += 1;
                    self.take(usize::from(tag & 0x1f))?;
                }
                0xd9..=0xdb => {
                    let length = self.length(tag, 0xd9)?;
                    self.take(length)?;
                }
                0xc4..=0xc6 => {
                    self.bin()?;
                }
                0x90..=0x9f | 0xdc | 0xdd => pending += self.array()?,
                0x80..=0x8f | 0xde | 0xdf => pending += 2 * self.map()?,
                _ => return self.unexpected("a value without extension type"),
            }
        }
        Ok(())
    }

    /// The encoded bytes of the next value, which is passed over.
    pub fn raw(&mut self) -> Result<&'a [u8]> {
        let start = self.at;
        self.skip()?;
        Ok(&self.document[start..self.at])
    }

    /// True if the next value is a map.
    pub fn is_map(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, 0x80..=0x8f | 0xde | 0xdf))
    }

    /// True if the next value is an array.
    pub fn is_array(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, 0x90..=0x9f | 0xdc | 0xdd))
    }

    /// True if the next value is a string.
    pub fn is_str(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, 0xa0..=0xbf | 0xd9..=0xdb))
    }

    /// True if the next value is a byte string.
    pub fn is_bin(&self) -> Result<bool> {
        Ok(matches!(self.peek()?, 0xc4..=0xc6))
    }

    /// Reads a payload reference, or gives `None` and stays in place if the next value is something else.
    pub fn take_payload(&mut self) -> Result<Option<Payload>> {
        if self.peek()? != 0x81 {
            return Ok(None);
        }
        let mut probe = self.clone();
        probe.map()?;
        let kind = match probe.str_or_skip()? {
            Some("__Serialized__") => PayloadKind::Serialized,
            Some("__Pickled__") => PayloadKind::Pickled,
            _ => return Ok(None),
        };
        let index = probe.uint()?;
        let payload =
            Payload::from_frames(kind, index, self.frames).map_err(|error| DecodeError {
                at: if error.frame == 0 { self.at } else { error.at },
                ..error
            })?;
        self.at = probe.at;
        Ok(Some(payload))
    }

    /// Reads the head of a sequence: an array, or a Python set in its marker map.
    /// Gives the number of elements and whether it is a set.
    pub fn sequence(&mut self) -> Result<(usize, bool)> {
        if !self.is_map()? {
            return Ok((self.array()?, false));
        }
        let at = self.at;
        if self.map()? == 2
            && self.str_or_skip()? == Some("__Set__")
            && self.bool()?
            && self.str_or_skip()? == Some("as-list")
        {
            return Ok((self.array()?, true));
        }
        self.at = at;
        self.unexpected("array or set")
    }
}

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

/// Writes one msgpack document, and collects the frames of the payloads that it refers to.
#[derive(Debug, Default)]
pub struct Writer {
    document: BytesMut,
    /// Frames 1, 2, … of the message.
    frames: Vec<Bytes>,
}

impl Writer {
    /// An empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// The document alone, for messages and headers without payloads.
    pub fn into_document(self) -> Bytes {
        self.document.freeze()
    }

    /// All frames of the message, the document first.
    pub fn into_frames(self) -> Vec<Bytes> {
        let mut frames = Vec::with_capacity(1 + self.frames.len());
        frames.push(self.document.freeze());
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

    /// Writes nil.
    pub fn nil(&mut self) {
        self.document.put_u8(0xc0);
    }

    /// Writes a bool.
    pub fn bool(&mut self, value: bool) {
        self.document.put_u8(if value { 0xc3 } else { 0xc2 });
    }

    /// Writes an integer ≥ 0 in the shortest form.
    pub fn uint(&mut self, value: u64) {
        let d = &mut self.document;
        match value {
            0..=0x7f => d.put_u8(value as u8),
            0x80..=0xff => {
                d.put_u8(0xcc);
                d.put_u8(value as u8);
            }
            0x100..=0xffff => {
                d.put_u8(0xcd);
                d.put_u16(value as u16);
            }
            0x1_0000..=0xffff_ffff => {
                d.put_u8(0xce);
                d.put_u32(value as u32);
            }
            _ => {
                d.put_u8(0xcf);
                d.put_u64(value);
            }
        }
    }

    /// Writes an integer in the shortest form.
    pub fn int(&mut self, value: i64) {
        let d = &mut self.document;
        match value {
            0.. => self.uint(value as u64),
            -0x20..=-1 => d.put_i8(value as i8),
            -0x80..=-0x21 => {
                d.put_u8(0xd0);
                d.put_i8(value as i8);
            }
            -0x8000..=-0x81 => {
                d.put_u8(0xd1);
                d.put_i16(value as i16);
            }
            -0x8000_0000..=-0x8001 => {
                d.put_u8(0xd2);
                d.put_i32(value as i32);
            }
            _ => {
                d.put_u8(0xd3);
                d.put_i64(value);
            }
        }
    }

    /// Writes a float of 8 bytes.
    pub fn f64(&mut self, value: f64) {
        self.document.put_u8(0xcb);
        self.document.put_f64(value);
    }

    fn sized(&mut self, length: usize, tag8: Option<u8>, tag16: u8, tag32: u8) {
        let d = &mut self.document;
        match (tag8, length) {
            (Some(tag), 0..=0xff) => {
                d.put_u8(tag);
                d.put_u8(length as u8);
            }
            (_, 0..=0xffff) => {
                d.put_u8(tag16);
                d.put_u16(length as u16);
            }
            _ => {
                d.put_u8(tag32);
                d.put_u32(
                    u32::try_from(length).expect("a msgpack value has fewer than 2^32 elements"),
                );
            }
        }
    }

    /// Writes a string.
    pub fn str(&mut self, value: &str) {
        match value.len() {
            n @ 0..=31 => self.document.put_u8(0xa0 | n as u8),
            n => self.sized(n, Some(0xd9), 0xda, 0xdb),
        }
        self.document.extend_from_slice(value.as_bytes());
    }

    /// Writes a byte string. At most 4 GiB, as msgpack allows.
    pub fn bin(&mut self, value: &[u8]) {
        self.sized(value.len(), Some(0xc4), 0xc5, 0xc6);
        self.document.extend_from_slice(value);
    }

    /// Writes the head of an array; `length` values must follow.
    pub fn array(&mut self, length: usize) {
        match length {
            0..=15 => self.document.put_u8(0x90 | length as u8),
            _ => self.sized(length, None, 0xdc, 0xdd),
        }
    }

    /// Writes the head of a map; `length` keys and values must follow in turn.
    pub fn map(&mut self, length: usize) {
        match length {
            0..=15 => self.document.put_u8(0x80 | length as u8),
            _ => self.sized(length, None, 0xde, 0xdf),
        }
    }

    /// Writes the head of a Python set; `length` values must follow.
    pub fn set(&mut self, length: usize) {
        self.map(2);
        self.str("__Set__");
        self.bool(true);
        self.str("as-list");
        self.array(length);
    }

    /// Writes a value that is encoded already.
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
