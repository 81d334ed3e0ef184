//! One-thread times of kernels; `benches/figures/rows/kernels.py` compares the same ones with NumPy.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use oxidask_worker_kernels::{Binary, Chunk, DType, Kernel, Reduction, Unary};

const N: usize = 1000;

fn uniform(dtype: DType) -> Chunk {
    let kernel = Kernel::Uniform {
        seed: 1,
        chunk: 0,
        shape: vec![N, N],
        dtype: if dtype.is_float() { dtype } else { DType::F64 },
        low: 0.0,
        high: 100.0,
    };
    let chunk = kernel.run(&[], u64::MAX).expect("parameters are right");
    Kernel::Cast(dtype)
        .run(&[chunk], u64::MAX)
        .expect("numbers can be cast")
}

fn kernels(c: &mut Criterion) {
    let mut bench = |name: &str, kernel: &Kernel, inputs: &[Chunk]| {
        c.bench_function(name, |b| {
            b.iter(|| black_box(kernel.run(black_box(inputs), u64::MAX)))
        });
    };
    let (f64s, f32s) = (uniform(DType::F64), uniform(DType::F32));
    let (i64s, i32s) = (uniform(DType::I64), uniform(DType::I32));
    let twice = |chunk: &Chunk| [chunk.clone(), chunk.clone()];
    let reduce = |op, axes: Option<Vec<usize>>| Kernel::Reduce {
        op,
        axes,
        keep: false,
    };
    bench("matmul_f64", &Kernel::Matmul, &twice(&f64s));
    bench("matmul_f32", &Kernel::Matmul, &twice(&f32s));
    bench("matmul_i64", &Kernel::Matmul, &twice(&i64s));
    bench("matmul_i32", &Kernel::Matmul, &twice(&i32s));
    bench("add_f64", &Kernel::Binary(Binary::Add), &twice(&f64s));
    bench("less_f64", &Kernel::Binary(Binary::Less), &twice(&f64s));
    bench(
        "sqrt_f64",
        &Kernel::Unary(Unary::Sqrt),
        std::slice::from_ref(&f64s),
    );
    bench(
        "sum_f64",
        &reduce(Reduction::Sum, None),
        std::slice::from_ref(&f64s),
    );
    bench(
        "sum0_f64",
        &reduce(Reduction::Sum, Some(vec![0])),
        std::slice::from_ref(&f64s),
    );
    bench(
        "sum1_f64",
        &reduce(Reduction::Sum, Some(vec![1])),
        std::slice::from_ref(&f64s),
    );
    bench(
        "max_f64",
        &reduce(Reduction::Max, None),
        std::slice::from_ref(&f64s),
    );
    bench(
        "var_f64",
        &Kernel::Moments {
            axes: None,
            keep: false,
        },
        std::slice::from_ref(&f64s),
    );
    bench(
        "uniform_f64",
        &Kernel::Uniform {
            seed: 1,
            chunk: 0,
            shape: vec![N, N],
            dtype: DType::F64,
            low: 0.0,
            high: 1.0,
        },
        &[],
    );
    bench(
        "pi",
        &Kernel::Pi {
            seed: 1,
            chunk: 0,
            samples: (N * N) as u64,
        },
        &[],
    );
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1)).warm_up_time(std::time::Duration::from_millis(200));
    targets = kernels
}
criterion_main!(all);
