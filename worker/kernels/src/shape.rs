//! Shapes: sizes, strides, broadcasting.

use crate::{DType, KernelError};

/// Elements of a shape; `None` if they are more than can be addressed.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(1_usize, |n, length| n.checked_mul(*length))
        .filter(|n| *n <= isize::MAX as usize / 8)
}

/// Strides of C order. Unit: elements.
pub(crate) fn standard_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1_usize;
    for (at, length) in shape.iter().enumerate().rev() {
        strides[at] = stride;
        stride = stride.saturating_mul((*length).max(1));
    }
    strides
}

/// Elements of a result, if it is no larger than `limit` bytes.
///
/// # Errors
/// [`KernelError::TooLarge`].
pub(crate) fn allowed(shape: &[usize], dtype: DType, limit: u64) -> Result<usize, KernelError> {
    count(shape)
        .filter(|n| (*n as u64).saturating_mul(dtype.size() as u64) <= limit)
        .ok_or_else(|| KernelError::TooLarge {
            shape: shape.to_vec(),
            dtype,
            limit,
        })
}

/// The shape of an element-wise result, as NumPy broadcasts.
///
/// # Errors
/// [`KernelError::Shapes`].
pub(crate) fn broadcast(
    kernel: &'static str,
    left: &[usize],
    right: &[usize],
) -> Result<Vec<usize>, KernelError> {
    let axes = left.len().max(right.len());
    let mut shape = vec![0; axes];
    for back in 1..=axes {
        let of = |shape: &[usize]| shape.len().checked_sub(back).map_or(1, |at| shape[at]);
        shape[axes - back] = match (of(left), of(right)) {
            (a, b) if a == b => a,
            (1, b) => b,
            (a, 1) => a,
            _ => {
                return Err(KernelError::Shapes {
                    kernel,
                    left: left.to_vec(),
                    right: right.to_vec(),
                });
            }
        };
    }
    Ok(shape)
}

/// Which of `axes` axes are meant by `wanted`: each once, in range; all if none is named.
///
/// # Errors
/// [`KernelError::Parameter`].
pub(crate) fn chosen(
    kernel: &'static str,
    wanted: Option<&[usize]>,
    axes: usize,
) -> Result<Vec<bool>, KernelError> {
    let Some(wanted) = wanted else {
        return Ok(vec![true; axes]);
    };
    let mut chosen = vec![false; axes];
    for axis in wanted {
        match chosen.get_mut(*axis) {
            Some(chosen) if !*chosen => *chosen = true,
            Some(_) => {
                let text = format!("axis {axis} is named twice");
                return Err(KernelError::Parameter { kernel, text });
            }
            None => {
                let text = format!("axis {axis} of an array of {axes} axes");
                return Err(KernelError::Parameter { kernel, text });
            }
        }
    }
    Ok(chosen)
}
