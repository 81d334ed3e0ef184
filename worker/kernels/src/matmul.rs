//! Products of matrices.

use std::borrow::Cow;

use crate::memory::vector;
use crate::shape::allowed;
use crate::{Chunk, DType, Element, KernelError, Truth};

/// Columns of the left matrix taken at once: a panel of the right matrix, this deep and two vectors of 64 bytes wide,
/// is 32 kB and stays in an L1 cache.
const DEPTH: usize = 256;

/// Rows of the result that are summed in registers at once. With two vectors of columns each these are eight sums, as
/// many as hide how long a product takes; twice as many were slower with AVX-512, since compilers then keep some in
/// memory.
const ROWS: usize = 4;

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
        // Elements of two vectors of 64 bytes.
        DType::I64 => whole::<i64, 16>(pairs, m, n, count),
        DType::U64 => whole::<u64, 16>(pairs, m, n, count),
        DType::I32 => whole::<i32, 32>(pairs, m, n, count),
        DType::U32 => whole::<u32, 32>(pairs, m, n, count),
        DType::I16 => whole::<i16, 64>(pairs, m, n, count),
        DType::U16 => whole::<u16, 64>(pairs, m, n, count),
        DType::I8 => whole::<i8, 128>(pairs, m, n, count),
        DType::U8 => whole::<u8, 128>(pairs, m, n, count),
        DType::Bool => whole::<Truth, 128>(pairs, m, n, count),
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

/// Σ a · b of integers or bools.
fn whole<T: Element, const COLUMNS: usize>(
    pairs: std::slice::ChunksExact<'_, Cow<'_, Chunk>>,
    m: usize,
    n: usize,
    count: usize,
) -> Chunk {
    let mut out = zeros::<T>(count);
    for pair in pairs {
        let (a, b) = (pair[0].to_standard(), pair[1].to_standard());
        let depth = a.shape()[1];
        if count == 0 || depth == 0 {
            continue;
        }
        let (a, b) = (a.slice::<T>().unwrap_or(&[]), b.slice::<T>().unwrap_or(&[]));
        crate::simd::vectorised(
            #[inline(always)]
            || panels::<T, COLUMNS>(a, b, &mut out, depth, n),
        );
    }
    Chunk::of_vec(vec![m, n], out)
}

/// Adds a · b to `out`, all in C order: panel by panel of `b`, each copied to where its rows stand side by side, and
/// filled up with zeros at the right edge.
#[inline(always)]
fn panels<T: Element, const COLUMNS: usize>(
    a: &[T],
    b: &[T],
    out: &mut [T],
    depth: usize,
    n: usize,
) {
    let mut panel = vec![[T::default(); COLUMNS]; DEPTH.min(depth)];
    for k0 in (0..depth).step_by(DEPTH) {
        let k1 = (k0 + DEPTH).min(depth);
        for j0 in (0..n).step_by(COLUMNS) {
            let columns = j0..(j0 + COLUMNS).min(n);
            for (line, k) in panel.iter_mut().zip(k0..k1) {
                let row = &b[k * n..][columns.clone()];
                line[..row.len()].copy_from_slice(row);
                line[row.len()..].fill(T::default());
            }
            let panel = &panel[..k1 - k0];
            let mut bands = out.chunks_exact_mut(ROWS * n);
            let mut rows = a.chunks_exact(ROWS * depth);
            for (out, a) in bands.by_ref().zip(rows.by_ref()) {
                let a = std::array::from_fn(|row| &a[row * depth..][k0..k1]);
                tile::<T, ROWS, COLUMNS>(a, panel, out, n, columns.clone());
            }
            let rest = bands.into_remainder().chunks_exact_mut(n);
            for (out, a) in rest.zip(rows.remainder().chunks_exact(depth)) {
                tile::<T, 1, COLUMNS>([&a[k0..k1]], panel, out, n, columns.clone());
            }
        }
    }
}

/// Adds to some columns of a band of rows of the result what their rows of `a` make of a panel. The sums stay in
/// registers until the panel is through.
#[inline(always)]
fn tile<T: Element, const ROWS: usize, const COLUMNS: usize>(
    a: [&[T]; ROWS],
    panel: &[[T; COLUMNS]],
    out: &mut [T],
    n: usize,
    columns: std::ops::Range<usize>,
) {
    let mut sums = [[T::default(); COLUMNS]; ROWS];
    // Cut to one length, which lets the compiler drop the checks inside the loop.
    let a = a.map(|row| &row[..panel.len()]);
    for (k, line) in panel.iter().enumerate() {
        for row in 0..ROWS {
            let factor = a[row][k];
            for column in 0..COLUMNS {
                sums[row][column] = sums[row][column].add(factor.mul(line[column]));
            }
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(n)) {
        for (out, sum) in out[columns.clone()].iter_mut().zip(sums) {
            *out = out.add(*sum);
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
    fn products_of_whole_numbers_are_right_at_every_edge() {
        // Around the rows of a tile, the columns of a panel and its depth.
        for (m, k, n) in [
            (1, 1, 1),
            (7, 3, 15),
            (8, 256, 16),
            (9, 257, 17),
            (17, 300, 33),
        ] {
            let fill = |rows: usize, columns: usize, step: usize| {
                let numbers = (0..rows * columns).map(|at| (at * step % 251) as i64 - 100);
                Chunk::of_vec(vec![rows, columns], numbers.collect::<Vec<i64>>())
            };
            let (a, b) = (fill(m, k, 7), fill(k, n, 13));
            let (left, right) = (a.slice::<i64>().unwrap(), b.slice::<i64>().unwrap());
            let sum = |i: usize, j: usize| (0..k).map(|l| left[i * k + l] * right[l * n + j]).sum();
            let expected: Vec<i64> = (0..m * n).map(|at| sum(at / n, at % n)).collect();
            let product = matmul(&[a.clone(), b.clone()], u64::MAX).unwrap();
            assert_eq!(product.slice::<i64>(), Some(&expected[..]), "{m} {k} {n}");
            let narrow = |chunk: &Chunk| chunk.cast(DType::I16).into_owned();
            let product = matmul(&[narrow(&a), narrow(&b)], u64::MAX).unwrap();
            let wrapped: Vec<i16> = expected.iter().map(|x| *x as i16).collect();
            assert_eq!(product.slice::<i16>(), Some(&wrapped[..]), "{m} {k} {n}");
        }
    }

    #[test]
    fn products_of_no_elements_are_zero() {
        let a = Chunk::of_vec(vec![2, 0], Vec::<f64>::new());
        let b = Chunk::of_vec(vec![0, 2], Vec::<f64>::new());
        let product = matmul(&[a, b], u64::MAX).unwrap();
        assert_eq!(product.slice::<f64>(), Some(&[0.0; 4][..]));
    }
}
