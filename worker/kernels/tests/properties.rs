//! What holds for any shapes and numbers.

#![allow(
    clippy::unwrap_used,
    reason = "a case that cannot be set up may fail the test anyhow"
)]

use ndarray::{Array2, ArrayD};
use oxidask_worker_kernels::{Binary, Chunk, DType, Kernel, Range, Reduction, Scalar};
use proptest::prelude::*;

const LIMIT: u64 = 1 << 30;

fn matrix(rows: usize, columns: usize, seed: u64) -> Chunk {
    let kernel = Kernel::Integers {
        seed,
        chunk: 0,
        shape: vec![rows, columns],
        dtype: DType::I64,
        low: -1000,
        high: 1000,
    };
    kernel.run(&[], LIMIT).unwrap()
}

fn array(chunk: &Chunk) -> ArrayD<i64> {
    chunk.view::<i64>().unwrap().to_owned()
}

fn two(chunk: &Chunk) -> Array2<i64> {
    array(chunk).into_dimensionality().unwrap()
}

proptest! {
    #[test]
    fn a_product_of_integers_is_that_of_ndarray(m in 0..70_usize, k in 0..150_usize, n in 0..40_usize, seed: u64) {
        let (a, b) = (matrix(m, k, seed), matrix(k, n, seed ^ 1));
        let product = Kernel::Matmul.run(&[a.clone(), b.clone()], LIMIT).unwrap();
        prop_assert_eq!(two(&product), two(&a).dot(&two(&b)));
    }

    #[test]
    fn a_product_of_floats_is_that_of_integers_while_they_are_exact(m in 1..40_usize, k in 1..60_usize, n in 1..40_usize, seed: u64) {
        let (a, b) = (matrix(m, k, seed), matrix(k, n, seed ^ 1));
        let exact = Kernel::Matmul.run(&[a.clone(), b.clone()], LIMIT).unwrap();
        let float = |chunk| Kernel::Cast(DType::F64).run(&[chunk], LIMIT).unwrap();
        let product = Kernel::Matmul.run(&[float(a), float(b)], LIMIT).unwrap();
        let back = Kernel::Cast(DType::I64).run(&[product], LIMIT).unwrap();
        prop_assert_eq!(array(&back), array(&exact));
    }

    #[test]
    fn a_sum_of_parts_is_the_sum_of_the_whole(rows in 1..50_usize, columns in 1..50_usize, cut in 0..50_usize, axis in 0..2_usize, seed: u64) {
        let whole = matrix(rows, columns, seed);
        let length = whole.shape()[axis];
        let cut = cut.min(length);
        let sum = |chunk: Chunk| Kernel::Reduce { op: Reduction::Sum, axes: Some(vec![axis]), keep: false }.run(&[chunk], LIMIT).unwrap();
        let part = |start, stop| {
            let mut ranges: Vec<Range> = whole.shape().iter().map(|n| Range { start: 0, stop: *n, step: 1 }).collect();
            ranges[axis] = Range { start, stop, step: 1 };
            Kernel::Slice(ranges).run(std::slice::from_ref(&whole), LIMIT).unwrap()
        };
        let parts = [sum(part(0, cut)), sum(part(cut, length))];
        let combined = Kernel::Combine(Reduction::Sum).run(&parts, LIMIT).unwrap();
        prop_assert_eq!(array(&combined), array(&sum(whole.clone())));
        let joined = Kernel::Concatenate(axis).run(&[part(0, cut), part(cut, length)], LIMIT).unwrap();
        prop_assert_eq!(array(&joined), array(&whole));
    }

    #[test]
    fn a_transpose_changes_no_result(rows in 1..20_usize, columns in 1..20_usize, seed: u64) {
        let a = matrix(rows, columns, seed);
        let transposed = Kernel::Transpose(Vec::new()).run(std::slice::from_ref(&a), LIMIT).unwrap();
        let plus = |chunk: Chunk| Kernel::WithScalar { op: Binary::Add, scalar: Scalar::Int(1), reversed: false }.run(&[chunk], LIMIT).unwrap();
        let there_and_back = Kernel::Transpose(Vec::new()).run(&[plus(transposed.clone())], LIMIT).unwrap();
        prop_assert_eq!(array(&there_and_back), array(&plus(a.clone())));
        for op in [Reduction::Min, Reduction::Max, Reduction::Sum] {
            let over = |axis: usize| Kernel::Reduce { op, axes: Some(vec![axis]), keep: false };
            prop_assert_eq!(array(&over(0).run(std::slice::from_ref(&a), LIMIT).unwrap()), array(&over(1).run(std::slice::from_ref(&transposed), LIMIT).unwrap()));
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_kernel_that_ends(bytes: Vec<u8>) {
        if let Ok(kernel) = Kernel::of_msgpack(&bytes)
            && !matches!(kernel, Kernel::Pi { .. })
        {
            let _ = kernel.run(&[], 1 << 20);
        }
    }

    #[test]
    fn random_chunks_do_not_depend_on_their_shape(rows in 1..20_usize, columns in 1..20_usize, seed: u64, chunk: u64) {
        let of = |shape| Kernel::Uniform { seed, chunk, shape, dtype: DType::F64, low: -1.0, high: 2.0 }.run(&[], LIMIT).unwrap();
        let (flat, square) = (of(vec![rows * columns]), of(vec![rows, columns]));
        prop_assert_eq!(flat.data(), square.data());
        prop_assert!(flat.view::<f64>().unwrap().iter().all(|x| (-1.0..2.0).contains(x)));
    }
}
