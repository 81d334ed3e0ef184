//! Kernels give what NumPy gave when `golden/record.py` recorded it.

#![allow(
    clippy::unwrap_used,
    reason = "a broken recording may fail the test anyhow"
)]

use oxidask_worker_kernels::{Chunk, DType, Kernel};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recording {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(with = "bytes_of")]
    kernel: Vec<u8>,
    inputs: Vec<Array>,
    output: Array,
    tolerance: f64,
}

#[derive(Deserialize)]
struct Array {
    dtype: DType,
    shape: Vec<usize>,
    strides: Vec<usize>,
    #[serde(with = "bytes_of")]
    data: Vec<u8>,
}

mod bytes_of {
    use serde::de::{Deserializer, Error, Visitor};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

fn chunk(array: &Array) -> Chunk {
    let data = bytes::Bytes::copy_from_slice(&array.data);
    Chunk::of_bytes(
        array.dtype,
        array.shape.clone(),
        array.strides.clone(),
        data,
    )
    .unwrap()
}

/// Elements as floats and as bits.
fn elements(chunk: &Chunk) -> Vec<(f64, Vec<u8>)> {
    let standard = chunk.to_standard();
    let wide = Kernel::Cast(DType::F64)
        .run(std::slice::from_ref(&standard), u64::MAX)
        .unwrap();
    let floats = wide
        .view::<f64>()
        .unwrap()
        .iter()
        .copied()
        .collect::<Vec<_>>();
    let bits = standard
        .data()
        .chunks(chunk.dtype().size())
        .map(<[u8]>::to_vec);
    floats.into_iter().zip(bits).collect()
}

fn agree(ours: &Chunk, theirs: &Chunk, tolerance: f64) -> bool {
    if ours.dtype() != theirs.dtype() || ours.shape() != theirs.shape() {
        return false;
    }
    let (ours, theirs) = (elements(ours), elements(theirs));
    let largest = theirs
        .iter()
        .map(|(x, _)| x.abs())
        .filter(|x| x.is_finite())
        .fold(0.0, f64::max);
    ours.iter().zip(&theirs).all(|((a, bits), (b, expected))| {
        let same =
            bits == expected || a.is_nan() && b.is_nan() || a == b && a.abs() < 2_f64.powi(53);
        // Sums may cancel, so that the error is relative to what was summed.
        same || tolerance > 0.0 && (a - b).abs() <= tolerance * largest.max(1.0)
    })
}

#[test]
fn kernels_give_what_numpy_gave() {
    let recording: Recording =
        rmp_serde::from_slice(include_bytes!("golden/numpy.msgpack")).unwrap();
    assert!(recording.cases.len() > 500);
    let mut failures = Vec::new();
    for (number, case) in recording.cases.iter().enumerate() {
        let kernel = Kernel::of_msgpack(&case.kernel).unwrap();
        let inputs: Vec<Chunk> = case.inputs.iter().map(chunk).collect();
        let theirs = chunk(&case.output);
        match kernel.run(&inputs, u64::MAX) {
            Ok(ours) if agree(&ours, &theirs, case.tolerance) => {}
            other => failures.push(format!(
                "case {number} {kernel:?} of {:?}: {:?}\n  expected {theirs:?}",
                inputs
                    .iter()
                    .map(|i| (i.dtype(), i.shape().to_vec()))
                    .collect::<Vec<_>>(),
                other.map(|chunk| (chunk.dtype(), chunk.shape().to_vec(), elements(&chunk)))
            )),
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures, the first:\n{}",
        failures.len(),
        failures[..failures.len().min(8)].join("\n")
    );
}
