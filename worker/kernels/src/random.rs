//! Random numbers that depend on seed and chunk alone: Philox 4×64 with 10 rounds, as NumPy has it.
//!
//! Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).

use crate::memory::filled;
use crate::{Chunk, DType, Element, KernelError};

const MULTIPLIERS: [u64; 2] = [0xD2E7_470E_E14C_6C93, 0xCA5A_8263_9512_1157];
const STEPS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xBB67_AE85_84CA_A73B];
const ROUNDS: u64 = 10;

/// The generator of one chunk: a function from a counter to four numbers.
#[derive(Debug, Clone, Copy)]
pub struct Philox {
    key: [u64; 2],
}

impl Philox {
    /// The generator that NumPy calls `Philox(key=key)`.
    pub fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    /// The numbers 4 `n` to 4 `n` + 3 of the generator.
    #[inline(always)]
    pub fn block(self, n: u64) -> [u64; 4] {
        // NumPy counts before it draws.
        let mut x = [n.wrapping_add(1), 0, 0, 0];
        for round in 0..ROUNDS {
            let key = [
                self.key[0].wrapping_add(STEPS[0].wrapping_mul(round)),
                self.key[1].wrapping_add(STEPS[1].wrapping_mul(round)),
            ];
            let (high0, low0) = wide(MULTIPLIERS[0], x[0]);
            let (high1, low1) = wide(MULTIPLIERS[1], x[2]);
            x = [high1 ^ x[1] ^ key[0], low1, high0 ^ x[3] ^ key[1], low0];
        }
        x
    }
}

#[inline(always)]
fn wide(a: u64, b: u64) -> (u64, u64) {
    let product = u128::from(a) * u128::from(b);
    ((product >> 64) as u64, product as u64)
}

/// In [0, 1), 53 bits.
#[inline(always)]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// In [0, 1), 24 bits.
#[inline(always)]
fn unit32(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / (1_u32 << 24) as f32)
}

/// `n` elements in [low, high).
///
/// # Errors
/// If the dtype is no float or the bounds are not finite.
pub(crate) fn uniform(
    key: [u64; 2],
    shape: &[usize],
    n: usize,
    dtype: DType,
    low: f64,
    high: f64,
) -> Result<Chunk, KernelError> {
    finite("uniform", low, high)?;
    let width = high - low;
    match dtype {
        DType::F64 => Ok(draw(key, shape, n, |bits| [low + width * unit(bits)])),
        DType::F32 => {
            let (low, width) = (low as f32, width as f32);
            // NumPy takes the lower half first.
            Ok(draw(key, shape, n, |bits| {
                [
                    low + width * unit32(bits as u32),
                    low + width * unit32((bits >> 32) as u32),
                ]
            }))
        }
        dtype => Err(KernelError::DType {
            kernel: "uniform",
            dtype,
        }),
    }
}

/// `n` normal elements, two of each two numbers.
///
/// # Errors
/// If the dtype is no float or mean or deviation are not finite.
pub(crate) fn normal(
    key: [u64; 2],
    shape: &[usize],
    n: usize,
    dtype: DType,
    mean: f64,
    deviation: f64,
) -> Result<Chunk, KernelError> {
    finite("normal", mean, deviation)?;
    if !dtype.is_float() {
        return Err(KernelError::DType {
            kernel: "normal",
            dtype,
        });
    }
    let philox = Philox::new(key);
    let pair = |a: u64, b: u64| {
        // 1 − u lies in (0, 1], so the logarithm is finite.
        let radius = deviation * (-2.0 * (1.0 - unit(a)).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * unit(b)).sin_cos();
        [mean + radius * cosine, mean + radius * sine]
    };
    let elements = filled::<f64>(
        n,
        #[inline(always)]
        |out| {
            for (block, out) in out.chunks_mut(4).enumerate() {
                let [a, b, c, d] = philox.block(block as u64);
                let [[w, x], [y, z]] = [pair(a, b), pair(c, d)];
                for (out, value) in out.iter_mut().zip([w, x, y, z]) {
                    out.write(value);
                }
            }
        },
    );
    let chunk = Chunk::of_vec(shape.to_vec(), elements);
    Ok(chunk.cast(dtype).into_owned())
}

/// `n` whole numbers in [low, high).
///
/// # Errors
/// If the dtype is no integer, or a bound lies outside of it, or there is nothing between the bounds.
pub(crate) fn integers(
    key: [u64; 2],
    shape: &[usize],
    n: usize,
    dtype: DType,
    low: i64,
    high: i64,
) -> Result<Chunk, KernelError> {
    if dtype.is_float() || dtype == DType::Bool {
        return Err(KernelError::DType {
            kernel: "integers",
            dtype,
        });
    }
    with_dtype!(dtype, T => {
        let fits = |value: i64| T::from_i64(value).to_i64() == value && (dtype != DType::U64 || value >= 0);
        if low >= high || !fits(low) || !fits(high - 1) {
            let text = format!("{low}..{high} of {dtype}");
            return Err(KernelError::Parameter { kernel: "integers", text });
        }
        let width = high.wrapping_sub(low) as u64;
        Ok(draw(key, shape, n, |bits| {
            [T::from_i64(low.wrapping_add(wide(bits, width).0 as i64))]
        }))
    })
}

fn finite(kernel: &'static str, a: f64, b: f64) -> Result<(), KernelError> {
    if a.is_finite() && b.is_finite() && (b - a).is_finite() {
        return Ok(());
    }
    let text = format!("{a} and {b} must be finite");
    Err(KernelError::Parameter { kernel, text })
}

/// `n` elements, `K` of each number.
fn draw<T: Element, const K: usize>(
    key: [u64; 2],
    shape: &[usize],
    n: usize,
    of: impl Fn(u64) -> [T; K],
) -> Chunk {
    let philox = Philox::new(key);
    let elements = filled::<T>(
        n,
        #[inline(always)]
        |out| {
            for (block, out) in out.chunks_mut(4 * K).enumerate() {
                let numbers = philox.block(block as u64);
                for (out, bits) in out.chunks_mut(K).zip(numbers) {
                    for (out, element) in out.iter_mut().zip(of(bits)) {
                        out.write(element);
                    }
                }
            }
        },
    );
    Chunk::of_vec(shape.to_vec(), elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_the_moments_of_a_normal_distribution() {
        let n = 200_000;
        let chunk = normal([1, 2], &[n], n, DType::F64, 3.0, 2.0).unwrap();
        let x = chunk.slice::<f64>().unwrap();
        let moment =
            |power: i32| x.iter().map(|x| ((x - 3.0) / 2.0).powi(power)).sum::<f64>() / n as f64;
        // Five standard errors each: √(1/n), √(2/n), √(15/n), √(96/n).
        assert!(moment(1).abs() < 0.0112, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.0158, "{}", moment(2));
        assert!(moment(3).abs() < 0.0433, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.11, "{}", moment(4));
    }

    #[test]
    fn integers_reach_both_ends_and_nothing_beyond() {
        let chunk = integers([5, 0], &[1000], 1000, DType::I8, -2, 3).unwrap();
        let x = chunk.slice::<i8>().unwrap();
        assert_eq!((x.iter().min(), x.iter().max()), (Some(&-2), Some(&2)));
        assert!(integers([5, 0], &[1], 1, DType::U8, 0, 257).is_err());
        assert!(integers([5, 0], &[1], 1, DType::I64, 3, 3).is_err());
    }

    #[test]
    fn another_chunk_or_seed_gives_other_numbers() {
        let a = Philox::new([1, 0]).block(0);
        assert_ne!(a, Philox::new([1, 1]).block(0));
        assert_ne!(a, Philox::new([2, 0]).block(0));
        assert_ne!(a, Philox::new([1, 0]).block(1));
    }
}
