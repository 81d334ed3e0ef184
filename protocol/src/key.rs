//! Task keys with Python's equality.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use crate::msgpack::{Reader, Writer};
use crate::{DecodeError, DecodeErrorKind};

/// The name of a task and of its result: str, bytes, int, float, bool, or nested tuples of those.
///
/// Two keys are equal when Python says so: `("x", 1) == ("x", 1.0) == ("x", True)`. What was given first is
/// what is shown and sent. Cloning is cheap.
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
        let document = Bytes::copy_from_slice(bytes);
        let mut reader = Reader::new(&document, &[]);
        let key = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(key)
    }

    /// Reads the next value of a document as a key.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.is_str()? {
            let text = reader.str()?;
            return Ok(Self::from(text));
        }
        let mut w = Writer::new();
        let flag = copy_canonical(reader, &mut w)?;
        Ok(Self::from_parts(flag, &w.into_document()))
    }

    fn from_parts(flag: u8, wire: &[u8]) -> Self {
        Self(std::iter::once(flag).chain(wire.iter().copied()).collect())
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
        let document = Bytes::copy_from_slice(self.wire());
        let mut reader = Reader::new(&document, &[]);
        if !reader.is_array().ok()? {
            return None;
        }
        let length = reader.array().ok()?;
        (0..length).map(|_| Self::read(&mut reader).ok()).collect()
    }

    /// Bytes that are equal for equal keys: whole floats and bools are written as ints.
    fn normal(&self) -> Cow<'_, [u8]> {
        if self.0[0] == PLAIN {
            return Cow::Borrowed(self.wire());
        }
        let document = Bytes::copy_from_slice(self.wire());
        let mut w = Writer::new();
        normalise(&mut Reader::new(&document, &[]), &mut w);
        Cow::Owned(w.into_document().to_vec())
    }

    /// The name shared by the tasks of one function, Dask's `key_split`.
    pub fn prefix(&self) -> Cow<'_, str> {
        match self.as_str() {
            Some(text) => Cow::Owned(split_text(text)),
            None => match self.as_tuple() {
                Some(parts) => match parts.first() {
                    Some(first) => Cow::Owned(first.prefix().into_owned()),
                    None => Cow::Borrowed("Other"),
                },
                None => match self.as_bytes() {
                    Some(bytes) => Cow::Owned(split_text(&String::from_utf8_lossy(&bytes))),
                    None => Cow::Borrowed("Other"),
                },
            },
        }
    }

    /// The name shared by the tasks of one layer, Dask's `key_split_group`.
    pub fn group(&self) -> Cow<'_, str> {
        if let Some(text) = self.as_str() {
            return Cow::Owned(group_text(text));
        }
        if let Some(parts) = self.as_tuple() {
            return match parts.first() {
                Some(first) => Cow::Owned(first.to_string()),
                None => Cow::Borrowed("Other"),
            };
        }
        match self.as_bytes() {
            Some(bytes) => Cow::Owned(group_text(&String::from_utf8_lossy(&bytes))),
            None => Cow::Borrowed("Other"),
        }
    }

    fn as_bytes(&self) -> Option<Bytes> {
        let document = Bytes::copy_from_slice(self.wire());
        let mut reader = Reader::new(&document, &[]);
        reader.shared_bin().ok()
    }
}

/// Copies one key in the shortest encoding. Gives the flag byte of its representation.
fn copy_canonical(r: &mut Reader<'_>, w: &mut Writer) -> Result<u8, DecodeError> {
    match r.peek()? {
        0xa0..=0xbf | 0xd9..=0xdb => w.str(r.str()?),
        0xc4..=0xc6 => w.bin(r.bin()?),
        0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff => write_int(w, r.int()?),
        0xca | 0xcb => {
            w.f64(r.f64()?);
            return Ok(NUMERIC);
        }
        0xc2 | 0xc3 => {
            w.bool(r.bool()?);
            return Ok(NUMERIC);
        }
        0x90..=0x9f | 0xdc | 0xdd => {
            let length = r.array()?;
            w.array(length);
            return r.nested(|r| {
                (0..length).try_fold(PLAIN, |flag, _| Ok(flag.max(copy_canonical(r, w)?)))
            });
        }
        0xc0 => {
            // None inside a tuple occurs in keys that users write by hand.
            r.take_nil()?;
            w.nil();
        }
        0x80..=0x8f | 0xde | 0xdf => return r.fail(DecodeErrorKind::BadKey("map")),
        _ => return r.fail(DecodeErrorKind::BadKey("extension")),
    }
    Ok(PLAIN)
}

fn write_int(w: &mut Writer, value: i128) {
    match i64::try_from(value) {
        Ok(value) => w.int(value),
        Err(_) => w.uint(value as u64),
    }
}

/// Copies a key, turning bools and whole floats into ints. The key was read before, so reading cannot fail.
fn normalise(r: &mut Reader<'_>, w: &mut Writer) {
    const READ_BEFORE: &str = "a key's own bytes decode";
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
        0x90..=0x9f | 0xdc | 0xdd => {
            let length = r.array().expect(READ_BEFORE);
            w.array(length);
            for _ in 0..length {
                normalise(r, w);
            }
        }
        _ => w.raw(r.raw().expect(READ_BEFORE)),
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn last_dotted_part(text: &str) -> String {
    let inner = text.trim_matches(|c| c == '<' || c == '>');
    let word = inner.split_whitespace().next().unwrap_or_default();
    word.rsplit('.').next().unwrap_or_default().to_owned()
}

/// `dask.utils.key_split` of a string.
fn split_text(text: &str) -> String {
    let mut words = text.split('-');
    let first = words.next().unwrap_or_default();
    let starts_with_letter = first.chars().next().is_some_and(char::is_alphabetic);
    let mut result = if starts_with_letter {
        first.to_owned()
    } else {
        first
            .split(',')
            .next()
            .unwrap_or_default()
            .trim_matches(|c| "_'()\"".contains(c))
            .to_owned()
    };
    for word in words {
        let alphabetic = !word.is_empty() && word.chars().all(char::is_alphabetic);
        if !alphabetic || (word.len() == 8 && is_hex(word)) {
            break;
        }
        result.push('-');
        result.push_str(word);
    }
    if result.len() == 32 && is_hex(&result) {
        return "data".to_owned();
    }
    if result.starts_with('<') {
        last_dotted_part(&result)
    } else {
        result
    }
}

/// `distributed.utils.key_split_group` of a string.
fn group_text(text: &str) -> String {
    if text.starts_with('(') {
        let first = text.split(',').next().unwrap_or_default();
        return first.trim_matches(|c| "()\"'".contains(c)).to_owned();
    }
    if text.len() == 32 && is_hex(text) {
        return "data".to_owned();
    }
    if text.starts_with('<') {
        return last_dotted_part(text);
    }
    split_text(text)
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        let mut w = Writer::new();
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
            None => {
                let document = Bytes::copy_from_slice(self.wire());
                write_repr(&mut Reader::new(&document, &[]), f)
            }
        }
    }
}

impl fmt::Debug for Key {
    /// Python's `repr(key)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let document = Bytes::copy_from_slice(self.wire());
        write_repr(&mut Reader::new(&document, &[]), f)
    }
}

fn write_repr(r: &mut Reader<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let write = |r: &mut Reader<'_>,
                 f: &mut fmt::Formatter<'_>|
     -> Result<fmt::Result, DecodeError> {
        Ok(match r.peek()? {
            0xa0..=0xbf | 0xd9..=0xdb => {
                let text = r.str()?;
                let quote = if text.contains('\'') && !text.contains('"') {
                    '"'
                } else {
                    '\''
                };
                write!(f, "{quote}{}{quote}", text.replace('\\', "\\\\"))
            }
            0xc4..=0xc6 => write!(f, "b'{}'", r.bin()?.escape_ascii()),
            0xc0 => {
                r.take_nil()?;
                f.write_str("None")
            }
            0xc2 | 0xc3 => f.write_str(if r.bool()? { "True" } else { "False" }),
            0xca | 0xcb => write!(f, "{:?}", r.f64()?),
            0x90..=0x9f | 0xdc | 0xdd => {
                let length = r.array()?;
                let mut result = f.write_str("(");
                for i in 0..length {
                    result = result.and_then(|()| if i > 0 { f.write_str(", ") } else { Ok(()) });
                    result = result.and_then(|()| write_repr(r, f));
                }
                result.and_then(|()| f.write_str(if length == 1 { ",)" } else { ")" }))
            }
            _ => write!(f, "{}", r.int()?),
        })
    };
    write(r, f).unwrap_or(Err(fmt::Error))
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
        assert_eq!(
            Key::parse_wire(b"\x92\xa1x\xd3\0\0\0\0\0\0\0\x05")
                .unwrap()
                .wire(),
            b"\x92\xa1x\x05"
        );
        assert!(Key::parse_wire(b"\x80").is_err());
        assert!(Key::parse_wire(b"\x92\xa1x").is_err());
        assert!(Key::parse_wire(&[0x91; 100_000]).is_err());
    }

    #[test]
    fn keys_print_as_python_prints_them() {
        let key = Key::tuple([
            Key::from("sum-1"),
            Key::from(0),
            Key::tuple([Key::float(2.0)]),
        ]);
        assert_eq!(key.to_string(), "('sum-1', 0, (2.0,))");
        assert_eq!(Key::from("inc-1").to_string(), "inc-1");
    }

    #[test]
    fn prefix_and_group_follow_dask() {
        for (text, prefix, group) in [
            ("x", "x", "x"),
            ("x-1", "x", "x"),
            ("x-1-2-3", "x", "x"),
            ("hello-world-1", "hello-world", "hello-world"),
            ("x-abcdefab", "x", "x"),
            ("('x-2', 1)", "x", "x-2"),
            ("ae05086432ca935f6eba409a8ecd4896", "data", "data"),
            (
                "<module.submodule.myclass object at 0xdaf372",
                "myclass",
                "myclass",
            ),
            ("_(x)", "x", "x"),
        ] {
            let key = Key::from(text);
            assert_eq!(key.prefix(), prefix, "{text}");
            assert_eq!(key.group(), group, "{text}");
        }
        let block = Key::tuple([Key::from("add-00ff"), Key::from(3)]);
        assert_eq!(
            (block.prefix().as_ref(), block.group().as_ref()),
            ("add", "add-00ff")
        );
        assert_eq!(Key::from(5).prefix(), "Other");
    }
}
