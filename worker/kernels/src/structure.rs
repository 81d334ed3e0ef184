//! Kernels that move elements and change none.

use crate::memory::vector;
use crate::shape::{allowed, chosen};
use crate::{Chunk, DType, Element, KernelError, Range};

/// Axes in another order, all reversed if `axes` is empty. Shares the elements.
///
/// # Errors
/// [`KernelError::Parameter`] if `axes` does not name each axis once.
pub(crate) fn transpose(input: &Chunk, axes: &[usize]) -> Result<Chunk, KernelError> {
    let n = input.shape().len();
    let axes: Vec<usize> = if axes.is_empty() {
        (0..n).rev().collect()
    } else {
        axes.to_vec()
    };
    if axes.len() != n {
        let text = format!("{} axes are named of {n}", axes.len());
        return Err(KernelError::Parameter {
            kernel: "transpose",
            text,
        });
    }
    chosen("transpose", Some(&axes), n)?;
    let of = |values: &[usize]| axes.iter().map(|axis| values[*axis]).collect();
    Ok(input.reshaped(of(input.shape()), of(input.strides())))
}

/// A range of each axis, those not named whole. The elements are copied, so that the rest can be forgotten.
///
/// # Errors
/// [`KernelError::Parameter`] if a range leaves its axis or has step 0.
pub(crate) fn slice(input: &Chunk, ranges: &[Range]) -> Result<Chunk, KernelError> {
    let wrong = |text: String| KernelError::Parameter {
        kernel: "slice",
        text,
    };
    if ranges.len() > input.shape().len() {
        let (ranges, axes) = (ranges.len(), input.shape().len());
        return Err(wrong(format!("{ranges} ranges for {axes} axes")));
    }
    let (mut shape, mut strides) = (input.shape().to_vec(), input.strides().to_vec());
    let mut offset = 0;
    for (axis, range) in ranges.iter().enumerate() {
        let Range { start, stop, step } = *range;
        let length = shape[axis];
        if start > stop || stop > length || step == 0 {
            return Err(wrong(format!(
                "{start}..{stop} in steps of {step} of axis {axis} of length {length}"
            )));
        }
        offset += start * strides[axis];
        shape[axis] = (stop - start).div_ceil(step);
        strides[axis] *= step;
    }
    let dtype = input.dtype();
    if shape.contains(&0) {
        return Chunk::of_bytes(dtype, shape, strides, bytes::Bytes::new());
    }
    let data = input.data().slice(offset * dtype.size()..);
    let part = Chunk::of_bytes(dtype, shape, strides, data)?;
    Ok(part.to_standard())
}

/// Arrays one after the other along `axis`. Dtype by promotion.
///
/// # Errors
/// If there are none, they differ along another axis, or the result is too large.
pub(crate) fn concatenate(inputs: &[Chunk], axis: usize, limit: u64) -> Result<Chunk, KernelError> {
    let kernel = "concatenate";
    let Some(first) = inputs.first() else {
        return Err(KernelError::Inputs {
            kernel,
            expected: "1 or more",
            found: 0,
        });
    };
    chosen(kernel, Some(&[axis]), first.shape().len())?;
    let mut shape = first.shape().to_vec();
    shape[axis] = 0;
    let mut dtype = first.dtype();
    for input in inputs {
        let alike = input.shape().len() == shape.len()
            && (0..shape.len()).all(|at| at == axis || input.shape()[at] == shape[at]);
        if !alike {
            return Err(KernelError::Shapes {
                kernel,
                left: first.shape().to_vec(),
                right: input.shape().to_vec(),
            });
        }
        shape[axis] = shape[axis].saturating_add(input.shape()[axis]);
        dtype = dtype.promote(input.dtype());
    }
    let n = allowed(&shape, dtype, limit)?;
    let inputs: Vec<Chunk> = inputs
        .iter()
        .map(|input| input.cast(dtype).to_standard())
        .collect();
    Ok(with_dtype!(dtype, T => joined::<T>(&inputs, axis, shape, n)))
}

fn joined<T: Element>(inputs: &[Chunk], axis: usize, shape: Vec<usize>, n: usize) -> Chunk {
    debug_assert!(inputs.iter().all(|input| input.dtype() == DType::of::<T>()));
    let outer: usize = shape[..axis].iter().product();
    let parts: Vec<(&[T], usize)> = inputs
        .iter()
        .map(|input| {
            let run: usize = input.shape()[axis..].iter().product();
            (input.slice::<T>().unwrap_or(&[]), run)
        })
        .collect();
    let mut out = vector::<T>(n);
    for row in 0..outer {
        for (elements, run) in &parts {
            out.extend_from_slice(&elements[row * run..(row + 1) * run]);
        }
    }
    Chunk::of_vec(shape, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Chunk {
        Chunk::of_vec(vec![2, 3], vec![0_i32, 1, 2, 3, 4, 5])
    }

    #[test]
    fn ranges_outside_of_their_axis_are_refused() {
        for (start, stop, step) in [(0, 4, 1), (2, 1, 1), (0, 2, 0)] {
            let ranges = [
                Range {
                    start: 0,
                    stop: 2,
                    step: 1,
                },
                Range { start, stop, step },
            ];
            assert!(slice(&numbers(), &ranges).is_err(), "{start} {stop} {step}");
        }
        assert!(
            slice(
                &numbers(),
                &[Range {
                    start: 0,
                    stop: 1,
                    step: 1
                }; 3]
            )
            .is_err()
        );
    }

    #[test]
    fn a_transpose_names_each_axis_once() {
        assert!(transpose(&numbers(), &[0, 0]).is_err());
        assert!(transpose(&numbers(), &[0]).is_err());
        assert!(transpose(&numbers(), &[0, 2]).is_err());
        assert_eq!(transpose(&numbers(), &[]).unwrap().shape(), [3, 2]);
    }
}
