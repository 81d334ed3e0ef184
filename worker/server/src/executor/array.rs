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

/// A payload that NumPy reads, and the bytes of its elements. Arrays without gaps share their memory.
pub(crate) fn to_payload(chunk: &Chunk) -> (Payload, u64) {
    let size = chunk.dtype().size();
    let nbytes = chunk.len() * size;
    let chunk = if is_dense(chunk) {
        chunk.clone()
    } else {
        chunk.to_standard()
    };
    let array = NumpyArray {
        dtype: chunk.dtype().numpy().to_owned(),
        shape: chunk.shape().iter().map(|length| *length as u64).collect(),
        strides: chunk
            .strides()
            .iter()
            .map(|stride| (stride * size) as u64)
            .collect(),
        data: chunk.data().clone(),
    };
    (array.to_payload(), nbytes as u64)
}

/// Whether the memory holds the elements and nothing else, in any order of axes.
fn is_dense(chunk: &Chunk) -> bool {
    if chunk.data().len() != chunk.len() * chunk.dtype().size() || chunk.is_empty() {
        return false;
    }
    let axes = chunk.strides().iter().zip(chunk.shape());
    let mut axes: Vec<_> = axes.filter(|(_, length)| **length != 1).collect();
    axes.sort_unstable();
    let mut next = 1;
    axes.into_iter().all(|(stride, length)| {
        let fits = *stride == next;
        next *= length;
        fits
    })
}

#[cfg(test)]
mod tests {
    use oxidask_worker_kernels::{Kernel, Scalar};

    use oxidask_worker_kernels::DType;

    use super::*;

    fn full(shape: Vec<usize>) -> Chunk {
        let kernel = Kernel::Full {
            shape,
            dtype: DType::F64,
            value: Scalar::Float(2.5),
        };
        kernel.run(&[], 1 << 20).unwrap()
    }

    #[test]
    fn arrays_come_back_out_of_their_payload() {
        for shape in [vec![], vec![3], vec![2, 3], vec![0, 4]] {
            let chunk = full(shape.clone());
            let (payload, nbytes) = to_payload(&chunk);
            assert_eq!(nbytes as usize, chunk.len() * 8);
            let back = of_payload(&payload).unwrap();
            assert_eq!((back.shape(), back.data()), (&shape[..], chunk.data()));
        }
    }

    #[test]
    fn a_transposed_array_keeps_its_memory() {
        let transpose = Kernel::Transpose(vec![]);
        let chunk = transpose.run(&[full(vec![2, 3])], 100).unwrap();
        let (payload, _) = to_payload(&chunk);
        let back = of_payload(&payload).unwrap();
        assert_eq!(back.strides(), [1, 3]);
        assert_eq!(back.data().as_ptr(), chunk.data().as_ptr());
    }
}
