//! Why a kernel did not run.

use crate::DType;

/// Why a kernel did not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The bytes name no kernel of ours, or parameters of the wrong type.
    #[error("no kernel of this worker: {0}")]
    Unknown(String),
    /// Another number of inputs than the kernel takes.
    #[error("{kernel} takes {expected}, not {found} inputs")]
    Inputs {
        /// The kernel.
        kernel: &'static str,
        /// How many it takes, in words.
        expected: &'static str,
        /// How many there are.
        found: usize,
    },
    /// Shapes that do not go together.
    #[error("{kernel}: shapes {left:?} and {right:?} do not go together")]
    Shapes {
        /// The kernel.
        kernel: &'static str,
        /// Shape of the first input.
        left: Vec<usize>,
        /// Shape of the other.
        right: Vec<usize>,
    },
    /// A kernel that is not defined for a dtype.
    #[error("{kernel} is not defined for dtype {dtype}")]
    DType {
        /// The kernel.
        kernel: &'static str,
        /// The dtype.
        dtype: DType,
    },
    /// A parameter out of its range.
    #[error("{kernel}: {text}")]
    Parameter {
        /// The kernel.
        kernel: &'static str,
        /// What is wrong.
        text: String,
    },
    /// A reduction without an identity over no elements.
    #[error("{0} of no elements")]
    Empty(&'static str),
    /// The result would be larger than this worker allows.
    #[error(
        "result of {shape:?} {dtype} is larger than the {limit} bytes that this worker allows for one"
    )]
    TooLarge {
        /// Shape of the result.
        shape: Vec<usize>,
        /// Its dtype.
        dtype: DType,
        /// Unit: bytes.
        limit: u64,
    },
    /// Bytes that are no array of that shape and dtype.
    #[error("no array of {shape:?} {dtype}: {text}")]
    Layout {
        /// Shape as declared.
        shape: Vec<usize>,
        /// Dtype as declared.
        dtype: DType,
        /// What contradicts it.
        text: &'static str,
    },
}
