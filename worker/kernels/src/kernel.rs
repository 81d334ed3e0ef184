//! What kernels there are, with their parameters, and running one.

use serde::{Deserialize, Serialize};

use crate::reduce::{combine, finish_mean, finish_var, merge_moments, moments, reduce};
use crate::shape::allowed;
use crate::structure::{concatenate, slice, transpose};
use crate::{Binary, Chunk, DType, KernelError, Reduction, Scalar, Unary};
use crate::{elementwise, matmul, pi, random};

/// A kernel and its parameters.
///
/// In msgpack: a text for those without parameters, else a map of one pair from the name to the parameters by name,
/// such as `{"uniform": {"seed": 1, "chunk": 0, "shape": [2, 3], "dtype": "f64", "low": 0.0, "high": 1.0}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kernel {
    /// No input. All elements the same.
    Full {
        /// Shape of the result.
        shape: Vec<usize>,
        /// Dtype of the result.
        dtype: DType,
        /// The element.
        value: Scalar,
    },
    /// No input. Uniform in [low, high), `F32` or `F64`.
    ///
    /// Equals `Generator(Philox(key=[seed, chunk])).random(shape, dtype) * (high - low) + low` of NumPy, so it
    /// depends on seed and chunk alone.
    Uniform {
        /// Which experiment.
        seed: u64,
        /// Which chunk of it.
        chunk: u64,
        /// Shape of the result.
        shape: Vec<usize>,
        /// Dtype of the result.
        dtype: DType,
        /// Smallest element.
        low: f64,
        /// What elements are below.
        high: f64,
    },
    /// No input. Normal with this mean and deviation, `F32` or `F64` (by Box and Muller, so other numbers than NumPy's).
    Normal {
        /// Which experiment.
        seed: u64,
        /// Which chunk of it.
        chunk: u64,
        /// Shape of the result.
        shape: Vec<usize>,
        /// Dtype of the result.
        dtype: DType,
        /// Mean.
        mean: f64,
        /// Standard deviation.
        deviation: f64,
    },
    /// No input. Whole numbers in [low, high) of an integer dtype, each as likely as any other up to 2^-64 · (high - low).
    Integers {
        /// Which experiment.
        seed: u64,
        /// Which chunk of it.
        chunk: u64,
        /// Shape of the result.
        shape: Vec<usize>,
        /// Dtype of the result.
        dtype: DType,
        /// Smallest element.
        low: i64,
        /// What elements are below.
        high: i64,
    },
    /// One input. Same shape.
    Unary(Unary),
    /// Two inputs, broadcast. Dtype by NumPy's promotion; comparisons give `Bool`, divisions floats.
    Binary(Binary),
    /// One input and a number, which takes the input's dtype if it fits, as in NumPy 2.
    WithScalar {
        /// What is done.
        op: Binary,
        /// The number.
        scalar: Scalar,
        /// The number stands on the left.
        #[serde(default)]
        reversed: bool,
    },
    /// One input, same shape, another dtype. Floats are cut off and saturate in integers.
    Cast(DType),
    /// One input. Axes in this order, reversed if empty.
    Transpose(Vec<usize>),
    /// One input. A range of each axis; axes not named stay whole.
    Slice(Vec<Range>),
    /// One or more inputs, equal but along the axis.
    Concatenate(usize),
    /// 2 n inputs a₁, b₁, a₂, b₂ …: Σ aᵢ · bᵢ, of shapes (m, k) and (k, n). Dtype by promotion; integers wrap.
    Matmul,
    /// One input. Over these axes, all if nil; kept with length 1 if `keep`.
    Reduce {
        /// What is done.
        op: Reduction,
        /// Axes, or all.
        #[serde(default)]
        axes: Option<Vec<usize>>,
        /// Axes are kept with length 1.
        #[serde(default)]
        keep: bool,
    },
    /// One or more inputs of one shape and dtype, element by element: the inner nodes of a tree of reductions.
    Combine(Reduction),
    /// One input. Count, mean and sum of squared deviations over the axes, (3, …) of `F64`: leaves of a tree for var.
    Moments {
        /// Axes, or all.
        #[serde(default)]
        axes: Option<Vec<usize>>,
        /// Axes are kept with length 1.
        #[serde(default)]
        keep: bool,
    },
    /// One or more results of `Moments` of one shape: the same for all their elements together.
    MergeMoments,
    /// One result of `Moments` or `MergeMoments`: the mean.
    Mean,
    /// One result of `Moments` or `MergeMoments`: the variance.
    Var {
        /// Subtracted from the count, as in NumPy.
        #[serde(default)]
        ddof: u32,
    },
    /// No input. How many of `samples` points of the unit square lie within the quarter circle, `I64` of shape ().
    ///
    /// Point i is number i of SplitMix64 started at the first number of Philox for [seed, chunk].
    Pi {
        /// Which experiment.
        seed: u64,
        /// Which part of it.
        chunk: u64,
        /// Points.
        samples: u64,
    },
}

/// `start..stop` in steps, all within the axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first.
    pub start: usize,
    /// Where it ends.
    pub stop: usize,
    /// Every how many.
    pub step: usize,
}

impl Kernel {
    /// Reads kernel and parameters.
    ///
    /// # Errors
    /// [`KernelError::Unknown`] with what was found instead.
    pub fn of_msgpack(bytes: &[u8]) -> Result<Self, KernelError> {
        rmp_serde::from_slice(bytes).map_err(|error| KernelError::Unknown(error.to_string()))
    }

    /// Kernel and parameters in msgpack.
    pub fn to_msgpack(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("numbers, texts and lists can be written")
    }

    /// Runs the kernel on the calling thread.
    ///
    /// `limit`: largest result. Unit: bytes.
    ///
    /// # Errors
    /// If inputs or parameters do not suit the kernel, or the result would be too large.
    pub fn run(&self, inputs: &[Chunk], limit: u64) -> Result<Chunk, KernelError> {
        match self {
            Self::Full {
                shape,
                dtype,
                value,
            } => {
                none("full", inputs)?;
                let n = allowed(shape, *dtype, limit)?;
                Ok(with_dtype!(*dtype, T => {
                    let value = <T as crate::Element>::from_scalar(*value);
                    let filled = crate::memory::filled::<T>(n, #[inline(always)] |out| {
                        for out in out {
                            out.write(value);
                        }
                    });
                    Chunk::of_vec(shape.clone(), filled)
                }))
            }
            Self::Uniform {
                seed,
                chunk,
                shape,
                dtype,
                low,
                high,
            } => {
                none("uniform", inputs)?;
                let n = allowed(shape, *dtype, limit)?;
                random::uniform([*seed, *chunk], shape, n, *dtype, *low, *high)
            }
            Self::Normal {
                seed,
                chunk,
                shape,
                dtype,
                mean,
                deviation,
            } => {
                none("normal", inputs)?;
                let n = allowed(shape, *dtype, limit)?;
                random::normal([*seed, *chunk], shape, n, *dtype, *mean, *deviation)
            }
            Self::Integers {
                seed,
                chunk,
                shape,
                dtype,
                low,
                high,
            } => {
                none("integers", inputs)?;
                let n = allowed(shape, *dtype, limit)?;
                random::integers([*seed, *chunk], shape, n, *dtype, *low, *high)
            }
            Self::Unary(op) => elementwise::unary(*op, one("unary", inputs)?),
            Self::Binary(op) => match inputs {
                [left, right] => elementwise::binary(*op, left, right, limit),
                _ => Err(wrong("binary", "2", inputs)),
            },
            Self::WithScalar {
                op,
                scalar,
                reversed,
            } => {
                let input = one("with-scalar", inputs)?;
                elementwise::with_scalar(*op, input, *scalar, *reversed, limit)
            }
            Self::Cast(dtype) => {
                let input = one("cast", inputs)?;
                allowed(input.shape(), *dtype, limit)?;
                Ok(input.cast(*dtype).into_owned())
            }
            Self::Transpose(axes) => transpose(one("transpose", inputs)?, axes),
            Self::Slice(ranges) => slice(one("slice", inputs)?, ranges),
            Self::Concatenate(axis) => concatenate(inputs, *axis, limit),
            Self::Matmul => matmul::matmul(inputs, limit),
            Self::Reduce { op, axes, keep } => {
                reduce(*op, one(op.name(), inputs)?, axes.as_deref(), *keep)
            }
            Self::Combine(op) => combine(*op, inputs),
            Self::Moments { axes, keep } => {
                moments(one("moments", inputs)?, axes.as_deref(), *keep, limit)
            }
            Self::MergeMoments => merge_moments(inputs),
            Self::Mean => finish_mean(one("mean", inputs)?),
            Self::Var { ddof } => finish_var(one("var", inputs)?, *ddof),
            Self::Pi {
                seed,
                chunk,
                samples,
            } => {
                none("pi", inputs)?;
                let hits = pi::hits([*seed, *chunk], *samples);
                Ok(Chunk::of_vec(Vec::new(), vec![hits as i64]))
            }
        }
    }
}

fn wrong(kernel: &'static str, expected: &'static str, inputs: &[Chunk]) -> KernelError {
    KernelError::Inputs {
        kernel,
        expected,
        found: inputs.len(),
    }
}

fn none(kernel: &'static str, inputs: &[Chunk]) -> Result<(), KernelError> {
    if inputs.is_empty() {
        Ok(())
    } else {
        Err(wrong(kernel, "no", inputs))
    }
}

fn one<'a>(kernel: &'static str, inputs: &'a [Chunk]) -> Result<&'a Chunk, KernelError> {
    match inputs {
        [input] => Ok(input),
        _ => Err(wrong(kernel, "1", inputs)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_come_back_out_of_msgpack() {
        let kernels = [
            Kernel::Matmul,
            Kernel::Transpose(vec![1, 0]),
            Kernel::Combine(Reduction::Sum),
            Kernel::WithScalar {
                op: Binary::Add,
                scalar: Scalar::Int(1),
                reversed: false,
            },
            Kernel::Reduce {
                op: Reduction::Max,
                axes: None,
                keep: true,
            },
        ];
        for kernel in kernels {
            assert_eq!(Kernel::of_msgpack(&kernel.to_msgpack()), Ok(kernel));
        }
    }

    #[test]
    fn other_bytes_name_what_is_wrong() {
        let error = Kernel::of_msgpack(b"\xa3foo").unwrap_err();
        assert!(error.to_string().contains("foo"), "{error}");
        assert!(Kernel::of_msgpack(b"").is_err());
    }

    #[test]
    fn results_beyond_the_limit_are_refused_before_they_are_allocated() {
        let huge = Kernel::Full {
            shape: vec![1 << 31, 1 << 31],
            dtype: DType::F64,
            value: Scalar::Int(0),
        };
        assert!(matches!(
            huge.run(&[], 1 << 30),
            Err(KernelError::TooLarge { .. })
        ));
    }
}
