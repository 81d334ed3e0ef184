"""What a user's program for a scaling experiment looks like: computes once, and leaves a row."""

import json
import os
import time

from dask.distributed import Client

SIZE, NODES, CORES = (int(os.environ[f"OXIDASK_{name}"]) for name in ("SIZE", "NODES", "CORES"))


def inside(seed, points):
    """How many of so many random points lie in the quarter of the circle."""
    import random

    dice = random.Random(seed)
    return sum(dice.random() ** 2 + dice.random() ** 2 <= 1 for _ in range(points))


with Client(timeout=30) as client:
    threads = sorted(client.nthreads().values())
    if threads != [CORES] * NODES:
        raise SystemExit(f"the workers have {threads} threads, not {NODES} times {CORES}")
    tasks = 2 * NODES * CORES
    started = time.perf_counter()
    hits = sum(client.gather(client.map(inside, range(tasks), points=SIZE // tasks, pure=False)))
    seconds = time.perf_counter() - started
    if abs(4 * hits / SIZE - 3.14) > 0.2:
        raise SystemExit(f"pi is not {4 * hits / SIZE}")

with open("/dev/termination-log", "w") as file:
    json.dump({"seconds": seconds, "tasks": tasks}, file)
