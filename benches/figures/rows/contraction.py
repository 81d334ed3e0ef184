"""A product of matrices in chunks: bytes moved between workers, and what more workers cost in CPU.

`x @ x` of 6000 × 6000 numbers in chunks of 1000 × 1000, from the stock client; for ours also as a native graph.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import NamedTuple

import dask.array as da
from distributed import Client, wait

from ..metric import Metric
from ..side import Cluster, Side, cluster, connected

SENTENCE = "x @ x of 6000 × 6000 in chunks of 1000 × 1000: bytes moved between workers, and workers' CPU"

SIZE, CHUNK = 6000, 1000

#: Megabytes that must move at least, by number of workers: what each needs less what it may hold.
LOWER_BOUNDS = {2: 288, 4: 576}

#: Chunks lie on the workers before the product is asked for, or are part of the graph.
INPUTS = ("persisted", "fresh")

#: Numbers of workers with which stock is measured: it takes as long as all of ours.
STOCK = (2,)


def moved(workers: int) -> dict:
    limit = 1.5 * LOWER_BOUNDS[workers]
    return {"target": f"≤ {limit:.0f} MB", "reached": lambda ours, _: ours <= limit}


CPU = {"target": "≤ 1.05", "reached": lambda ours, _: ours <= 1.05}

METRICS = [
    *(Metric(f"moved, {inputs}, {n} workers", "MB", **moved(n)) for inputs in INPUTS for n in LOWER_BOUNDS),
    *(Metric(f"moved, native, {n} workers", "MB", **moved(n)) for n in LOWER_BOUNDS),
    *(Metric(f"CPU, {n} workers over 1", "ratio", **CPU) for n in LOWER_BOUNDS),
    *(Metric(f"CPU, native, {n} workers over 1", "ratio", **CPU) for n in LOWER_BOUNDS),
    *(Metric(f"time, {n} workers", "s") for n in (1, *LOWER_BOUNDS)),
]


def measure(side: Side) -> dict[str, float]:
    values: dict[str, float] = {}
    cpu: dict[tuple[str, int], float] = {}
    for n in (1, *LOWER_BOUNDS) if side.label == "ours" else STOCK:
        with cluster(side) as started:
            for _ in range(n):
                started.start_worker()
            with connected(started, n) as client:
                warm(client)
                x = client.persist(matrix(SIZE, CHUNK, seed=0))
                wait(x)
                run = product(client, started, side, x)
                del x
                cpu["", n], values[f"time, {n} workers"] = run.cpu, run.seconds
                if n > 1:
                    values[f"moved, persisted, {n} workers"] = run.moved
                    values[f"moved, fresh, {n} workers"] = product(
                        client, started, side, matrix(SIZE, CHUNK, seed=1)
                    ).moved
            if side.label == "ours":
                row = native(started, n)
                cpu["native, ", n] = row["cpuSeconds"]
                if n > 1:
                    values[f"moved, native, {n} workers"] = row["bytesMoved"] / 1e6
    for (what, n), seconds in cpu.items():
        if n > 1 and (what, 1) in cpu:
            values[f"CPU, {what}{n} workers over 1"] = seconds / cpu[what, 1]
    return values


def matrix(size: int, chunk: int, seed: int) -> da.Array:
    return da.random.default_rng(seed).random((size, size), chunks=(chunk, chunk))


def warm(client: Client) -> None:
    """Has every worker import what a product needs."""
    wait(client.persist(matrix(800, 100, seed=2) @ matrix(800, 100, seed=3)))


class Run(NamedTuple):
    #: Megabytes.
    moved: float
    #: Seconds of all processes of all workers.
    cpu: float
    seconds: float


def product(client: Client, started: Cluster, side: Side, x: da.Array) -> Run:
    """`x @ x` until its last chunk is there; what `x` still has to compute is part of it."""
    moved, cpu, start = bytes_moved(client, side), cpu_seconds(started), time.perf_counter()
    result = client.persist(x @ x)
    wait(result)
    seconds = time.perf_counter() - start
    return Run(bytes_moved(client, side) - moved, cpu_seconds(started) - cpu, seconds)


def cpu_seconds(started: Cluster) -> float:
    return sum(usage.cpu() + usage.cpu_below() for usage in started.worker_usages)


def bytes_moved(client: Client, side: Side) -> float:
    """Megabytes that workers have had from each other, shared memory included."""
    if side.label == "ours":
        answers = client.sync(client.scheduler.broadcast, msg={"op": "oxidask_work"})
        return sum(answer["transfer_bytes"] for answer in answers.values()) / 1e6
    # Results are waited for and not gathered, so that all that leaves a worker goes to another one.
    sent = client.run(lambda dask_worker: dask_worker.transfer_outgoing_bytes_total)
    return sum(sent.values()) / 1e6


def native(started: Cluster, workers: int) -> dict:
    """The same as a native graph, on the same workers."""
    command = [os.environ["OXIDASK_CLI"], "experiment", "cell", "matmul", "--scheduler", started.address]
    command += ["--size", str(SIZE), "--chunk", str(CHUNK), "--nodes", str(workers), "--cores", "1"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
