//! The kernels of native tasks: arrays in, one array out, on one thread and without an interpreter.
//!
//! [`Kernel`] names a kernel with its parameters, as it travels in msgpack; [`Kernel::run`] runs it on [`Chunk`]s.
//! Results follow NumPy's rules (broadcasting, promotion of dtypes, wrapping integers), which golden files recorded
//! from NumPy hold it to (`tests/golden.rs`). Every kernel checks shapes, dtypes and the size of its result before it
//! allocates: parameters come from a client.

#[macro_use]
mod dtype;
mod chunk;
mod elementwise;
mod error;
mod kernel;
mod matmul;
mod memory;
mod pi;
mod random;
mod reduce;
mod shape;
mod simd;
mod structure;

pub use chunk::Chunk;
pub use dtype::{DType, Element, Scalar, Truth};
pub use elementwise::{Binary, Unary};
pub use error::KernelError;
pub use kernel::{Kernel, Range};
pub use random::Philox;
pub use reduce::Reduction;
