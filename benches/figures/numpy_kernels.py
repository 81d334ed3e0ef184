"""What `benches/src/kernels.rs` does, with NumPy: one line of JSON, name to seconds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np

N = 1000

#: How long each kernel is run for, after a run that does not count. Unit: seconds.
SECONDS = 0.3

RUNS = 5


def pi(generator: np.random.Generator) -> int:
    x, y = generator.random(N * N), generator.random(N * N)
    return int((x * x + y * y < 1).sum())


def kernels() -> dict[str, Callable[[], object]]:
    generator = np.random.default_rng(1)
    counter = np.random.Generator(np.random.Philox(1))
    f64s = generator.random((N, N)) * 100
    f32s, i64s, i32s = f64s.astype("f4"), f64s.astype("i8"), f64s.astype("i4")
    row = f64s[:1]
    return {
        "matmul f64": lambda: f64s @ f64s,
        "matmul f32": lambda: f32s @ f32s,
        "matmul i64": lambda: i64s @ i64s,
        "matmul i32": lambda: i32s @ i32s,
        "add f64": lambda: f64s + f64s,
        "add f64, a row to all": lambda: f64s + row,
        "multiply i64": lambda: i64s * i64s,
        "less f64": lambda: f64s < f64s,
        "sqrt f64": lambda: np.sqrt(f64s),
        "sum f64": lambda: f64s.sum(),
        "sum f64, axis 0": lambda: f64s.sum(axis=0),
        "sum f64, axis 1": lambda: f64s.sum(axis=1),
        "sum i64": lambda: i64s.sum(),
        "mean f64": lambda: f64s.mean(),
        "min f64": lambda: f64s.min(),
        "max f64": lambda: f64s.max(),
        "max f64, axis 0": lambda: f64s.max(axis=0),
        "max f64, axis 1": lambda: f64s.max(axis=1),
        "var f64": lambda: f64s.var(),
        "every second row f64, concatenated": lambda: np.concatenate([f64s[::2], f64s[::2]]),
        "uniform f64": lambda: counter.random((N, N)),
        "pi": lambda: pi(generator),
    }


def median(run: Callable[[], object]) -> float:
    """Seconds of the median run."""
    run()
    begin, times = time.perf_counter(), []
    while len(times) < RUNS or time.perf_counter() - begin < SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    print(json.dumps({name: median(run) for name, run in kernels().items()}))
