//! Values of the wire as arrays of kernels, and back.

use oxidask_protocol::{Payload, numpy::NumpyArray};
use oxidask_worker_kernels::{Chunk, DType};

/// The array in a payload, sharing its memory where that is one aligned frame.
///
/// # Errors
/// If it is no NumPy array, of a dtype that kernels do not take, or contradicts itself; in words.
pub(crate) fn of_payload(payload: &Payload) -> Result<Chunk, String> {
    let array = NumpyArray::of_payload(payload).map_err(|error| error.to_string())?;
    let dtype = DType::of_numpy(&array.dtype)
        .ok_or_else(|| format!("kernels do not take dtype {:?}", array.dtype))?;
    let lengths = array.shape.iter();
    let shape = lengths
        .map(|length| usize::try_from(*length).unwrap_or(usize::MAX))
        .collect();
    let mut strides = Vec::with_capacity(array.strides.len());
    for stride in array.strides {
        match usize::try_from(stride) {
            Ok(bytes) if bytes.is_multiple_of(dtype.size()) => strides.push(bytes / dtype.size()),
            _ => return Err(format!("kernels do not take a stride of {stride} bytes")),
        }
    }
    Chunk::of_bytes(dtype, shape, strides, array.data).map_err(|error| error.to_string())
}
