//! One array, as tasks exchange it.

use std::borrow::Cow;

use bytes::Bytes;
use ndarray::{ArrayD, ArrayViewD, IxDyn, ShapeBuilder as _};

use crate::shape::{count, standard_strides};
use crate::{DType, Element, KernelError};

/// An array: dtype, shape and elements, shared when cloned.
///
/// Strides count elements and are never negative; 0 repeats elements. Every element of the shape lies within the
/// data, and the data are aligned for the dtype: both are checked when a chunk is made.
#[derive(Debug, Clone)]
pub struct Chunk {
    dtype: DType,
    shape: Vec<usize>,
    strides: Vec<usize>,
    data: Bytes,
}

impl Chunk {
    /// An array as NumPy describes it, sharing its memory where that is aligned.
    ///
    /// `dtype`: NumPy's short name, such as `<f8`. `strides`: in bytes.
    ///
    /// # Errors
    /// If kernels do not take the dtype or a stride, or elements would lie outside of the data; in words.
    pub fn of_numpy(
        dtype: &str,
        shape: &[u64],
        strides: &[u64],
        data: Bytes,
    ) -> Result<Self, String> {
        let known =
            DType::of_numpy(dtype).ok_or_else(|| format!("kernels do not take dtype {dtype:?}"))?;
        let lengths = shape.iter();
        let shape = lengths
            .map(|length| usize::try_from(*length).unwrap_or(usize::MAX))
            .collect();
        let elements = strides.iter().map(|stride| match usize::try_from(*stride) {
            Ok(bytes) if bytes.is_multiple_of(known.size()) => Ok(bytes / known.size()),
            _ => Err(format!("kernels do not take a stride of {stride} bytes")),
        });
        let strides = elements.collect::<Result<_, _>>()?;
        Self::of_bytes(known, shape, strides, data).map_err(|error| error.to_string())
    }

    /// An array out of bytes, such as NumPy's: shared where they are aligned, else copied.
    ///
    /// `strides`: in elements.
    ///
    /// # Errors
    /// [`KernelError::Layout`] if elements would lie outside of the data.
    pub fn of_bytes(
        dtype: DType,
        shape: Vec<usize>,
        strides: Vec<usize>,
        data: Bytes,
    ) -> Result<Self, KernelError> {
        let bad = |text| KernelError::Layout {
            shape: shape.clone(),
            dtype,
            text,
        };
        if strides.len() != shape.len() {
            return Err(bad("strides of another number of axes"));
        }
        if shape.len() > 32 {
            return Err(bad("more than 32 axes"));
        }
        count(&shape).ok_or_else(|| bad("more elements than can be addressed"))?;
        if !shape.contains(&0) {
            let mut last = 0_usize;
            for (length, stride) in shape.iter().zip(&strides) {
                last = (length - 1)
                    .checked_mul(*stride)
                    .and_then(|reach| last.checked_add(reach))
                    .ok_or_else(|| bad("strides that reach too far"))?;
            }
            let end = last
                .checked_add(1)
                .and_then(|n| n.checked_mul(dtype.size()));
            if end.is_none_or(|end| end > data.len()) {
                return Err(bad("fewer bytes than elements"));
            }
        }
        let data = if (data.as_ptr() as usize).is_multiple_of(dtype.size()) {
            data
        } else {
            aligned(&data)
        };
        Ok(Self {
            dtype,
            shape,
            strides,
            data,
        })
    }

    /// An array of elements in C order. `elements` must be as many as the shape has.
    pub(crate) fn of_vec<T: Element>(shape: Vec<usize>, elements: Vec<T>) -> Self {
        debug_assert_eq!(count(&shape), Some(elements.len()));
        Self {
            dtype: T::DTYPE,
            strides: standard_strides(&shape),
            shape,
            data: Bytes::from_owner(Owner(elements)),
        }
    }

    /// An array of ndarray's, copied only if it is not in C order.
    pub fn of_array<T: Element>(array: ArrayD<T>) -> Self {
        let shape = array.shape().to_vec();
        let (elements, offset) = if array.is_standard_layout() {
            array.into_raw_vec_and_offset()
        } else {
            (array.iter().copied().collect(), Some(0))
        };
        let length = count(&shape).unwrap_or(0);
        match offset {
            Some(0) | None if elements.len() == length => Self::of_vec(shape, elements),
            offset => {
                let start = offset.unwrap_or(0);
                Self::of_vec(shape, elements[start..start + length].to_vec())
            }
        }
    }

    /// Its dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distance of neighbours along each axis. Unit: elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        count(&self.shape).unwrap_or(0)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that the elements lie in.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Whether elements lie in C order without gaps, and nothing else does.
    pub fn is_standard(&self) -> bool {
        self.data.len() == self.len() * self.dtype.size()
            && (self.is_empty()
                || self
                    .shape
                    .iter()
                    .zip(&self.strides)
                    .zip(standard_strides(&self.shape))
                    .all(|((length, stride), standard)| *length == 1 || *stride == standard))
    }

    /// The elements in C order without gaps: themselves if they lie so.
    pub fn to_standard(&self) -> Self {
        if self.is_standard() {
            return self.clone();
        }
        with_dtype!(self.dtype, T => {
            let view = self.view_unchecked::<T>();
            let mut elements = crate::memory::vector::<T>(self.len());
            for row in view.rows() {
                match row.as_slice() {
                    Some(row) => elements.extend_from_slice(row),
                    None => elements.extend(row.iter().copied()),
                }
            }
            Self::of_vec(self.shape.clone(), elements)
        })
    }

    /// The same elements with other shape and strides, which must stay within.
    pub(crate) fn reshaped(&self, shape: Vec<usize>, strides: Vec<usize>) -> Self {
        Self {
            dtype: self.dtype,
            shape,
            strides,
            data: self.data.clone(),
        }
    }

    /// The elements as ndarray sees them. `T` must be the type of the dtype.
    pub(crate) fn view_unchecked<T: Element>(&self) -> ArrayViewD<'_, T> {
        assert_eq!(T::DTYPE, self.dtype, "a view has the dtype of its chunk");
        let shape = IxDyn(&self.shape).strides(IxDyn(&self.strides));
        if self.is_empty() {
            // No element lies anywhere, so neither pointer nor strides matter.
            // SAFETY: nothing is read through a view without elements.
            return unsafe {
                ArrayViewD::from_shape_ptr(
                    IxDyn(&self.shape),
                    std::ptr::NonNull::<T>::dangling().as_ptr(),
                )
            };
        }
        // SAFETY: every element lies within `data`, which lives as long as the view, is aligned and, as any bytes,
        // holds values of the type. Strides are not negative.
        unsafe { ArrayViewD::from_shape_ptr(shape, self.data.as_ptr().cast::<T>()) }
    }

    /// The elements as ndarray sees them; `None` if they are of another type.
    pub fn view<T: Element>(&self) -> Option<ArrayViewD<'_, T>> {
        (T::DTYPE == self.dtype).then(|| self.view_unchecked())
    }

    /// The elements in a row, if they lie in C order. `T` must be the type of the dtype.
    pub(crate) fn slice<T: Element>(&self) -> Option<&[T]> {
        assert_eq!(T::DTYPE, self.dtype, "a slice has the dtype of its chunk");
        if self.is_empty() {
            return Some(&[]);
        }
        if !self.is_standard() {
            return None;
        }
        // SAFETY: the chunk is in C order without gaps and aligned, and any bytes are a value of the type.
        Some(unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast::<T>(), self.len()) })
    }

    /// The elements as another type.
    pub(crate) fn cast(&self, dtype: DType) -> Cow<'_, Self> {
        if dtype == self.dtype {
            return Cow::Borrowed(self);
        }
        let from = self.to_standard();
        Cow::Owned(with_dtype!(self.dtype, T => with_dtype!(dtype, U => {
            let elements = from.slice::<T>().unwrap_or(&[]);
            let out = crate::memory::filled::<U>(elements.len(), #[inline(always)] |out| {
                for (out, element) in out.iter_mut().zip(elements) {
                    out.write(element.cast::<U>());
                }
            });
            Self::of_vec(self.shape.clone(), out)
        })))
    }
}

/// A copy of bytes at an address that suits every element.
fn aligned(data: &Bytes) -> Bytes {
    let mut words = crate::memory::vector::<u64>(data.len().div_ceil(8));
    let mut rest = data.chunks_exact(8);
    words.extend(rest.by_ref().map(|word| {
        u64::from_ne_bytes([
            word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
        ])
    }));
    if !rest.remainder().is_empty() {
        let mut last = [0; 8];
        last[..rest.remainder().len()].copy_from_slice(rest.remainder());
        words.push(u64::from_ne_bytes(last));
    }
    Bytes::from_owner(Owner(words)).slice(..data.len())
}

/// Elements that are shared as bytes.
struct Owner<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: elements are plain numbers without padding, so all their bytes are initialised.
        unsafe {
            std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), size_of_val(self.0.as_slice()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_fewer_than_elements_are_refused() {
        let bytes = Bytes::from(vec![0; 15]);
        assert!(Chunk::of_bytes(DType::F64, vec![2], vec![1], bytes.clone()).is_err());
        assert!(
            Chunk::of_bytes(
                DType::F64,
                vec![1 << 40, 1 << 40],
                vec![0, 0],
                bytes.clone()
            )
            .is_err()
        );
        assert!(Chunk::of_bytes(DType::U8, vec![15], vec![1], bytes.clone()).is_ok());
        assert!(Chunk::of_bytes(DType::U8, vec![2], vec![usize::MAX], bytes).is_err());
    }

    #[test]
    fn bytes_at_an_odd_address_are_read_all_the_same() {
        let mut bytes = vec![7; 33];
        bytes[1..9].copy_from_slice(&1.5_f64.to_le_bytes());
        let odd = Bytes::from(bytes).slice(1..33);
        let chunk = Chunk::of_bytes(DType::F64, vec![4], vec![1], odd).unwrap();
        assert_eq!(chunk.view::<f64>().unwrap()[[0]], 1.5);
    }

    #[test]
    fn repeated_and_transposed_elements_come_out_in_c_order() {
        let chunk = Chunk::of_vec(vec![2, 2], vec![1_i32, 2, 3, 4]);
        let transposed = chunk.reshaped(vec![2, 2], vec![1, 2]);
        assert_eq!(
            transposed.to_standard().slice::<i32>(),
            Some(&[1, 3, 2, 4][..])
        );
        let repeated = chunk.reshaped(vec![3], vec![0]);
        assert_eq!(repeated.to_standard().slice::<i32>(), Some(&[1, 1, 1][..]));
    }
}
