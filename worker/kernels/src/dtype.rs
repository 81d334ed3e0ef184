//! Types of elements, and NumPy's rules for what comes of two of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Type of an array's elements, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DType {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
}

/// All dtypes with NumPy's text for each.
const NAMES: [(DType, &str); 11] = [
    (DType::Bool, "|b1"),
    (DType::I8, "|i1"),
    (DType::I16, "<i2"),
    (DType::I32, "<i4"),
    (DType::I64, "<i8"),
    (DType::U8, "|u1"),
    (DType::U16, "<u2"),
    (DType::U32, "<u4"),
    (DType::U64, "<u8"),
    (DType::F32, "<f4"),
    (DType::F64, "<f8"),
];

impl DType {
    /// The dtype that NumPy writes as `text` (`dtype.str`), if it is one of ours.
    pub fn of_numpy(text: &str) -> Option<Self> {
        let pair = NAMES.iter().find(|(_, name)| *name == text)?;
        Some(pair.0)
    }

    /// The dtype of a type.
    pub fn of<T: Element>() -> Self {
        T::DTYPE
    }

    /// NumPy's `dtype.str`.
    pub fn numpy(self) -> &'static str {
        let pair = NAMES.iter().find(|(dtype, _)| *dtype == self);
        pair.map_or("", |(_, name)| name)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Whether it is `F32` or `F64`.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    fn is_unsigned(self) -> bool {
        matches!(self, Self::U8 | Self::U16 | Self::U32 | Self::U64)
    }

    /// The dtype of `a + b`: NumPy's `result_type` of two arrays.
    pub fn promote(self, other: Self) -> Self {
        use DType::{Bool, F32, F64, I16, I32, I64};
        if self == other || other == Bool {
            return self;
        }
        if self == Bool {
            return other;
        }
        if self.is_float() || other.is_float() {
            let narrow = |dtype: Self| match dtype {
                F32 => true,
                F64 => false,
                integer => integer.size() <= 2,
            };
            return if narrow(self) && narrow(other) {
                F32
            } else {
                F64
            };
        }
        if self.is_unsigned() == other.is_unsigned() {
            return if self.size() >= other.size() {
                self
            } else {
                other
            };
        }
        let (unsigned, signed) = if self.is_unsigned() {
            (self, other)
        } else {
            (other, self)
        };
        if signed.size() > unsigned.size() {
            return signed;
        }
        match unsigned.size() {
            1 => I16,
            2 => I32,
            4 => I64,
            _ => F64,
        }
    }

    /// The dtype of a sum: wide integers for integers, itself for floats.
    pub fn of_sum(self) -> Self {
        match self {
            Self::F32 | Self::F64 => self,
            dtype if dtype.is_unsigned() => Self::U64,
            _ => Self::I64,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.numpy())
    }
}

/// A number among a kernel's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
}

/// NumPy's bool: any byte that is not 0 is true.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct Truth(u8);

impl Truth {
    /// A bool.
    pub fn new(value: bool) -> Self {
        Self(u8::from(value))
    }

    /// Whether it is true.
    pub fn is_true(self) -> bool {
        self.0 != 0
    }
}

impl PartialEq for Truth {
    fn eq(&self, other: &Self) -> bool {
        self.is_true() == other.is_true()
    }
}

impl PartialOrd for Truth {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.is_true().partial_cmp(&other.is_true())
    }
}

/// A type of elements. Any bytes are a value of it, which is what lets arrays be read where they lie.
pub trait Element:
    Copy + Send + Sync + PartialEq + PartialOrd + Default + sealed::Plain + 'static
{
    /// Its dtype.
    const DTYPE: DType;
    /// From a wide integer, wrapping.
    fn from_i64(value: i64) -> Self;
    /// From a float, cut off and saturating.
    fn from_f64(value: f64) -> Self;
    /// As a wide integer; unsigned ones beyond 2^63 wrap.
    fn to_i64(self) -> i64;
    /// As a float.
    fn to_f64(self) -> f64;
    /// `a + b`, wrapping; "or" of bools.
    fn add(self, other: Self) -> Self;
    /// `a - b`, wrapping.
    fn sub(self, other: Self) -> Self;
    /// `a * b`, wrapping; "and" of bools.
    fn mul(self, other: Self) -> Self;
    /// Whether it is a NaN.
    fn is_nan(self) -> bool;

    /// From a parameter.
    fn from_scalar(value: Scalar) -> Self {
        match value {
            Scalar::Int(value) => Self::from_i64(value),
            Scalar::Float(value) => Self::from_f64(value),
        }
    }

    /// As another type: through a wide integer or a float, whichever loses nothing of the two.
    #[inline(always)]
    fn cast<U: Element>(self) -> U {
        if Self::DTYPE.is_float() || U::DTYPE.is_float() {
            U::from_f64(self.to_f64())
        } else {
            U::from_i64(self.to_i64())
        }
    }
}

mod sealed {
    /// Types of which any bytes are a value.
    #[allow(unnameable_types, reason = "that is what seals it")]
    pub trait Plain {}
}

macro_rules! integers {
    ($($type:ty: $dtype:ident),*) => {$(
        impl sealed::Plain for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn from_i64(value: i64) -> Self { value as Self }
            #[inline(always)]
            fn from_f64(value: f64) -> Self { value as Self }
            #[inline(always)]
            fn to_i64(self) -> i64 { self as i64 }
            #[inline(always)]
            fn to_f64(self) -> f64 { self as f64 }
            #[inline(always)]
            fn add(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
            #[inline(always)]
            fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn is_nan(self) -> bool { false }
        }
    )*};
}

integers! { i8: I8, i16: I16, i32: I32, i64: I64, u8: U8, u16: U16, u32: U32, u64: U64 }

macro_rules! floats {
    ($($type:ty: $dtype:ident),*) => {$(
        impl sealed::Plain for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn from_i64(value: i64) -> Self { value as Self }
            #[inline(always)]
            fn from_f64(value: f64) -> Self { value as Self }
            #[inline(always)]
            fn to_i64(self) -> i64 { self as i64 }
            #[inline(always)]
            fn to_f64(self) -> f64 { f64::from(self) }
            #[inline(always)]
            fn add(self, other: Self) -> Self { self + other }
            #[inline(always)]
            fn sub(self, other: Self) -> Self { self - other }
            #[inline(always)]
            fn mul(self, other: Self) -> Self { self * other }
            #[inline(always)]
            fn is_nan(self) -> bool { self != self }
        }
    )*};
}

floats! { f32: F32, f64: F64 }

impl sealed::Plain for Truth {}
impl Element for Truth {
    const DTYPE: DType = DType::Bool;
    #[inline(always)]
    fn from_i64(value: i64) -> Self {
        Self::new(value != 0)
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        Self::new(value != 0.0)
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        i64::from(self.is_true())
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(u8::from(self.is_true()))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self::new(self.is_true() | other.is_true())
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self::new(self.is_true() ^ other.is_true())
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self::new(self.is_true() & other.is_true())
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        false
    }
}

/// Runs `$body` with `$T` standing for the type of `$dtype`.
macro_rules! with_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        with_dtype!(@arms $dtype, $T => $body;
            Bool: $crate::Truth,
            I8: i8, I16: i16, I32: i32, I64: i64,
            U8: u8, U16: u16, U32: u32, U64: u64,
            F32: f32, F64: f64)
    };
    (@arms $dtype:expr, $T:ident => $body:expr; $($variant:ident: $type:ty),*) => {
        match $dtype {
            $($crate::DType::$variant => {
                type $T = $type;
                $body
            })*
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_is_numpys() {
        use DType::*;
        assert_eq!(I64.promote(U64), F64);
        assert_eq!(I8.promote(U8), I16);
        assert_eq!(I32.promote(F32), F64);
        assert_eq!(I16.promote(F32), F32);
        assert_eq!(Bool.promote(U8), U8);
        assert_eq!(U32.promote(I64), I64);
        assert_eq!(U32.promote(I8), I64);
    }

    #[test]
    fn names_are_numpys_both_ways() {
        for (dtype, name) in NAMES {
            assert_eq!(DType::of_numpy(name), Some(dtype));
            assert_eq!(dtype.to_string(), name);
        }
        assert_eq!(DType::of_numpy(">f8"), None);
    }
}
