//! Values of the wire as arrays of kernels, and back.

use oxidask_protocol::{Payload, numpy::NumpyArray};
use oxidask_worker_kernels::Chunk;

/// The array in a payload, sharing its memory where that is one aligned frame.
///
/// # Errors
/// If it is no NumPy array, of a dtype that kernels do not take, or contradicts itself; in words.
pub(crate) fn of_payload(payload: &Payload) -> Result<Chunk, String> {
    let array = NumpyArray::of_payload(payload).map_err(|error| error.to_string())?;
    Chunk::of_numpy(&array.dtype, &array.shape, &array.strides, array.data)
}
