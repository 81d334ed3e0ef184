//! Element-wise arithmetic and comparison, with NumPy's broadcasting and promotion.

use std::mem::MaybeUninit;

use ndarray::{ArrayViewD, Zip};
use serde::{Deserialize, Serialize};

use crate::memory::filled;
use crate::shape::{allowed, broadcast};
use crate::{Chunk, DType, Element, KernelError, Scalar, Truth};

/// What is done to each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unary {
    /// −a, wrapping; not of bools.
    Negative,
    /// |a|, wrapping.
    Absolute,
    /// a · a, wrapping.
    Square,
    /// √a, in floats: `F64` of integers of more than 16 bits, else `F32`. (NumPy's `F16` of 8 bits is `F32` here.)
    Sqrt,
    /// eᵃ, dtypes as of √.
    Exp,
    /// Natural logarithm, dtypes as of √.
    Log,
}

/// What is done to two elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binary {
    /// a + b; "or" of bools.
    Add,
    /// a − b; not of bools.
    Subtract,
    /// a · b; "and" of bools.
    Multiply,
    /// a / b, in floats: `F32` of two `F32`, else `F64`.
    Divide,
    /// The smaller; NaN if one is.
    Minimum,
    /// The larger; NaN if one is.
    Maximum,
    /// a = b.
    Equal,
    /// a ≠ b.
    NotEqual,
    /// a < b.
    Less,
    /// a ≤ b.
    LessEqual,
    /// a > b.
    Greater,
    /// a ≥ b.
    GreaterEqual,
}

impl Binary {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Subtract => "subtract",
            Self::Multiply => "multiply",
            Self::Divide => "divide",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
            Self::Equal => "equal",
            Self::NotEqual => "not-equal",
            Self::Less => "less",
            Self::LessEqual => "less-equal",
            Self::Greater => "greater",
            Self::GreaterEqual => "greater-equal",
        }
    }
}

#[inline(always)]
pub(crate) fn smaller<T: Element>(a: T, b: T) -> T {
    if a <= b || a.is_nan() { a } else { b }
}

#[inline(always)]
pub(crate) fn larger<T: Element>(a: T, b: T) -> T {
    if a >= b || a.is_nan() { a } else { b }
}

/// `a op b` for all pairs of elements.
///
/// # Errors
/// If shapes cannot be broadcast, the op is not defined for the dtypes, or the result is too large.
pub(crate) fn binary(
    op: Binary,
    left: &Chunk,
    right: &Chunk,
    limit: u64,
) -> Result<Chunk, KernelError> {
    let shape = broadcast(op.name(), left.shape(), right.shape())?;
    let mut dtype = left.dtype().promote(right.dtype());
    if op == Binary::Divide && dtype != DType::F32 {
        dtype = DType::F64;
    }
    if op == Binary::Subtract && dtype == DType::Bool {
        return Err(KernelError::DType {
            kernel: op.name(),
            dtype,
        });
    }
    let n = allowed(&shape, dtype, limit)?;
    let (left, right) = (left.cast(dtype), right.cast(dtype));
    Ok(with_dtype!(dtype, T => {
        let pair = Pair::<T> { left: &left, right: &right, shape, n, element: std::marker::PhantomData };
        match op {
            Binary::Add => pair.map(|a, b| a.add(b)),
            Binary::Subtract => pair.map(|a, b| a.sub(b)),
            Binary::Multiply => pair.map(|a, b| a.mul(b)),
            // Integers were made floats above.
            Binary::Divide => pair.map(|a: T, b: T| T::from_f64(a.to_f64() / b.to_f64())),
            Binary::Minimum => pair.map(smaller),
            Binary::Maximum => pair.map(larger),
            Binary::Equal => pair.map(|a, b| Truth::new(a == b)),
            Binary::NotEqual => pair.map(|a, b| Truth::new(a != b)),
            Binary::Less => pair.map(|a, b| Truth::new(a < b)),
            Binary::LessEqual => pair.map(|a, b| Truth::new(a <= b)),
            Binary::Greater => pair.map(|a, b| Truth::new(a > b)),
            Binary::GreaterEqual => pair.map(|a, b| Truth::new(a >= b)),
        }
    }))
}

/// `a op scalar`, or `scalar op a`.
///
/// The number takes the array's dtype: an integer with any array, a float with an array of floats; a float with
/// integers makes both `F64`.
///
/// # Errors
/// As [`binary`], and [`KernelError::Parameter`] for an integer that the dtype cannot hold.
pub(crate) fn with_scalar(
    op: Binary,
    input: &Chunk,
    scalar: Scalar,
    reversed: bool,
    limit: u64,
) -> Result<Chunk, KernelError> {
    let dtype = match (scalar, input.dtype()) {
        (Scalar::Float(_), dtype) if !dtype.is_float() => DType::F64,
        (Scalar::Int(_), DType::Bool) => DType::I64,
        (_, dtype) => dtype,
    };
    let number = with_dtype!(dtype, T => {
        let element = <T as Element>::from_scalar(scalar);
        if let Scalar::Int(value) = scalar
            && !dtype.is_float()
            && i128::from(value) != wide(element)
        {
            let text = format!("{value} does not fit into {dtype}");
            return Err(KernelError::Parameter { kernel: op.name(), text });
        }
        Chunk::of_vec(Vec::new(), vec![element])
    });
    if reversed {
        binary(op, &number, input, limit)
    } else {
        binary(op, input, &number, limit)
    }
}

/// The exact value of an integer.
fn wide<T: Element>(element: T) -> i128 {
    if T::DTYPE == DType::U64 {
        i128::from(element.to_i64() as u64)
    } else {
        i128::from(element.to_i64())
    }
}

/// Two arrays of one dtype and the shape of what comes of them.
struct Pair<'a, T> {
    left: &'a Chunk,
    right: &'a Chunk,
    shape: Vec<usize>,
    n: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Pair<'_, T> {
    fn map<R: Element>(&self, f: impl Fn(T, T) -> R) -> Chunk {
        let Self {
            left,
            right,
            shape,
            n,
            element: _,
        } = self;
        let same = |chunk: &Chunk| chunk.shape() == *shape;
        let out = match (left.slice::<T>(), right.slice::<T>()) {
            (Some(a), Some(b)) if same(left) && same(right) => filled(
                *n,
                #[inline(always)]
                |out| {
                    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                        out.write(f(*a, *b));
                    }
                },
            ),
            (Some(a), Some([b])) if same(left) => filled(
                *n,
                #[inline(always)]
                |out| {
                    for (out, a) in out.iter_mut().zip(a) {
                        out.write(f(*a, *b));
                    }
                },
            ),
            (Some([a]), Some(b)) if same(right) => filled(
                *n,
                #[inline(always)]
                |out| {
                    for (out, b) in out.iter_mut().zip(b) {
                        out.write(f(*a, *b));
                    }
                },
            ),
            _ => {
                let (a, b) = (left.view_unchecked::<T>(), right.view_unchecked::<T>());
                // Shapes were broadcast before, so that both views exist.
                let (a, b) = (a.broadcast(shape.as_slice()), b.broadcast(shape.as_slice()));
                let (Some(a), Some(b)) = (a, b) else {
                    unreachable!("shapes that were broadcast can be")
                };
                filled(
                    *n,
                    #[inline(always)]
                    |out| zip(&a, &b, shape, out, &f),
                )
            }
        };
        Chunk::of_vec(shape.clone(), out)
    }
}

fn zip<T: Element, R: Element>(
    a: &ArrayViewD<'_, T>,
    b: &ArrayViewD<'_, T>,
    shape: &[usize],
    out: &mut [MaybeUninit<R>],
    f: &impl Fn(T, T) -> R,
) {
    let Ok(out) = ndarray::ArrayViewMutD::from_shape(shape, out) else {
        unreachable!("the result has as many elements as its shape")
    };
    Zip::from(out).and(a).and(b).for_each(|out, a, b| {
        out.write(f(*a, *b));
    });
}

/// `op a` for all elements.
///
/// # Errors
/// [`KernelError::DType`] where the op is not defined.
pub(crate) fn unary(op: Unary, input: &Chunk) -> Result<Chunk, KernelError> {
    let dtype = input.dtype();
    match op {
        Unary::Negative if dtype == DType::Bool => Err(KernelError::DType {
            kernel: "negative",
            dtype,
        }),
        Unary::Negative | Unary::Absolute | Unary::Square => {
            let input = input.to_standard();
            Ok(with_dtype!(dtype, T => {
                let zero = <T as Default>::default();
                match op {
                    Unary::Negative => map(&input, |a: T| if dtype.is_float() { a.mul(T::from_f64(-1.0)) } else { zero.sub(a) }),
                    Unary::Square => map(&input, |a: T| a.mul(a)),
                    _ if dtype.is_float() => map(&input, |a: T| T::from_f64(a.to_f64().abs())),
                    _ => map(&input, |a: T| if a < zero { zero.sub(a) } else { a }),
                }
            }))
        }
        Unary::Sqrt | Unary::Exp | Unary::Log => {
            let wide = match dtype {
                DType::F32 => DType::F32,
                dtype if !dtype.is_float() && dtype.size() <= 2 => DType::F32,
                _ => DType::F64,
            };
            let input = input.cast(wide).to_standard();
            Ok(match (op, wide) {
                (Unary::Sqrt, DType::F32) => map(&input, f32::sqrt),
                (Unary::Sqrt, _) => map(&input, f64::sqrt),
                (Unary::Exp, DType::F32) => map(&input, f32::exp),
                (Unary::Exp, _) => map(&input, f64::exp),
                (_, DType::F32) => map(&input, f32::ln),
                _ => map(&input, f64::ln),
            })
        }
    }
}

fn map<T: Element, R: Element>(input: &Chunk, f: impl Fn(T) -> R) -> Chunk {
    let elements = input.slice::<T>().unwrap_or(&[]);
    let out = filled(
        elements.len(),
        #[inline(always)]
        |out| {
            for (out, element) in out.iter_mut().zip(elements) {
                out.write(f(*element));
            }
        },
    );
    Chunk::of_vec(input.shape().to_vec(), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_cannot_be_broadcast_are_refused() {
        let a = Chunk::of_vec(vec![2], vec![1.0, 2.0]);
        let b = Chunk::of_vec(vec![3], vec![1.0, 2.0, 3.0]);
        assert!(matches!(
            binary(Binary::Add, &a, &b, u64::MAX),
            Err(KernelError::Shapes { .. })
        ));
    }

    #[test]
    fn a_small_input_cannot_be_broadcast_beyond_the_limit() {
        let a = Chunk::of_vec(vec![1 << 12, 1], vec![1.0; 1 << 12]);
        let b = Chunk::of_vec(vec![1, 1 << 12], vec![1.0; 1 << 12]);
        assert!(matches!(
            binary(Binary::Add, &a, &b, 1 << 20),
            Err(KernelError::TooLarge { .. })
        ));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused_as_in_numpy() {
        let a = Chunk::of_vec(vec![1], vec![1_u8]);
        assert!(with_scalar(Binary::Add, &a, Scalar::Int(300), false, 100).is_err());
        assert!(with_scalar(Binary::Add, &a, Scalar::Int(-1), false, 100).is_err());
        let sum = with_scalar(Binary::Add, &a, Scalar::Float(0.5), false, 100).unwrap();
        assert_eq!(sum.slice::<f64>(), Some(&[1.5][..]));
    }
}
