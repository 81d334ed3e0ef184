//! Products of matrices.

use crate::memory::vector;
use crate::shape::allowed;
use crate::{Chunk, DType, Element, KernelError};

/// Columns of the left matrix taken at once.
const DEPTH: usize = 128;
/// Columns of the right matrix taken at once: DEPTH × COLUMNS wide integers are 256 kB, which suits an L2 cache.
const COLUMNS: usize = 256;

/// Σ aᵢ · bᵢ of 2 n inputs a₁, b₁, a₂, b₂ …, each (m, k) and (k, n) with one m and n.
///
/// Result (m, n), dtype by promotion of all. Floats through `gemm`, in its order of summation; integers wrap, as
/// NumPy's do, and bools are "any of all".
///
/// # Errors
/// If the number of inputs is odd or 0, shapes do not go together, or the result is too large.
pub(crate) fn matmul(inputs: &[Chunk], limit: u64) -> Result<Chunk, KernelError> {
    if inputs.is_empty() || !inputs.len().is_multiple_of(2) {
        return Err(KernelError::Inputs {
            kernel: "matmul",
            expected: "2, 4, 6 …",
            found: inputs.len(),
        });
    }
    let mut shape = None;
    let mut dtype = inputs[0].dtype();
    for pair in inputs.chunks_exact(2) {
        let (left, right) = (pair[0].shape(), pair[1].shape());
        let fits = match (left, right) {
            ([m, k], [l, n]) if k == l => *shape.get_or_insert((*m, *n)) == (*m, *n),
            _ => false,
        };
        if !fits {
            return Err(KernelError::Shapes {
                kernel: "matmul",
                left: left.to_vec(),
                right: right.to_vec(),
            });
        }
        dtype = dtype.promote(pair[0].dtype()).promote(pair[1].dtype());
    }
    let (m, n) = shape.unwrap_or_default();
    let count = allowed(&[m, n], dtype, limit)?;
    let inputs: Vec<_> = inputs.iter().map(|input| input.cast(dtype)).collect();
    let pairs = inputs.chunks_exact(2);
    Ok(match dtype {
        DType::F32 => {
            let mut out = zeros::<f32>(count);
            pairs.for_each(|pair| float(&pair[0], &pair[1], &mut out, n));
            Chunk::of_vec(vec![m, n], out)
        }
        DType::F64 => {
            let mut out = zeros::<f64>(count);
            pairs.for_each(|pair| float(&pair[0], &pair[1], &mut out, n));
            Chunk::of_vec(vec![m, n], out)
        }
        dtype => with_dtype!(dtype, T => {
            let mut out = zeros::<T>(count);
            pairs.for_each(|pair| whole::<T>(&pair[0].to_standard(), &pair[1].to_standard(), &mut out, n));
            Chunk::of_vec(vec![m, n], out)
        }),
    })
}

fn zeros<T: Element>(n: usize) -> Vec<T> {
    let mut out = vector(n);
    out.resize(n, T::default());
    out
}

/// Adds a · b to `out`, whose rows are `n` wide.
fn float<T: Element + From<u8>>(a: &Chunk, b: &Chunk, out: &mut [T], n: usize) {
    let (m, k) = (a.shape()[0], a.shape()[1]);
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let strides = |chunk: &Chunk| (chunk.strides()[0] as isize, chunk.strides()[1] as isize);
    let ((a_rows, a_columns), (b_rows, b_columns)) = (strides(a), strides(b));
    let one = T::from(1);
    // SAFETY: chunks hold all elements of their shape at their strides and are aligned; `out` is m · n elements in
    // C order that nothing else refers to.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.data().as_ptr().cast::<T>(),
            a_columns,
            a_rows,
            b.data().as_ptr().cast::<T>(),
            b_columns,
            b_rows,
            one,
            one,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Adds a · b to `out`, both in C order, in blocks that fit into the caches.
fn whole<T: Element>(a: &Chunk, b: &Chunk, out: &mut [T], n: usize) {
    let (m, depth) = (a.shape()[0], a.shape()[1]);
    let (a, b) = (a.slice::<T>().unwrap_or(&[]), b.slice::<T>().unwrap_or(&[]));
    crate::simd::vectorised(
        #[inline(always)]
        || {
            for k0 in (0..depth).step_by(DEPTH) {
                let k1 = (k0 + DEPTH).min(depth);
                for j0 in (0..n).step_by(COLUMNS) {
                    let j1 = (j0 + COLUMNS).min(n);
                    let (a, b) = (
                        Panel {
                            elements: a,
                            width: depth,
                            from: k0,
                        },
                        &b[k0 * n + j0..],
                    );
                    let mut i = 0;
                    while i + 4 <= m {
                        let rows = [
                            a.row(i, k1),
                            a.row(i + 1, k1),
                            a.row(i + 2, k1),
                            a.row(i + 3, k1),
                        ];
                        four_rows(rows, b, n, &mut out[i * n..(i + 4) * n], j0..j1);
                        i += 4;
                    }
                    for i in i..m {
                        one_row(a.row(i, k1), b, n, &mut out[i * n + j0..i * n + j1]);
                    }
                }
            }
        },
    );
}

/// Columns of the left matrix from one on.
#[derive(Clone, Copy)]
struct Panel<'a, T> {
    elements: &'a [T],
    width: usize,
    from: usize,
}

impl<'a, T> Panel<'a, T> {
    #[inline(always)]
    fn row(self, i: usize, to: usize) -> &'a [T] {
        &self.elements[i * self.width + self.from..i * self.width + to]
    }
}

/// Adds to four rows of the result what four rows of `a` make of the rows of `b`, four of these at a time: each
/// element of `b` that is read is used four times, and the result is read and written a quarter as often.
#[inline(always)]
fn four_rows<T: Element>(
    a: [&[T]; 4],
    b: &[T],
    n: usize,
    out: &mut [T],
    columns: std::ops::Range<usize>,
) {
    let width = columns.len();
    let (out0, rest) = out.split_at_mut(n);
    let (out1, rest) = rest.split_at_mut(n);
    let (out2, out3) = rest.split_at_mut(n);
    // Cut to one length, which lets the compiler drop the checks inside the loops and use vectors.
    let at = columns.start;
    let (out0, out1) = (&mut out0[at..][..width], &mut out1[at..][..width]);
    let (out2, out3) = (&mut out2[at..][..width], &mut out3[at..][..width]);
    let depth = a[0].len();
    let a = a.map(|row| &row[..depth]);
    let line = |k: usize| &b[k * n..][..width];
    let mut k = 0;
    while k + 4 <= depth {
        let (b0, b1, b2, b3) = (line(k), line(k + 1), line(k + 2), line(k + 3));
        let at = |row: usize| [a[row][k], a[row][k + 1], a[row][k + 2], a[row][k + 3]];
        let (r0, r1, r2, r3) = (at(0), at(1), at(2), at(3));
        for j in 0..width {
            let b = [b0[j], b1[j], b2[j], b3[j]];
            let dot = |r: [T; 4]| {
                let low = r[0].mul(b[0]).add(r[1].mul(b[1]));
                low.add(r[2].mul(b[2])).add(r[3].mul(b[3]))
            };
            out0[j] = out0[j].add(dot(r0));
            out1[j] = out1[j].add(dot(r1));
            out2[j] = out2[j].add(dot(r2));
            out3[j] = out3[j].add(dot(r3));
        }
        k += 4;
    }
    while k < depth {
        let b = line(k);
        for j in 0..width {
            out0[j] = out0[j].add(a[0][k].mul(b[j]));
            out1[j] = out1[j].add(a[1][k].mul(b[j]));
            out2[j] = out2[j].add(a[2][k].mul(b[j]));
            out3[j] = out3[j].add(a[3][k].mul(b[j]));
        }
        k += 1;
    }
}

/// Adds to a row of the result what a row of `a` makes of the rows of `b`.
#[inline(always)]
fn one_row<T: Element>(a: &[T], b: &[T], n: usize, out: &mut [T]) {
    for (k, a) in a.iter().enumerate() {
        let b = &b[k * n..k * n + out.len()];
        for (out, b) in out.iter_mut().zip(b) {
            *out = out.add(a.mul(*b));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_lengths_must_agree() {
        let a = Chunk::of_vec(vec![2, 3], vec![1.0; 6]);
        assert!(matches!(
            matmul(&[a.clone(), a.clone()], u64::MAX),
            Err(KernelError::Shapes { .. })
        ));
        assert!(matches!(
            matmul(&[a], u64::MAX),
            Err(KernelError::Inputs { .. })
        ));
    }

    #[test]
    fn products_of_no_elements_are_zero() {
        let a = Chunk::of_vec(vec![2, 0], Vec::<f64>::new());
        let b = Chunk::of_vec(vec![0, 2], Vec::<f64>::new());
        let product = matmul(&[a, b], u64::MAX).unwrap();
        assert_eq!(product.slice::<f64>(), Some(&[0.0; 4][..]));
    }
}
