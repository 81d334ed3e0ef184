"""Kernels of native tasks against NumPy, both on one thread, on matrices of 1000 × 1000."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ..metric import Metric, times_better
from ..side import Side

SENTENCE = "Kernels on one thread, 1000 × 1000: ours against NumPy"

NUMPY = Path(__file__).parent.parent / "numpy_kernels.py"

#: What each must reach, in NumPy's time over ours; arithmetic and reductions only once as fast.
FACTORS = {"matmul f64": 0.9, "matmul f32": 0.9, "matmul i64": 5, "matmul i32": 5, "pi": 5}

#: Reported without a target. The slice copies here, so that a part does not keep its whole array in memory; NumPy
#: copies once, when it concatenates. The generator is NumPy's Philox on both sides; its default one is not counted.
REPORTED = ["every second row f64, concatenated", "uniform f64"]

NAMES = [
    *("matmul f64", "matmul f32", "matmul i64", "matmul i32"),
    *("add f64", "add f64, a row to all", "multiply i64", "less f64", "sqrt f64"),
    *("sum f64", "sum f64, axis 0", "sum f64, axis 1", "sum i64", "mean f64"),
    *("min f64", "max f64", "max f64, axis 0", "max f64, axis 1", "var f64"),
    *(*REPORTED, "pi"),
]

METRICS = [Metric(name, "ms", **({} if name in REPORTED else times_better(FACTORS.get(name, 1)))) for name in NAMES]


def measure(side: Side) -> dict[str, float]:
    # NumPy's BLAS chooses its own kernel for this machine, whatever the environment asks it for.
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [os.environ["OXIDASK_BENCH_KERNELS"]] if side.label == "ours" else [sys.executable, str(NUMPY)]
    output = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    return {name: seconds * 1e3 for name, seconds in json.loads(output).items()}
