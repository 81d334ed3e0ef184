//! How Rust types stand in a message: one trait each way, and the macros that define messages.

use std::time::Duration;

use bytes::Bytes;

use crate::msgpack::{Reader, Writer};
use crate::{DecodeError, DecodeErrorKind, Key, Payload, Value};

/// A type that is read from a message.
pub trait Decode: Sized {
    /// Reads the next value.
    ///
    /// # Errors
    /// If it is of another type or damaged.
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The value of a field that the sender left out, if it may be left out.
    fn absent() -> Option<Self> {
        None
    }
}

/// A type that is written to a message.
pub trait Encode {
    /// Writes the value.
    fn encode(&self, w: &mut Writer);

    /// True if a field with this value is left out of its map.
    fn is_absent(&self) -> bool {
        false
    }
}

macro_rules! wire_scalar {
    ($($type:ty: |$r:ident| $read:expr, |$x:ident, $w:ident| $write:expr;)*) => {$(
        impl Decode for $type {
            fn decode($r: &mut Reader<'_>) -> Result<Self, DecodeError> { $read }
        }
        impl Encode for $type {
            fn encode(&self, $w: &mut Writer) { let $x = self; $write }
        }
    )*};
}

wire_scalar! {
    bool: |r| r.bool(), |x, w| w.bool(*x);
    i64: |r| r.i64(), |x, w| w.int(*x);
    u64: |r| r.uint(), |x, w| w.uint(*x);
    u32: |r| narrow(r), |x, w| w.uint(u64::from(*x));
    u16: |r| narrow(r), |x, w| w.uint(u64::from(*x));
    f64: |r| r.f64(), |x, w| w.f64(*x);
    String: |r| r.str().map(str::to_owned), |x, w| w.str(x);
    Box<str>: |r| r.str().map(Into::into), |x, w| w.str(x);
    Bytes: |r| r.shared_bin(), |x, w| w.bin(x);
    Key: |r| Self::read(r), |x, w| w.raw(x.wire());
}

fn narrow<T: TryFrom<u64>>(r: &mut Reader<'_>) -> Result<T, DecodeError> {
    let at = r.position();
    match T::try_from(r.uint()?) {
        Ok(value) => Ok(value),
        Err(_) => r.fail_at(at, DecodeErrorKind::OutOfRange(std::any::type_name::<T>())),
    }
}

impl Decode for Payload {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.take_payload()? {
            Some(payload) => Ok(payload),
            None => r.fail(DecodeErrorKind::Unexpected {
                expected: "payload",
                found: "another value",
            }),
        }
    }
}

impl Encode for Payload {
    fn encode(&self, w: &mut Writer) {
        w.payload(self);
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if r.take_nil()? {
            Ok(None)
        } else {
            T::decode(r).map(Some)
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, w: &mut Writer) {
        match self {
            Some(value) => value.encode(w),
            None => w.nil(),
        }
    }
}

/// A field that is left out when it has no value. (`Option` is written as nil.)
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Omit<T>(pub Option<T>);

impl<T: Decode> Decode for Omit<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Option::decode(r).map(Self)
    }

    fn absent() -> Option<Self> {
        Some(Self(None))
    }
}

impl<T: Encode> Encode for Omit<T> {
    fn encode(&self, w: &mut Writer) {
        self.0.encode(w);
    }

    fn is_absent(&self) -> bool {
        self.0.is_none()
    }
}

/// Arrays; a Python set is read as an array too.
impl<T: Decode> Decode for Vec<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (length, _) = r.sequence()?;
        r.collect(length, T::decode)
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, w: &mut Writer) {
        w.array(self.len());
        self.iter().for_each(|value| value.encode(w));
    }
}

impl<A: Decode, B: Decode> Decode for (A, B) {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.array()? {
            2 => Ok((A::decode(r)?, B::decode(r)?)),
            _ => r.fail(DecodeErrorKind::Unexpected {
                expected: "array of 2",
                found: "array of another length",
            }),
        }
    }
}

impl<A: Encode, B: Encode> Encode for (A, B) {
    fn encode(&self, w: &mut Writer) {
        w.array(2);
        self.0.encode(w);
        self.1.encode(w);
    }
}

impl<A: Decode, B: Decode, C: Decode> Decode for (A, B, C) {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.array()? {
            3 => Ok((A::decode(r)?, B::decode(r)?, C::decode(r)?)),
            _ => r.fail(DecodeErrorKind::Unexpected {
                expected: "array of 3",
                found: "array of another length",
            }),
        }
    }
}

impl<A: Encode, B: Encode, C: Encode> Encode for (A, B, C) {
    fn encode(&self, w: &mut Writer) {
        w.array(3);
        self.0.encode(w);
        self.1.encode(w);
        self.2.encode(w);
    }
}

/// Keys as an array or as a Python set; the form is kept.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeySet {
    /// The keys in the order of the message.
    pub keys: Vec<Key>,
    /// Whether the sender wrote a Python set.
    pub is_set: bool,
}

impl Decode for KeySet {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (length, is_set) = r.sequence()?;
        Ok(Self {
            keys: r.collect(length, Key::read)?,
            is_set,
        })
    }
}

impl Encode for KeySet {
    fn encode(&self, w: &mut Writer) {
        if self.is_set {
            w.set(self.keys.len());
        } else {
            w.array(self.keys.len());
        }
        self.keys.iter().for_each(|key| key.encode(w));
    }
}

/// A map in the order of the message, with keys of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs<K, V>(pub Vec<(K, V)>);

impl<K, V> Default for Pairs<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> FromIterator<(K, V)> for Pairs<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl<K: Decode, V: Decode> Decode for Pairs<K, V> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = r.map()?;
        r.collect_pairs(length, |r| Ok((K::decode(r)?, V::decode(r)?)))
            .map(Self)
    }
}

impl<K: Encode, V: Encode> Encode for Pairs<K, V> {
    fn encode(&self, w: &mut Writer) {
        w.map(self.0.len());
        for (key, value) in &self.0 {
            key.encode(w);
            value.encode(w);
        }
    }
}

/// A duration as Dask's users write it: seconds as a number, text such as `"100 ms"`, or nothing for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Seconds(pub Option<f64>);

impl Seconds {
    /// Reads `"5s"`, `"100 ms"`, `"1h"`, `"2.5"` exactly as Dask's `parse_timedelta` does, seconds being the default
    /// unit, or gives `None` where that raises. So `"ms"` is 0.001, and `".5s"` is 1.5: a text that does not begin
    /// with a digit gets a 1 put before it.
    pub fn parse(text: &str) -> Option<f64> {
        let mut text = text.replace(' ', "");
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            if text.is_empty() {
                return None;
            }
            text.insert(0, '1');
        }
        let number = text.trim_end_matches(char::is_alphabetic);
        let factor = match text[number.len()..].to_lowercase().as_str() {
            "" | "s" | "second" | "seconds" => 1.0,
            "ms" | "millisecond" | "milliseconds" => 1e-3,
            "us" | "microsecond" | "microseconds" => 1e-6,
            "ns" | "nanosecond" | "nanoseconds" => 1e-9,
            "m" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            _ => return None,
        };
        let seconds = python_float(number)? * factor;
        seconds.is_finite().then_some(seconds)
    }

    /// The time to wait, or `None` for no limit. A negative number is no time at all, one too large no limit.
    pub fn to_duration(self) -> Option<Duration> {
        let seconds = self.0?;
        if seconds > 0.0 {
            Duration::try_from_secs_f64(seconds).ok()
        } else {
            Some(Duration::ZERO)
        }
    }
}

/// Python's `float(text)` of a text that begins with a digit: underscores may stand between digits.
fn python_float(text: &str) -> Option<f64> {
    let digit = |i: usize| text.as_bytes().get(i).is_some_and(u8::is_ascii_digit);
    let between_digits = |(i, _)| i > 0 && digit(i - 1) && digit(i + 1);
    if text.match_indices('_').all(between_digits) {
        text.replace('_', "").parse().ok()
    } else {
        None
    }
}

impl Decode for Seconds {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if r.take_nil()? {
            return Ok(Self(None));
        }
        if r.is_str()? {
            let at = r.position();
            let text = r.str()?;
            return match Self::parse(text) {
                Some(seconds) => Ok(Self(Some(seconds))),
                None => r.fail_at(
                    at,
                    DecodeErrorKind::Unexpected {
                        expected: "duration such as \"5s\"",
                        found: "other text",
                    },
                ),
            };
        }
        r.f64().map(|seconds| Self(Some(seconds)))
    }

    fn absent() -> Option<Self> {
        Some(Self(None))
    }
}

impl Encode for Seconds {
    fn encode(&self, w: &mut Writer) {
        self.0.encode(w);
    }
}

/// Text where Python gives a str, an int or nothing, such as the name of a worker. The type is kept.
pub type Name = Value;

/// Defines structures that stand in a message as maps.
///
/// A field is `name: Type`, with `as "wire-name"` where the names differ and `= value` where the sender may leave
/// it out. Fields that the message has beyond these are passed over.
macro_rules! wire_struct {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident $(as $wire:literal)? : $type:ty $(= $default:expr)? ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $( $(#[$field_meta])* pub $field: $type ),* }

        impl $crate::wire::Decode for $name {
            #[allow(unused_mut, unused_variables)]
            fn decode(r: &mut $crate::msgpack::Reader<'_>) -> Result<Self, $crate::DecodeError> {
                $( let mut $field: Option<$type> = None; )*
                let length = r.map()?;
                r.nested(|r| {
                    for _ in 0..length {
                        let name = r.field()?;
                        $( if name == wire_struct!(@wire $field $($wire)?).as_bytes() {
                            let value = $crate::wire::Decode::decode(r);
                            $field = Some(value.map_err(|e| e.in_field(wire_struct!(@wire $field $($wire)?)))?);
                            continue;
                        } )*
                        r.skip()?;
                    }
                    Ok(())
                })?;
                Ok(Self { $(
                    $field: match $field.or_else(|| wire_struct!(@default $type $(, $default)?)) {
                        Some(value) => value,
                        None => return r.fail($crate::DecodeErrorKind::MissingField {
                            structure: stringify!($name),
                            field: wire_struct!(@wire $field $($wire)?),
                        }),
                    }
                ),* })
            }
        }

        #[cfg(test)]
        impl $crate::sample::Sample for $name {
            #[allow(unused_variables)]
            fn sample(source: &mut $crate::sample::Source<'_>) -> Self {
                Self { $( $field: $crate::sample::Sample::sample(source) ),* }
            }
        }

        #[cfg(test)]
        impl $name {
            /// The fields as documentation names them: in brackets if the sender may leave them out.
            #[allow(dead_code)]
            pub(crate) fn described_fields() -> Vec<String> {
                vec![$( {
                    let default: Option<$type> = wire_struct!(@default $type $(, $default)?);
                    let name = wire_struct!(@wire $field $($wire)?);
                    if default.is_some() { format!("[{name}]") } else { name.to_owned() }
                } ),*]
            }
        }

        impl $name {
            /// Fields that will be written.
            #[allow(dead_code)]
            pub(crate) fn count_fields(&self) -> usize {
                0 $( + usize::from(!$crate::wire::Encode::is_absent(&self.$field)) )*
            }

            /// Writes the fields without the head of their map.
            #[allow(dead_code, unused_variables)]
            pub(crate) fn encode_fields(&self, w: &mut $crate::msgpack::Writer) {
                $( if !$crate::wire::Encode::is_absent(&self.$field) {
                    w.str(wire_struct!(@wire $field $($wire)?));
                    $crate::wire::Encode::encode(&self.$field, w);
                } )*
            }
        }

        impl $crate::wire::Encode for $name {
            fn encode(&self, w: &mut $crate::msgpack::Writer) {
                w.map(self.count_fields());
                self.encode_fields(w);
            }
        }
    )*};
    (@wire $field:ident $wire:literal) => { $wire };
    (@wire $field:ident) => { stringify!($field) };
    (@default $type:ty, $default:expr) => { Some($default) };
    (@default $type:ty) => { <$type as $crate::wire::Decode>::absent() };
}

/// Defines the set of operations that travel one way, each a structure under its `op`.
macro_rules! wire_ops {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[doc = $meaning:literal])* $op:literal => $variant:ident($type:ty) ),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)]
        pub enum $name {
            $( $(#[doc = $meaning])* $variant($type), )*
            /// An operation that this list does not have. It is a value, so that the receiver decides.
            Unknown(String),
        }

        impl $name {
            /// Every operation of this direction.
            pub const OPS: &'static [&'static str] = &[$($op),*];

            /// The wire name of the operation.
            pub fn op(&self) -> &str {
                match self {
                    $( Self::$variant(_) => $op, )*
                    Self::Unknown(op) => op,
                }
            }
        }

        impl $crate::message::Operation for $name {
            // Inlined, so that a message of 300 bytes is built where it stays.
            #[inline]
            fn decode_op(op: &str, r: &mut $crate::msgpack::Reader<'_>) -> Result<Self, $crate::DecodeError> {
                Ok(match op {
                    $( $op => {
                        let body = $crate::wire::Decode::decode(r);
                        Self::$variant(body.map_err(|error| $crate::DecodeError::in_op(error, $op))?)
                    } )*
                    _ => {
                        r.skip()?;
                        Self::Unknown(op.to_owned())
                    }
                })
            }
        }

        impl $crate::wire::Decode for $name {
            #[inline]
            fn decode(r: &mut $crate::msgpack::Reader<'_>) -> Result<Self, $crate::DecodeError> {
                let op = $crate::message::peek_op(r)?;
                $crate::message::Operation::decode_op(op, r)
            }
        }

        #[cfg(test)]
        impl $name {
            /// The operations as documentation shows them: name, fields, meaning.
            pub(crate) fn described() -> Vec<(&'static str, Vec<String>, String)> {
                vec![$( ($op, <$type>::described_fields(), [$($meaning.trim()),*].join(" ")) ),*]
            }
        }

        #[cfg(test)]
        impl $crate::sample::Sample for $name {
            fn sample(source: &mut $crate::sample::Source<'_>) -> Self {
                match Self::OPS.get(source.below(Self::OPS.len() + 1)).copied() {
                    $( Some($op) => Self::$variant($crate::sample::Sample::sample(source)), )*
                    _ => Self::Unknown("no-such-op".to_owned()),
                }
            }
        }

        impl $crate::wire::Encode for $name {
            fn encode(&self, w: &mut $crate::msgpack::Writer) {
                match self {
                    $( Self::$variant(body) => {
                        w.map(1 + body.count_fields());
                        w.str("op");
                        w.str($op);
                        body.encode_fields(w);
                    } )*
                    Self::Unknown(op) => {
                        w.map(1);
                        w.str("op");
                        w.str(op);
                    }
                }
            }
        }
    };
}
