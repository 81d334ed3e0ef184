//! Any value of any type of the wire, made from bytes: few bytes make small values, so that a failing test shrinks.

use bytes::Bytes;

use crate::message::worker::PriorityPart;
use crate::msgpack::Writer;
use crate::wire::{Encode, KeySet, Omit, Pairs, Seconds};
use crate::{Key, Payload, Value};

/// Bytes that decide what is made. After the last come zeros, which make the smallest value of each type.
pub(crate) struct Source<'a> {
    bytes: &'a [u8],
    depth: usize,
}

/// A type of which samples can be made.
pub(crate) trait Sample: Sized {
    fn sample(source: &mut Source<'_>) -> Self;
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, depth: 0 }
    }

    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `n`, which is at most 256.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// A number that takes any width that msgpack has.
    fn number(&mut self) -> u64 {
        let width = self.below(9);
        (0..width).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// Something one level deeper, or `None` where that would be too deep.
    fn deeper<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.depth > 5 {
            return None;
        }
        self.depth += 1;
        let made = make(self);
        self.depth -= 1;
        Some(made)
    }
}

macro_rules! sample {
    ($($type:ty => |$source:ident| $make:expr;)*) => {$(
        impl Sample for $type {
            fn sample($source: &mut Source<'_>) -> Self { $make }
        }
    )*};
}

sample! {
    bool => |s| s.byte() & 1 == 1;
    i64 => |s| s.number() as i64;
    u64 => |s| s.number();
    f64 => |s| match s.below(4) {
        0 => s.number() as i64 as f64,
        1 => f64::from(s.byte()) / 16.0,
        2 => f64::INFINITY,
        _ => Some(f64::from_bits(s.number())).filter(|x| !x.is_nan()).unwrap_or_default(),
    };
    String => |s| {
        let length = [0, 1, 5, 31, 32, 255, 256, 70_000][s.below(8)];
        let c = ['a', 'Z', '-', 'é', '\u{0}', '😀'][s.below(6)];
        std::iter::repeat_n(c, length / c.len_utf8()).collect()
    };
    Bytes => |s| vec![s.byte(); [0, 1, 255, 256, 70_000][s.below(5)]].into();
    PriorityPart => |s| Self(f64::sample(s));
    Seconds => |s| Self(Option::sample(s));
    Key => |s| match s.below(6) {
        0 | 1 => Self::from(String::sample(s)),
        2 => Self::from(i64::sample(s)),
        3 => Self::float(f64::sample(s)),
        4 => Value::from(Bytes::sample(s)).to_key().expect("bytes are a key"),
        _ => s.deeper(|s| Self::tuple(Vec::sample(s))).unwrap_or_else(|| Self::from(0)),
    };
    Payload => |s| {
        let frames: Vec<Bytes> = Vec::sample(s);
        if bool::sample(s) {
            return Self::pickled(&Bytes::sample(s), frames).expect("a small pickle");
        }
        let mut w = Writer::new();
        Value::map([
            ("compression", Value::Nil),
            ("num-sub-frames", Value::from(frames.len())),
            ("more", Value::from(String::sample(s))),
        ])
        .encode(&mut w);
        Self::serialized(w.into_document(), frames)
    };
    Value => |s| match s.below(10) {
        0 => Self::Nil,
        1 => Self::Bool(bool::sample(s)),
        2 => Self::Int(i128::from(i64::sample(s))),
        3 => Self::Int(i128::from(u64::sample(s))),
        4 => Self::Float(f64::sample(s)),
        5 => Self::Str(String::sample(s)),
        6 => Self::Bin(Bytes::sample(s)),
        7 => Self::Payload(Payload::sample(s)),
        8 => {
            let is_set = bool::sample(s);
            let values = s.deeper(Vec::sample).unwrap_or_default();
            if is_set { Self::Set(values) } else { Self::Array(values) }
        }
        _ => Self::Map(s.deeper(Vec::sample).unwrap_or_default()),
    };
    KeySet => |s| Self { keys: Vec::sample(s), is_set: bool::sample(s) };
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(source: &mut Source<'_>) -> Self {
        let length = [0, 1, 2, 3, 16, 300][source.below(6)];
        // A long one only while there are bytes to tell its elements apart.
        let length = if source.bytes.len() < 200 {
            length % 16
        } else {
            length
        };
        (0..length).map(|_| T::sample(source)).collect()
    }
}

impl<T: Sample + Encode> Sample for Option<T> {
    /// Never a value that is written as nil, which is read as none.
    fn sample(source: &mut Source<'_>) -> Self {
        if source.byte() & 1 == 0 {
            return None;
        }
        let value = T::sample(source);
        let mut w = Writer::new();
        value.encode(&mut w);
        (w.into_document() != b"\xc0"[..]).then_some(value)
    }
}

impl<T: Sample + Encode> Sample for Omit<T> {
    fn sample(source: &mut Source<'_>) -> Self {
        Self(Option::sample(source))
    }
}

impl<A: Sample, B: Sample> Sample for (A, B) {
    fn sample(source: &mut Source<'_>) -> Self {
        (A::sample(source), B::sample(source))
    }
}

impl<A: Sample, B: Sample, C: Sample> Sample for (A, B, C) {
    fn sample(source: &mut Source<'_>) -> Self {
        (A::sample(source), B::sample(source), C::sample(source))
    }
}

impl<K: Sample, V: Sample> Sample for Pairs<K, V> {
    fn sample(source: &mut Source<'_>) -> Self {
        Self(Vec::sample(source))
    }
}
