//! Task keys with Python's equality.

mod repr;
mod split;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub(crate) use repr::of_text as repr;

use crate::msgpack::{ENUM, PICKLED, Reader, SERIALIZED, SET, Writer};
use crate::{DecodeError, DecodeErrorKind};

/// The name of a task and of its result: str, bytes, int, float, bool, or nested tuples of those.
///
/// Two keys are equal when Python says so: `("x", 1) == ("x", 1.0) == ("x", True)`. What was given first is
/// what is shown and sent. (One NaN equals itself here, so that the key can be found again.) Cloning is cheap.
///
/// Represented by a flag byte and the key's msgpack in its shortest form, so that keys without floats and bools are
/// equal when their bytes are.
#[derive(Clone)]
pub struct Key(Arc<[u8]>);

/// Why bytes are not a key.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("not a task key")]
pub struct KeyError(#[from] DecodeError);

/// First byte of the representation: equality of keys is equality of their bytes.
const PLAIN: u8 = 0;
/// First byte of the representation: the key holds a float or a bool, which may equal an int.
const NUMERIC: u8 = 1;

/// Most tuples around each other in a key. Far below [`MAX_DEPTH`](crate::msgpack::MAX_DEPTH), so that a key which
/// came in one message can go out in the midst of any other.
const MAX_KEY_DEPTH: usize = 32;

/// Keys up to this size are put together without an allocation besides their own.
const SHORT: usize = 128;

/// Why reading a key's own bytes cannot fail.
const READ_BEFORE: &str = "a key's own bytes decode";

impl Key {
    /// A tuple of keys.
    pub fn tuple(parts: impl IntoIterator<Item = Self>) -> Self {
        let parts: Vec<Self> = parts.into_iter().collect();
        let mut w = Writer::new();
        w.array(parts.len());
        for part in &parts {
            w.raw(part.wire());
        }
        let flag = parts.iter().map(|part| part.0[0]).max().unwrap_or(PLAIN);
        Self::from_parts(flag, &w.into_document())
    }

    /// A float.
    pub fn float(value: f64) -> Self {
        let mut w = Writer::new();
        w.f64(value);
        Self::from_parts(NUMERIC, &w.into_document())
    }

    /// Reads the key that `bytes` encode in msgpack.
    ///
    /// # Errors
    /// If they are not exactly one value of a type that keys may have.
    pub fn parse_wire(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut reader = Reader::of_slice(bytes);
        let key = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(key)
    }

    /// Reads the next value of a document as a key.
    ///
    /// # Errors
    /// If it is of another type, or a text that marks values of the protocol.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.position();
        if reader.peek()? == 0xc0 {
            return reader.fail(DecodeErrorKind::BadKey("nil"));
        }
        let form = Form::pass(reader, MAX_KEY_DEPTH)?;
        let wire = reader.passed(start);
        let shorter = (!form.is_shortest).then(|| {
            let mut w = Writer::new();
            shorten(&mut Reader::of_slice(wire), &mut w);
            w.into_document()
        });
        let wire = shorter.as_deref().unwrap_or(wire);
        match marker(wire) {
            Some(marker) => reader.fail_at(start, DecodeErrorKind::ReservedKey(marker)),
            None => Ok(Self::from_parts(form.flag, wire)),
        }
    }

    fn from_parts(flag: u8, wire: &[u8]) -> Self {
        let mut short = [flag; SHORT];
        if let Some(buffer) = short.get_mut(..=wire.len()) {
            buffer[1..].copy_from_slice(wire);
            return Self(Arc::from(&*buffer));
        }
        let mut long = Vec::with_capacity(1 + wire.len());
        long.push(flag);
        long.extend_from_slice(wire);
        Self(long.into())
    }

    /// The key in msgpack, as it is sent.
    pub fn wire(&self) -> &[u8] {
        &self.0[1..]
    }

    /// The text, if the key is a string.
    pub fn as_str(&self) -> Option<&str> {
        let wire = self.wire();
        let start = match wire[0] {
            0xa0..=0xbf => 1,
            0xd9 => 2,
            0xda => 3,
            0xdb => 5,
            _ => return None,
        };
        std::str::from_utf8(&wire[start..]).ok()
    }

    /// The elements, if the key is a tuple.
    pub fn as_tuple(&self) -> Option<Vec<Self>> {
        let mut reader = Reader::of_slice(self.wire());
        if !reader.is_array().ok()? {
            return None;
        }
        let length = reader.array().ok()?;
        reader.collect(length, Self::read_part).ok()
    }

    /// An element of a tuple, which may also be nil.
    fn read_part(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.position();
        let form = Form::pass(reader, MAX_KEY_DEPTH)?;
        Ok(Self::from_parts(form.flag, reader.passed(start)))
    }

    /// Bytes that are equal for equal keys: whole floats and bools are written as ints.
    fn normal(&self) -> Cow<'_, [u8]> {
        if self.0[0] == PLAIN {
            return Cow::Borrowed(self.wire());
        }
        let mut w = Writer::new();
        normalise(&mut Reader::of_slice(self.wire()), &mut w);
        Cow::Owned(w.into_document().to_vec())
    }

    /// The name shared by the tasks of one function, Dask's `key_split`.
    pub fn prefix(&self) -> Cow<'_, str> {
        split::prefix(self.wire())
    }

    /// The name shared by the tasks of one layer, Dask's `key_split_group`, as text.
    pub fn group(&self) -> Cow<'_, str> {
        split::group(self.wire())
    }
}

/// The marker that a key is called like, if it is.
///
/// Keys stand as map keys in `who_has`, `nbytes` and the like. One called as a marker would turn such a map into
/// a set or a payload at the receiver, which then fails.
fn marker(wire: &[u8]) -> Option<&'static str> {
    let (head, text) = wire.split_first()?;
    if !text.starts_with(b"__") || !(0xa0..=0xbf).contains(head) {
        return None;
    }
    [SERIALIZED, PICKLED, SET, ENUM]
        .into_iter()
        .find(|marker| marker.as_bytes() == text)
}

/// What is to know about the encoding of a key.
struct Form {
    /// The flag byte of its representation.
    flag: u8,
    /// Whether each of its values has the shortest encoding.
    is_shortest: bool,
}

impl Form {
    /// Passes over one value of a key, of at most `depth` tuples around each other, and checks its types.
    fn pass(r: &mut Reader<'_>, depth: usize) -> Result<Self, DecodeError> {
        let start = r.position();
        let mut flag = PLAIN;
        let is_shortest = match r.peek()? {
            0xa0..=0xbf | 0xd9..=0xdb => {
                let length = r.str()?.len();
                let head = match length {
                    0..=31 => 1,
                    32..=0xff => 2,
                    0x100..=0xffff => 3,
                    _ => 5,
                };
                r.position() - start == head + length
            }
            0xc4..=0xc6 => {
                let length = r.bin()?.len();
                let head = match length {
                    0..=0xff => 2,
                    0x100..=0xffff => 3,
                    _ => 5,
                };
                r.position() - start == head + length
            }
            0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff => {
                let shortest = match r.int()? {
                    -0x20..=0x7f => 1,
                    -0x80..=0xff => 2,
                    -0x8000..=0xffff => 3,
                    -0x8000_0000..=0xffff_ffff => 5,
                    _ => 9,
                };
                // 0xcc and 0xd0 hold what the other cannot: a positive number in a signed form is not the shortest.
                r.position() - start == shortest && !is_signed_positive(r.passed(start))
            }
            tag @ (0xca | 0xcb) => {
                r.f64()?;
                flag = NUMERIC;
                tag == 0xcb
            }
            0xc2 | 0xc3 => {
                r.bool()?;
                flag = NUMERIC;
                true
            }
            0x90..=0x9f | 0xdc | 0xdd => {
                let length = r.array()?;
                let head = match length {
                    0..=15 => 1,
                    16..=0xffff => 3,
                    _ => 5,
                };
                let mut is_shortest = r.position() - start == head;
                let Some(depth) = depth.checked_sub(1) else {
                    return r.fail(DecodeErrorKind::TooDeep(MAX_KEY_DEPTH));
                };
                for _ in 0..length {
                    let part = Self::pass(r, depth)?;
                    flag |= part.flag;
                    is_shortest &= part.is_shortest;
                }
                is_shortest
            }
            // None inside a tuple occurs in keys that users write by hand.
            0xc0 => r.take_nil()?,
            0x80..=0x8f | 0xde | 0xdf => return r.fail(DecodeErrorKind::BadKey("map")),
            _ => return r.fail(DecodeErrorKind::BadKey("extension")),
        };
        Ok(Self { flag, is_shortest })
    }
}

/// True for an int ≥ 0 that is encoded in a signed form, where the unsigned one is the custom.
fn is_signed_positive(wire: &[u8]) -> bool {
    matches!(wire, [0xd0..=0xd3, first, ..] if *first < 0x80)
}

/// Copies a key in the shortest encoding. It was read before, so reading cannot fail.
fn shorten(r: &mut Reader<'_>, w: &mut Writer) {
    match r.peek().expect(READ_BEFORE) {
        0xa0..=0xbf | 0xd9..=0xdb => w.str(r.str().expect(READ_BEFORE)),
        0xc4..=0xc6 => w.bin(r.bin().expect(READ_BEFORE)),
        0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff => write_int(w, r.int().expect(READ_BEFORE)),
        0xca | 0xcb => w.f64(r.f64().expect(READ_BEFORE)),
        0x90..=0x9f | 0xdc | 0xdd => each_part(r, w, shorten),
        _ => w.raw(r.raw().expect(READ_BEFORE)),
    }
}

/// Copies a key, turning bools and whole floats into ints. It was read before, so reading cannot fail.
fn normalise(r: &mut Reader<'_>, w: &mut Writer) {
    match r.peek().expect(READ_BEFORE) {
        0xc2 | 0xc3 => w.uint(u64::from(r.bool().expect(READ_BEFORE))),
        0xca | 0xcb => {
            let value = r.f64().expect(READ_BEFORE);
            if value.fract() == 0.0 && value >= -(2_f64.powi(63)) && value < 2_f64.powi(64) {
                write_int(w, value as i128);
            } else {
                w.f64(value);
            }
        }
        0x90..=0x9f | 0xdc | 0xdd => each_part(r, w, normalise),
        _ => w.raw(r.raw().expect(READ_BEFORE)),
    }
}

fn each_part(r: &mut Reader<'_>, w: &mut Writer, copy: fn(&mut Reader<'_>, &mut Writer)) {
    let length = r.array().expect(READ_BEFORE);
    w.array(length);
    for _ in 0..length {
        copy(r, w);
    }
}

fn write_int(w: &mut Writer, value: i128) {
    match i64::try_from(value) {
        Ok(value) => w.int(value),
        Err(_) => w.uint(value as u64),
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        let mut w = Writer::with_capacity(5 + text.len());
        w.str(text);
        Self::from_parts(PLAIN, &w.into_document())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<i64> for Key {
    fn from(value: i64) -> Self {
        let mut w = Writer::new();
        w.int(value);
        Self::from_parts(PLAIN, &w.into_document())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || (self.0[0] | other.0[0] == NUMERIC && self.normal() == other.normal())
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.normal().hash(state);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    /// An arbitrary but fixed order that agrees with equality. Not Python's order of keys.
    fn cmp(&self, other: &Self) -> Ordering {
        self.normal().cmp(&other.normal())
    }
}

impl fmt::Display for Key {
    /// Python's `str(key)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => f.write_str(text),
            None => repr::write(self.wire(), f),
        }
    }
}

impl fmt::Debug for Key {
    /// Python's `repr(key)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        repr::write(self.wire(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    fn hash(key: &Key) -> u64 {
        std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(key)
    }

    #[test]
    fn numbers_are_equal_as_in_python() {
        let one = Key::tuple([Key::from("x"), Key::from(1)]);
        let float = Key::tuple([Key::from("x"), Key::float(1.0)]);
        let half = Key::tuple([Key::from("x"), Key::float(1.5)]);
        let bool = Key::parse_wire(b"\x92\xa1x\xc3").unwrap();
        for other in [&float, &bool] {
            assert_eq!(&one, other);
            assert_eq!(hash(&one), hash(other));
            assert_eq!(one.cmp(other), Ordering::Equal);
        }
        assert_ne!(one, half);
        assert_ne!(Key::from("1"), Key::from(1));
    }

    #[test]
    fn encodings_of_one_value_are_one_key() {
        assert_eq!(Key::parse_wire(b"\xd9\x01x").unwrap(), Key::from("x"));
        for five in [
            &b"\xd3\0\0\0\0\0\0\0\x05"[..],
            b"\xd0\x05",
            b"\xcc\x05",
            b"\xcd\0\x05",
        ] {
            assert_eq!(Key::parse_wire(five).unwrap().wire(), b"\x05");
            let tuple = [b"\x92\xa1x", five].concat();
            assert_eq!(Key::parse_wire(&tuple).unwrap().wire(), b"\x92\xa1x\x05");
        }
        // 200 is as long in the signed form of two bytes as in the unsigned one.
        assert_eq!(Key::parse_wire(b"\xd1\0\xc8").unwrap().wire(), b"\xcc\xc8");
        assert_eq!(
            Key::parse_wire(b"\xd1\x12\x34").unwrap().wire(),
            b"\xcd\x12\x34"
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(Key::parse_wire(b"\x80").is_err());
        assert!(Key::parse_wire(b"\xc0").is_err());
        assert!(Key::parse_wire(b"\x92\xa1x").is_err());
        assert!(Key::parse_wire(b"\xa1x\xa1x").is_err());
        assert!(Key::parse_wire(&[0x91; 100_000]).is_err());
        let tuples = |n| [&vec![0x91; n][..], b"\x01"].concat();
        assert!(Key::parse_wire(&tuples(32)).is_ok());
        assert!(Key::parse_wire(&tuples(33)).is_err());
        assert!(Key::parse_wire(b"\xa2\xff\xff").is_err());
        let error = Key::parse_wire(b"\xa7__Set__").unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("may not be called \"__Set__\""), "{cause}");
    }

    #[test]
    fn parts_of_a_tuple_are_keys() {
        let key = Key::parse_wire(b"\x93\xa1x\xc0\x91\x07").unwrap();
        let parts = key.as_tuple().unwrap();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0], Key::from("x"));
        assert_eq!(parts[2], Key::tuple([Key::from(7)]));
        assert_eq!(Key::tuple(parts), key);
        assert!(Key::from("x").as_tuple().is_none());
    }
}
