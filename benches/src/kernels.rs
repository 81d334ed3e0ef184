//! Times of kernels on one thread, as one line of JSON: name to seconds.
//!
//! `benches/figures/numpy_kernels.py` does the same work under the same names with NumPy.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use oxidask_worker_kernels::{Binary, Chunk, DType, Kernel, KernelError, Range, Reduction, Unary};

/// Rows and columns.
const N: usize = 1000;

/// How long each kernel is run for, after a run that does not count.
const TIME: Duration = Duration::from_millis(300);

/// Runs of each kernel at least.
const RUNS: usize = 5;

fn main() -> ExitCode {
    match times() {
        Ok(times) => {
            println!("{}", serde_json::Value::Object(times));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn times() -> Result<serde_json::Map<String, serde_json::Value>, KernelError> {
    let (f64s, f32s) = (uniform(DType::F64)?, uniform(DType::F32)?);
    let (i64s, i32s) = (uniform(DType::I64)?, uniform(DType::I32)?);
    let one = |chunk: &Chunk| vec![chunk.clone()];
    let two = |chunk: &Chunk| vec![chunk.clone(), chunk.clone()];
    let row = Kernel::Slice(vec![Range {
        start: 0,
        stop: 1,
        step: 1,
    }]);
    let with_row = vec![f64s.clone(), row.run(&one(&f64s), u64::MAX)?];
    let half = Kernel::Slice(vec![Range {
        start: 0,
        stop: N,
        step: 2,
    }]);
    let cases = [
        ("matmul f64", Kernel::Matmul, two(&f64s)),
        ("matmul f32", Kernel::Matmul, two(&f32s)),
        ("matmul i64", Kernel::Matmul, two(&i64s)),
        ("matmul i32", Kernel::Matmul, two(&i32s)),
        ("add f64", Kernel::Binary(Binary::Add), two(&f64s)),
        (
            "add f64, a row to all",
            Kernel::Binary(Binary::Add),
            with_row,
        ),
        ("multiply i64", Kernel::Binary(Binary::Multiply), two(&i64s)),
        ("less f64", Kernel::Binary(Binary::Less), two(&f64s)),
        ("sqrt f64", Kernel::Unary(Unary::Sqrt), one(&f64s)),
        ("sum f64", reduce(Reduction::Sum, None), one(&f64s)),
        (
            "sum f64, axis 0",
            reduce(Reduction::Sum, Some(0)),
            one(&f64s),
        ),
        (
            "sum f64, axis 1",
            reduce(Reduction::Sum, Some(1)),
            one(&f64s),
        ),
        ("sum i64", reduce(Reduction::Sum, None), one(&i64s)),
        ("mean f64", reduce(Reduction::Mean, None), one(&f64s)),
        ("min f64", reduce(Reduction::Min, None), one(&f64s)),
        ("max f64", reduce(Reduction::Max, None), one(&f64s)),
        (
            "max f64, axis 0",
            reduce(Reduction::Max, Some(0)),
            one(&f64s),
        ),
        (
            "max f64, axis 1",
            reduce(Reduction::Max, Some(1)),
            one(&f64s),
        ),
        (
            "var f64",
            Kernel::Moments {
                axes: None,
                keep: false,
            },
            one(&f64s),
        ),
        ("every second row f64, concatenated", half, one(&f64s)),
        (
            "uniform f64",
            Kernel::Uniform {
                seed: 1,
                chunk: 0,
                shape: vec![N, N],
                dtype: DType::F64,
                low: 0.0,
                high: 1.0,
            },
            Vec::new(),
        ),
        (
            "pi",
            Kernel::Pi {
                seed: 1,
                chunk: 0,
                samples: (N * N) as u64,
            },
            Vec::new(),
        ),
    ];
    let mut times = serde_json::Map::new();
    for (name, kernel, inputs) in cases {
        let seconds = if name.contains("concatenated") {
            let double = |part: Chunk| Kernel::Concatenate(0).run(&[part.clone(), part], u64::MAX);
            median(|| double(kernel.run(&inputs, u64::MAX)?))?
        } else {
            median(|| kernel.run(black_box(&inputs), u64::MAX))?
        };
        times.insert(name.to_owned(), seconds.into());
    }
    Ok(times)
}

/// A matrix of numbers from 0 to 100.
fn uniform(dtype: DType) -> Result<Chunk, KernelError> {
    let kernel = Kernel::Uniform {
        seed: 1,
        chunk: 0,
        shape: vec![N, N],
        dtype: if dtype.is_float() { dtype } else { DType::F64 },
        low: 0.0,
        high: 100.0,
    };
    Kernel::Cast(dtype).run(&[kernel.run(&[], u64::MAX)?], u64::MAX)
}

fn reduce(op: Reduction, axis: Option<usize>) -> Kernel {
    Kernel::Reduce {
        op,
        axes: axis.map(|axis| vec![axis]),
        keep: false,
    }
}

/// Median time of a run. Unit: seconds.
fn median(mut run: impl FnMut() -> Result<Chunk, KernelError>) -> Result<f64, KernelError> {
    run()?;
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < RUNS || begin.elapsed() < TIME {
        let start = Instant::now();
        black_box(run()?);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
