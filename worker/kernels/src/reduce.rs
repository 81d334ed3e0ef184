//! Reductions over axes, and the kernels of which trees of them are built.

use serde::{Deserialize, Serialize};

use crate::elementwise::{larger, smaller};
use crate::memory::vector;
use crate::shape::{allowed, chosen, standard_strides};
use crate::{Chunk, DType, Element, KernelError};

/// What is done along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// Sum: `I64` or `U64` of integers (wrapping) and bools, else the dtype itself.
    Sum,
    /// Mean: `F32` of `F32`, else `F64`.
    Mean,
    /// The smallest; NaN if one is.
    Min,
    /// The largest; NaN if one is.
    Max,
}

impl Reduction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// Elements summed before pairs are: 16 in each lane, as many as in NumPy's blocks, so the error is O(log n) too.
const BLOCK: usize = 16 * LANES;

/// An array as (outer, reduced, inner) in C order.
struct Folded {
    elements: Chunk,
    outer: usize,
    reduced: usize,
    inner: usize,
    /// Shape of the result.
    shape: Vec<usize>,
}

/// Arranges the axes so that the reduced ones stand together, copying only if they do not already.
fn fold(
    kernel: &'static str,
    input: &Chunk,
    axes: Option<&[usize]>,
    keep: bool,
) -> Result<Folded, KernelError> {
    let over = chosen(kernel, axes, input.shape().len())?;
    let lengths = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..over.len())
            .filter(|axis| wanted(*axis))
            .map(|axis| input.shape()[axis])
            .collect()
    };
    let shape = if keep {
        let pairs = over.iter().zip(input.shape());
        pairs
            .map(|(over, length)| if *over { 1 } else { *length })
            .collect()
    } else {
        lengths(&|axis| !over[axis])
    };
    let first = over.iter().position(|over| *over).unwrap_or(over.len());
    let last = over.iter().rposition(|over| *over).unwrap_or(first);
    let together = first == over.len() || over[first..=last].iter().all(|over| *over);
    let reduced = lengths(&|axis| over[axis]).iter().product();
    if together {
        let outer = lengths(&|axis| axis < first && !over[axis])
            .iter()
            .product();
        let inner = lengths(&|axis| axis > last && !over[axis]).iter().product();
        return Ok(Folded {
            elements: input.to_standard(),
            outer,
            reduced,
            inner,
            shape,
        });
    }
    let order = (0..over.len())
        .filter(|axis| !over[*axis])
        .chain((0..over.len()).filter(|axis| over[*axis]));
    let order: Vec<usize> = order.collect();
    let elements = crate::structure::transpose(input, &order)?.to_standard();
    Ok(Folded {
        elements,
        outer: lengths(&|axis| !over[axis]).iter().product(),
        reduced,
        inner: 1,
        shape,
    })
}

/// Reduces over axes, all if `axes` is `None`.
///
/// # Errors
/// If an axis does not exist or is named twice; [`KernelError::Empty`] for the mean, least and largest of nothing.
pub(crate) fn reduce(
    op: Reduction,
    input: &Chunk,
    axes: Option<&[usize]>,
    keep: bool,
) -> Result<Chunk, KernelError> {
    let folded = fold(op.name(), input, axes, keep)?;
    if folded.reduced == 0 && op != Reduction::Sum && folded.outer * folded.inner > 0 {
        return Err(KernelError::Empty(op.name()));
    }
    match op {
        Reduction::Sum => Ok(sum(&folded, input.dtype().of_sum())),
        Reduction::Mean => {
            let dtype = if input.dtype() == DType::F32 {
                DType::F32
            } else {
                DType::F64
            };
            let n = folded.reduced as f64;
            let sum = sum(&folded, dtype);
            Ok(match dtype {
                DType::F32 => scaled::<f32>(&sum, |x| (f64::from(x) / n) as f32),
                _ => scaled::<f64>(&sum, |x| x / n),
            })
        }
        Reduction::Min => {
            Ok(with_dtype!(input.dtype(), T => folded.extreme::<T>(smaller, |a: T, b: T| a < b)))
        }
        Reduction::Max => {
            Ok(with_dtype!(input.dtype(), T => folded.extreme::<T>(larger, |a: T, b: T| a > b)))
        }
    }
}

fn scaled<T: Element>(input: &Chunk, f: impl Fn(T) -> T) -> Chunk {
    let elements = input.slice::<T>().unwrap_or(&[]);
    Chunk::of_vec(
        input.shape().to_vec(),
        elements.iter().map(|x| f(*x)).collect(),
    )
}

fn sum(folded: &Folded, into: DType) -> Chunk {
    with_dtype!(folded.elements.dtype(), T => match into {
        DType::I64 => folded.sum::<T, i64>(),
        DType::U64 => folded.sum::<T, u64>(),
        DType::F32 => folded.sum::<T, f32>(),
        _ => folded.sum::<T, f64>(),
    })
}

impl Folded {
    fn sum<T: Element, S: Element>(&self) -> Chunk {
        self.rows(
            #[inline(always)]
            |row: &[T]| pairwise(row),
            #[inline(always)]
            |x: T| x.cast::<S>(),
            #[inline(always)]
            |sum: S, x: T| sum.add(x.cast::<S>()),
        )
    }

    fn extreme<T: Element>(
        &self,
        choose: impl Fn(T, T) -> T,
        beats: impl Fn(T, T) -> bool,
    ) -> Chunk {
        self.rows(
            #[inline(always)]
            |row: &[T]| extreme_of(row, &beats),
            #[inline(always)]
            |x: T| x,
            #[inline(always)]
            |a: T, b: T| choose(a, b),
        )
    }

    /// Reduces each part: by `of_row` if its elements stand in a row, else row by row, the first one by `first`.
    fn rows<T: Element, S: Element>(
        &self,
        of_row: impl Fn(&[T]) -> S,
        first: impl Fn(T) -> S,
        step: impl Fn(S, T) -> S,
    ) -> Chunk {
        let elements = self.elements.slice::<T>().unwrap_or(&[]);
        let Self {
            outer,
            reduced,
            inner,
            ..
        } = *self;
        let mut out = vector::<S>(outer * inner);
        crate::simd::vectorised(
            #[inline(always)]
            || {
                for o in 0..outer {
                    let part = &elements[o * reduced * inner..(o + 1) * reduced * inner];
                    if inner == 1 {
                        out.push(of_row(part));
                        continue;
                    }
                    if reduced == 0 {
                        // The sum of nothing; extremes of nothing were refused.
                        out.resize(out.len() + inner, S::default());
                        continue;
                    }
                    let at = out.len();
                    out.extend(part[..inner].iter().map(|x| first(*x)));
                    // Four rows at a time, so that the result is read and written a quarter as often.
                    let mut rows = part[inner..].chunks_exact(4 * inner);
                    for four in rows.by_ref() {
                        let (a, rest) = four.split_at(inner);
                        let (b, rest) = rest.split_at(inner);
                        let (c, d) = rest.split_at(inner);
                        for ((((out, a), b), c), d) in
                            out[at..].iter_mut().zip(a).zip(b).zip(c).zip(d)
                        {
                            *out = step(step(step(step(*out, *a), *b), *c), *d);
                        }
                    }
                    for row in rows.remainder().chunks_exact(inner) {
                        for (out, x) in out[at..].iter_mut().zip(row) {
                            *out = step(*out, *x);
                        }
                    }
                }
            },
        );
        Chunk::of_vec(self.shape.clone(), out)
    }
}

/// Lanes that are accumulated side by side.
const LANES: usize = 32;

/// Sum in pairs of blocks, of pairs, and so on.
#[inline(always)]
fn pairwise<T: Element, S: Element>(row: &[T]) -> S {
    if !S::DTYPE.is_float() {
        // Nothing is rounded, so the order does not matter, and the compiler may choose the one that suits vectors.
        return row.iter().fold(S::default(), |sum, x| sum.add(x.cast()));
    }
    if row.len() <= BLOCK {
        return block_sum(row);
    }
    // One partial sum of 2^k blocks for each bit of the number of blocks so far.
    let mut partial: [S; 64] = [S::default(); 64];
    let mut blocks = 0_u64;
    for block in row.chunks(BLOCK) {
        let mut sum = block_sum::<T, S>(block);
        let mut level = 0;
        while blocks >> level & 1 == 1 {
            sum = partial[level].add(sum);
            level += 1;
        }
        partial[level] = sum;
        blocks += 1;
    }
    let mut sum = S::default();
    for (level, part) in partial.iter().enumerate() {
        if blocks >> level & 1 == 1 {
            sum = sum.add(*part);
        }
    }
    sum
}

#[inline(always)]
fn block_sum<T: Element, S: Element>(block: &[T]) -> S {
    let mut lanes = [S::default(); LANES];
    let (chunks, rest) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.add(x.cast::<S>());
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = lane.add(x.cast::<S>());
    }
    let mut width = LANES / 2;
    while width > 0 {
        for at in 0..width {
            lanes[at] = lanes[at].add(lanes[at + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The least or largest of a row that has elements, by a comparison that NaN never passes; NaN if there is one.
#[inline(always)]
fn extreme_of<T: Element>(row: &[T], beats: impl Fn(T, T) -> bool) -> T {
    let first = row.first().copied().unwrap_or_default();
    let (mut lanes, mut nans) = ([first; LANES], [first; LANES]);
    // Two elements at a time, since vector units tell by one comparison whether one of two is NaN.
    let (pairs, rest) = row.as_chunks::<{ 2 * LANES }>();
    for pair in pairs {
        for at in 0..LANES {
            let (a, b) = (pair[at], pair[at + LANES]);
            lanes[at] = better(better(lanes[at], a, &beats), b, &beats);
            nans[at] = if a.is_nan() | b.is_nan() {
                f64::NAN.cast()
            } else {
                nans[at]
            };
        }
    }
    for (at, x) in rest.iter().enumerate() {
        let at = at % LANES;
        lanes[at] = better(lanes[at], *x, &beats);
        nans[at] = if x.is_nan() { *x } else { nans[at] };
    }
    let mut width = LANES / 2;
    while width > 0 {
        for at in 0..width {
            lanes[at] = better(lanes[at], lanes[at + width], &beats);
            nans[at] = if nans[at + width].is_nan() {
                nans[at + width]
            } else {
                nans[at]
            };
        }
        width /= 2;
    }
    if nans[0].is_nan() { nans[0] } else { lanes[0] }
}

/// The one of two that beats the other.
#[inline(always)]
fn better<T: Element>(best: T, x: T, beats: impl Fn(T, T) -> bool) -> T {
    if beats(x, best) { x } else { best }
}

/// Element by element over arrays of one shape and dtype.
///
/// # Errors
/// If there are none or they differ; means cannot be combined, since their weights are not known.
pub(crate) fn combine(op: Reduction, inputs: &[Chunk]) -> Result<Chunk, KernelError> {
    let first = alike(op.name(), inputs)?;
    let dtype = first.dtype();
    if op == Reduction::Mean {
        let text = "means are combined by merge-moments, which knows their weights".to_owned();
        return Err(KernelError::Parameter {
            kernel: "combine",
            text,
        });
    }
    let dtype = if op == Reduction::Sum {
        dtype.of_sum()
    } else {
        dtype
    };
    Ok(with_dtype!(dtype, T => {
        let mut parts = inputs.iter().map(|input| input.cast(dtype).to_standard());
        let start = parts.next().unwrap_or_else(|| first.clone());
        let mut out = vector::<T>(start.len());
        out.extend_from_slice(start.slice::<T>().unwrap_or(&[]));
        for part in parts {
            let part = part.slice::<T>().unwrap_or(&[]);
            crate::simd::vectorised(#[inline(always)] || match op {
                Reduction::Min => zip(&mut out, part, smaller),
                Reduction::Max => zip(&mut out, part, larger),
                Reduction::Sum | Reduction::Mean => zip(&mut out, part, |a: T, b: T| a.add(b)),
            });
        }
        Chunk::of_vec(first.shape().to_vec(), out)
    }))
}

#[inline(always)]
fn zip<T: Element>(out: &mut [T], part: &[T], f: impl Fn(T, T) -> T) {
    for (out, x) in out.iter_mut().zip(part) {
        *out = f(*out, *x);
    }
}

fn alike<'a>(kernel: &'static str, inputs: &'a [Chunk]) -> Result<&'a Chunk, KernelError> {
    let Some(first) = inputs.first() else {
        return Err(KernelError::Inputs {
            kernel,
            expected: "1 or more",
            found: 0,
        });
    };
    for input in inputs {
        if input.shape() != first.shape() {
            return Err(KernelError::Shapes {
                kernel,
                left: first.shape().to_vec(),
                right: input.shape().to_vec(),
            });
        }
        if input.dtype() != first.dtype() {
            return Err(KernelError::DType {
                kernel,
                dtype: input.dtype(),
            });
        }
    }
    Ok(first)
}

/// Count, mean and sum of squared deviations from it, as (3, …): in two passes, so that nothing cancels.
///
/// # Errors
/// As [`reduce`].
pub(crate) fn moments(
    input: &Chunk,
    axes: Option<&[usize]>,
    keep: bool,
    limit: u64,
) -> Result<Chunk, KernelError> {
    let wide = input.cast(DType::F64);
    let folded = fold("moments", &wide, axes, keep)?;
    let n = folded.outer * folded.inner;
    let mut shape = vec![3];
    shape.extend(&folded.shape);
    allowed(&shape, DType::F64, limit)?;
    let count = folded.reduced as f64;
    let sums = folded.sum::<f64, f64>();
    let means: Vec<f64> = sums
        .slice::<f64>()
        .unwrap_or(&[])
        .iter()
        .map(|sum| if count > 0.0 { sum / count } else { 0.0 })
        .collect();
    let mut out = vector::<f64>(3 * n);
    out.resize(n, count);
    out.extend_from_slice(&means);
    out.resize(3 * n, 0.0);
    let squares = &mut out[2 * n..];
    let elements = folded.elements.slice::<f64>().unwrap_or(&[]);
    let (reduced, inner) = (folded.reduced, folded.inner);
    crate::simd::vectorised(
        #[inline(always)]
        || {
            for o in 0..folded.outer {
                let part = &elements[o * reduced * inner..(o + 1) * reduced * inner];
                let (means, squares) = (
                    &means[o * inner..(o + 1) * inner],
                    &mut squares[o * inner..(o + 1) * inner],
                );
                if inner == 1 {
                    squares[0] = squared(part, means[0]);
                } else {
                    for row in part.chunks_exact(inner) {
                        for ((square, x), mean) in squares.iter_mut().zip(row).zip(means) {
                            *square += (x - mean) * (x - mean);
                        }
                    }
                }
            }
        },
    );
    Ok(Chunk::of_vec(shape, out))
}

#[inline(always)]
fn squared(row: &[f64], mean: f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += (x - mean) * (x - mean);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += (x - mean) * (x - mean);
    }
    lanes.iter().sum()
}

/// Moments of all elements behind several results of [`moments`].
///
/// Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
///
/// # Errors
/// If there are none, they differ in shape, or are no moments.
pub(crate) fn merge_moments(inputs: &[Chunk]) -> Result<Chunk, KernelError> {
    let first = alike("merge-moments", inputs)?;
    let n = of_moments("merge-moments", first)?;
    let start = first.to_standard();
    let mut out = start.slice::<f64>().unwrap_or(&[]).to_vec();
    for input in &inputs[1..] {
        let input = input.to_standard();
        let part = input.slice::<f64>().unwrap_or(&[]);
        for at in 0..n {
            let (count, more) = (out[at], part[at]);
            let all = count + more;
            if all == 0.0 {
                continue;
            }
            let delta = part[n + at] - out[n + at];
            out[at] = all;
            out[n + at] += delta * more / all;
            out[2 * n + at] += part[2 * n + at] + delta * delta * count * more / all;
        }
    }
    Ok(Chunk::of_vec(first.shape().to_vec(), out))
}

/// Elements of each moment.
fn of_moments(kernel: &'static str, input: &Chunk) -> Result<usize, KernelError> {
    if input.dtype() != DType::F64 {
        return Err(KernelError::DType {
            kernel,
            dtype: input.dtype(),
        });
    }
    if input.shape().first() != Some(&3) {
        let text = format!("moments have shape (3, …), not {:?}", input.shape());
        return Err(KernelError::Parameter { kernel, text });
    }
    Ok(input.len() / 3)
}

/// The mean of moments.
///
/// # Errors
/// If they are none.
pub(crate) fn finish_mean(input: &Chunk) -> Result<Chunk, KernelError> {
    let n = of_moments("mean", input)?;
    let input = input.to_standard();
    let moments = input.slice::<f64>().unwrap_or(&[]);
    Ok(Chunk::of_vec(
        input.shape()[1..].to_vec(),
        moments[n..2 * n].to_vec(),
    ))
}

/// The variance of moments: squares / (count − ddof), NaN or infinite where that is not positive, as in NumPy.
///
/// # Errors
/// If they are none.
pub(crate) fn finish_var(input: &Chunk, ddof: u32) -> Result<Chunk, KernelError> {
    let n = of_moments("var", input)?;
    let input = input.to_standard();
    let moments = input.slice::<f64>().unwrap_or(&[]);
    let var = (0..n).map(|at| moments[2 * n + at] / (moments[at] - f64::from(ddof)).max(0.0));
    let shape = input.shape()[1..].to_vec();
    debug_assert_eq!(standard_strides(&shape).len(), shape.len());
    Ok(Chunk::of_vec(shape, var.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_of_nothing_are_an_error_and_the_sum_is_zero() {
        let empty = Chunk::of_vec(vec![0, 2], Vec::<f64>::new());
        assert_eq!(
            reduce(Reduction::Min, &empty, Some(&[0]), false).unwrap_err(),
            KernelError::Empty("min")
        );
        let sum = reduce(Reduction::Sum, &empty, Some(&[0]), false).unwrap();
        assert_eq!(sum.slice::<f64>(), Some(&[0.0, 0.0][..]));
        // No result, so nothing to be the least of.
        assert!(
            reduce(Reduction::Min, &empty, Some(&[1]), false)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn sums_of_many_floats_lose_no_more_than_pairs_do() {
        let n = 10_000_000;
        let chunk = Chunk::of_vec(vec![n], vec![0.1_f32; n]);
        let sum = reduce(Reduction::Sum, &chunk, None, false).unwrap();
        let error = (f64::from(sum.slice::<f32>().unwrap()[0]) / (n as f64 * f64::from(0.1_f32))
            - 1.0)
            .abs();
        assert!(error < 1e-6, "{error}");
    }

    #[test]
    fn nan_wins_wherever_it_stands() {
        for at in [0, 1, 40, 99] {
            let mut x = vec![1.0; 100];
            x[at] = f64::NAN;
            let chunk = Chunk::of_vec(vec![100], x);
            for op in [Reduction::Min, Reduction::Max] {
                let least = reduce(op, &chunk, None, false).unwrap();
                assert!(least.slice::<f64>().unwrap()[0].is_nan(), "{op:?} {at}");
            }
        }
    }

    #[test]
    fn merged_moments_are_those_of_all_elements() {
        let x: Vec<f64> = (0..1000).map(|i| f64::from(i * i % 97) + 1e6).collect();
        let of = |x: &[f64]| {
            moments(
                &Chunk::of_vec(vec![x.len()], x.to_vec()),
                None,
                false,
                u64::MAX,
            )
            .unwrap()
        };
        let merged = merge_moments(&[of(&x[..10]), of(&x[10..700]), of(&x[700..])]).unwrap();
        let all = of(&x);
        for (a, b) in merged
            .slice::<f64>()
            .unwrap()
            .iter()
            .zip(all.slice::<f64>().unwrap())
        {
            assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} {b}");
        }
    }
}
