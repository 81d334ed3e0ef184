"""Speed-up from one worker to two, each pinned to a CPU, over that of plain processes doing the same work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cloudpickle
import dask.array as da
from distributed import Client, wait

from .. import plain
from ..metric import Metric
from ..side import Side, cluster, connected

# Workers cannot import this module, nor that one.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
cloudpickle.register_pickle_by_value(plain)

SENTENCE = "Speed-up from 1 to 2 pinned workers, as a share of that of plain processes"

#: Least share of the speed-up of plain processes.
SHARES = {"pi": 0.97, "matmul": 0.9}

#: Options of `oxidask experiment` for each work.
NATIVE = {"pi": ["--sizes", "4000000000"], "matmul": ["--sizes", "4000"]}


def at_least(share: float) -> dict:
    return {"target": f"≥ {share}", "reached": lambda ours, _: ours >= share}


METRICS = [
    *(
        Metric(f"{work}, {kind}", "of plain", **at_least(SHARES[work]))
        for kind in ("native", "Python")
        for work in SHARES
    ),
    *(Metric(f"{work}, Python, speed-up", "×") for work in SHARES),
    *(Metric(f"{work}, Python, plain processes, speed-up", "×") for work in SHARES),
    *(Metric(f"{work}, native, speed-up", "×") for work in SHARES),
]


def measure(side: Side) -> dict[str, float]:
    if side.label != "ours":
        return {}
    values: dict[str, float] = {}
    works = {"pi": pi, "matmul": matmul}
    times = {(work, n): seconds(side, n, run) for n in (1, 2) for work, run in works.items()}
    for work in works:
        speedup = times[work, 1] / times[work, 2]
        control = plain.seconds(work, 1) / plain.seconds(work, 2)
        values[f"{work}, Python"] = speedup / control
        values[f"{work}, Python, speed-up"] = speedup
        values[f"{work}, Python, plain processes, speed-up"] = control
        row = native(work)
        values[f"{work}, native"] = row["speedup"] / row["control_speedup"]
        values[f"{work}, native, speed-up"] = row["speedup"]
    return values


def seconds(side: Side, workers: int, run) -> float:
    with cluster(side) as started:
        for number in range(workers):
            started.start_worker(command=f"taskset -c {number} {side.worker}")
        with connected(started, workers) as client:
            return run(client)


def pi(client: Client) -> float:
    client.gather(client.map(plain.hits, range(2), pure=False))
    start = time.perf_counter()
    client.gather(client.map(plain.hits, range(plain.TASKS), pure=False))
    return time.perf_counter() - start


def matmul(client: Client) -> float:
    def matrix(size: int, chunk: int) -> da.Array:
        x = client.persist(da.random.default_rng(0).random((size, size), chunks=(chunk, chunk)))
        wait(x)
        return x

    small, x = matrix(800, 100), matrix(plain.SIZE, plain.CHUNK)
    wait(client.persist(small @ small))
    start = time.perf_counter()
    product = client.persist(x @ x)
    wait(product)
    return time.perf_counter() - start


def native(work: str) -> dict:
    """The row of two workers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [os.environ["OXIDASK_CLI"], "experiment", work, "--workers", "1,2", "--repeats", "1", "--pin"]
        subprocess.run([*command, *NATIVE[work], "--output", folder], check=True, capture_output=True)
        return json.loads((Path(folder) / "table.json").read_text())[1]
