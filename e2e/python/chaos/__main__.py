"""`python -m chaos --scheduler PROGRAM --worker PROGRAM`: rounds of a map-reduce while processes are killed.

Each round's sum is compared with what it must be. OXIDASK_SEED repeats the order of kills, not their moments.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
from distributed import Client, Future

sys.path.insert(0, str(Path(__file__).parent.parent))

from clusters import Cluster, Process

# Workers cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

WORKERS = 4
LEAVES = 64
#: Numbers in a leaf: large enough to lie in a memory file.
SIZE = 100_000
#: Seconds between kills.
PAUSE = (0.3, 1.2)
#: Seconds that one round may take.
ROUND_TIMEOUT = 120


def leaf(number: int) -> np.ndarray:
    time.sleep(0.01)
    return np.full(SIZE, number, dtype="i8")


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    time.sleep(0.005)
    return a + b


def map_reduce(client: Client, first: int) -> Future:
    """The sum of `LEAVES` arrays of consecutive numbers, two by two."""
    level = client.map(leaf, range(first, first + LEAVES), pure=False, retries=100)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [client.submit(add, a, b, pure=False, retries=100) for a, b in pairs]
    return level[0]


class Killer(threading.Thread):
    """Kills an executor or a worker now and then; a killed worker is followed by another."""

    def __init__(self, cluster: Cluster, seed: int):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.random = random.Random(seed)
        self.workers = [cluster.start_worker(nthreads=2) for _ in range(WORKERS)]
        self.done = threading.Event()
        self.executors_killed = self.workers_killed = 0

    def run(self) -> None:
        while not self.done.wait(self.random.uniform(*PAUSE)):
            worker = self.random.choice(self.workers)
            if self.random.random() < 0.3:
                self.kill_worker(worker)
            else:
                self.kill_executor(worker)

    def kill_worker(self, worker: Process) -> None:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(10)
        self.workers.remove(worker)
        self.workers.append(self.cluster.start_worker(nthreads=2))
        self.workers_killed += 1

    def kill_executor(self, worker: Process) -> None:
        try:
            descendants = psutil.Process(worker.pid).children(recursive=True)
            # The template stands before the executors that it has forked.
            os.kill(descendants[-1].pid, signal.SIGKILL)
            self.executors_killed += 1
        except (IndexError, ProcessLookupError, psutil.Error):
            pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scheduler", required=True)
    parser.add_argument("--worker", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    seed = int(os.environ.get("OXIDASK_SEED") or random.randrange(1 << 32))
    print(f"OXIDASK_SEED={seed}", flush=True)
    # A task may be where processes are killed as often as chance has it.
    lenient = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000"}
    scheduler = f"{args.scheduler} --host {{host}} --port {{port}} --no-dashboard"
    worker = (
        f"{args.worker} {{scheduler}} --host {{host}} --nthreads {{nthreads}} --name {{name}} --no-dashboard "
        "--local-directory {folder}"
    )
    with Cluster(scheduler, worker, **lenient) as cluster:
        killer = Killer(cluster, seed)
        rounds = run_rounds(cluster, killer, args.seconds)
    print(
        f"{rounds} rounds of {2 * LEAVES - 1} tasks right, {killer.executors_killed} executors and "
        f"{killer.workers_killed} workers killed"
    )
    print("1 passed, 0 failed")
    return 0


def run_rounds(cluster: Cluster, killer: Killer, seconds: float) -> int:
    rounds = 0
    with Client(cluster.address, timeout=60) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        killer.start()
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                first = rounds * LEAVES
                expected = sum(range(first, first + LEAVES))
                result = map_reduce(client, first).result(timeout=ROUND_TIMEOUT)
                if result.shape != (SIZE,) or not (result == expected).all():
                    raise SystemExit(f"round {rounds}: a sum is {result[:3]}…, not {expected}")
                rounds += 1
        except TimeoutError:
            raise SystemExit(f"round {rounds} did not end within {ROUND_TIMEOUT} s\n{cluster.logs()}") from None
        finally:
            killer.done.set()
            killer.join(30)
    if not rounds:
        raise SystemExit("no round was finished")
    return rounds


if __name__ == "__main__":
    sys.exit(main())
