//! Any msgpack value, for user data and replies that have no type of their own.

use bytes::Bytes;

use crate::msgpack::{PICKLED, Reader, SERIALIZED, Writer};
use crate::wire::{Decode, Encode};
use crate::{DecodeError, DecodeErrorKind, Key, Payload};

/// A value of a message: what Python code passes in metadata, events, arguments and replies.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// `None`.
    #[default]
    Nil,
    /// A bool.
    Bool(bool),
    /// An int from −2^63 to 2^64 − 1; one beyond is written as the nearest of these.
    Int(i128),
    /// A float.
    Float(f64),
    /// A str.
    Str(String),
    /// Bytes, sharing the memory of the message.
    Bin(Bytes),
    /// A list or tuple.
    Array(Vec<Self>),
    /// A set.
    Set(Vec<Self>),
    /// A dict, in the order of the message.
    Map(Vec<(Self, Self)>),
    /// An out-of-band value.
    Payload(Payload),
}

impl Value {
    /// A map with string keys.
    pub fn map<K: Into<String>>(pairs: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Map(
            pairs
                .into_iter()
                .map(|(k, v)| (Self::Str(k.into()), v))
                .collect(),
        )
    }

    /// An array of anything that is a value.
    pub fn array<V: Into<Self>>(values: impl IntoIterator<Item = V>) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }

    /// The value of a string key of a map.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs
                .iter()
                .find(|(k, _)| k.as_str() == Some(name))
                .map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text of a str.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// An int or float as a float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// An int ≥ 0, or a whole float in the same range.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::Float(value)
                if *value >= 0.0 && *value < 2_f64.powi(64) && value.fract() == 0.0 =>
            {
                Some(*value as u64)
            }
            _ => None,
        }
    }

    /// The elements of an array or set.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) | Self::Set(values) => Some(values),
            _ => None,
        }
    }

    /// The pairs of a map.
    pub fn as_map(&self) -> Option<&[(Self, Self)]> {
        match self {
            Self::Map(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The value as a task key, if it is of a type that keys may have.
    pub fn to_key(&self) -> Option<Key> {
        let mut w = Writer::new();
        self.encode(&mut w);
        Key::parse_wire(&w.into_document()).ok()
    }

    /// A copy that does not keep the message's memory alive.
    pub fn detached(&self) -> Self {
        match self {
            Self::Bin(bytes) => Self::Bin(Bytes::copy_from_slice(bytes)),
            Self::Array(values) => Self::Array(values.iter().map(Self::detached).collect()),
            Self::Set(values) => Self::Set(values.iter().map(Self::detached).collect()),
            Self::Map(pairs) => Self::Map(
                pairs
                    .iter()
                    .map(|(k, v)| (k.detached(), v.detached()))
                    .collect(),
            ),
            Self::Payload(payload) => Self::Payload(payload.detached()),
            other => other.clone(),
        }
    }
}

impl Decode for Value {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.peek()? {
            0xc0 => {
                r.take_nil()?;
                Self::Nil
            }
            0xc2 | 0xc3 => Self::Bool(r.bool()?),
            0xca | 0xcb => Self::Float(r.f64()?),
            0xa0..=0xbf | 0xd9..=0xdb => Self::Str(r.str()?.to_owned()),
            0xc4..=0xc6 => Self::Bin(r.shared_bin()?),
            0x90..=0x9f | 0xdc | 0xdd => {
                let length = r.array()?;
                Self::Array(r.collect(length, Self::decode)?)
            }
            0x80..=0x8f | 0xde | 0xdf => {
                if let Some(payload) = r.take_payload()? {
                    return Ok(Self::Payload(payload));
                }
                if let Some(length) = r.take_set()? {
                    return Ok(Self::Set(r.collect(length, Self::decode)?));
                }
                let length = r.map()?;
                Self::Map(r.collect_pairs(length, |r| {
                    let at = r.position();
                    let key = Self::decode(r)?;
                    refuse_marker(r, at, &key)?;
                    Ok((key, Self::decode(r)?))
                })?)
            }
            _ => Self::Int(r.int()?),
        })
    }

    fn absent() -> Option<Self> {
        Some(Self::Nil)
    }
}

/// A map that a receiver of ours would take for a payload must not pass through as a plain map: the index in it
/// would point into a message of ours.
fn refuse_marker(r: &Reader<'_>, at: usize, key: &Value) -> Result<(), DecodeError> {
    match key.as_str() {
        Some(SERIALIZED) => r.fail_at(at, DecodeErrorKind::BadMarker(SERIALIZED)),
        Some(PICKLED) => r.fail_at(at, DecodeErrorKind::BadMarker(PICKLED)),
        _ => Ok(()),
    }
}

impl Encode for Value {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Nil => w.nil(),
            Self::Bool(value) => w.bool(*value),
            Self::Int(value) => match i64::try_from(*value) {
                Ok(value) => w.int(value),
                Err(_) if *value < 0 => w.int(i64::MIN),
                Err(_) => w.uint(u64::try_from(*value).unwrap_or(u64::MAX)),
            },
            Self::Float(value) => w.f64(*value),
            Self::Str(text) => w.str(text),
            Self::Bin(bytes) => w.bin(bytes),
            Self::Array(values) => {
                w.array(values.len());
                values.iter().for_each(|value| value.encode(w));
            }
            Self::Set(values) => {
                w.set(values.len());
                values.iter().for_each(|value| value.encode(w));
            }
            Self::Map(pairs) => {
                w.map(pairs.len());
                for (key, value) in pairs {
                    key.encode(w);
                    value.encode(w);
                }
            }
            Self::Payload(payload) => w.payload(payload),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => |$x:ident| $to:expr),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from($x: $from) -> Self { $to }
        }
    )*};
}

value_from! {
    bool => |x| Self::Bool(x),
    i64 => |x| Self::Int(i128::from(x)),
    u64 => |x| Self::Int(i128::from(x)),
    u32 => |x| Self::Int(i128::from(x)),
    usize => |x| Self::Int(x as i128),
    f64 => |x| Self::Float(x),
    &str => |x| Self::Str(x.to_owned()),
    String => |x| Self::Str(x),
    Bytes => |x| Self::Bin(x),
    Payload => |x| Self::Payload(x),
    Vec<Value> => |x| Self::Array(x),
}

impl From<&Key> for Value {
    fn from(key: &Key) -> Self {
        let document = Bytes::copy_from_slice(key.wire());
        Self::decode(&mut Reader::new(&document, &[])).unwrap_or_default()
    }
}

impl<V: Into<Self>> From<Option<V>> for Value {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Nil, Into::into)
    }
}
