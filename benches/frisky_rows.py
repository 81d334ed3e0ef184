#!/usr/bin/env python3
"""What another scheduler with workers in Rust, `frisky`, does with the programs of our rows, with its own client.

Run by a Python that has frisky, dask, distributed and psutil: `python benches/frisky_rows.py --rounds 5`. Where frisky
cannot run a program, its row says with what it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import operator
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "e2e" / "python"))

from clusters import Cluster
from figures import workloads
from figures.paired import limited
from figures.usage import Usage

FRISKY = str(Path(sys.executable).parent / "frisky")
COUNT = 10_000


@contextlib.contextmanager
def cluster(program: str) -> Iterator[tuple[Cluster, str]]:
    scheduler = f"{program} scheduler --address {{host}}:{{port}} --no-dashboard"
    with Cluster(scheduler, f"{program} worker {{scheduler}} --nthreads {{nthreads}}") as started:
        started.address = started.address.removeprefix("tcp://")
        yield started, started.address


def connected(address: str):
    import frisky

    return frisky.Client(address)


def run(client, started: Cluster, make: Callable, count: int) -> tuple[float, float]:
    """Tasks per second, and microseconds of the worker's CPU per task."""
    usage = Usage(started.processes[1].pid)
    before, start = usage.cpu() + usage.cpu_below(), time.perf_counter()
    futures, tasks = make(client, count)
    client.gather(futures)
    seconds = time.perf_counter() - start
    return tasks / seconds, (usage.cpu() + usage.cpu_below() - before) / tasks * 1e6


def submitted(client, count: int) -> tuple[list, int]:
    return client.map(workloads.by_value(), range(count)), count


def measure(program: str) -> dict[str, float]:
    values: dict[str, float] = {}
    begin = time.perf_counter()
    with cluster(program) as (started, address):
        started.start_worker()
        client = connected(address)
        client.gather([client.submit(operator.neg, 1)])
        values["start to first task, s"] = time.perf_counter() - begin
        client.gather(submitted(client, 200)[0])
        for name, make in (("map", submitted), ("tree", workloads.tree)):
            try:
                speed, cpu = run(client, started, make, COUNT)
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                continue
            values[f"{name} 10,000, tasks/s"], values[f"{name} 10,000, worker µs/task"] = speed, cpu
        times = []
        for number in range(50):
            time.sleep(0.05)
            start = time.perf_counter()
            client.gather([client.submit(operator.neg, number + 1_000_000)])
            times.append(time.perf_counter() - start)
        values["submit to result, ms"] = statistics.median(times) * 1e3
        client.close()
    with cluster(program) as (started, _):
        started.start_worker()
        time.sleep(10)
        values["idle worker, MB"] = Usage(started.processes[1].pid).pss_of_all() / 1e6
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=FRISKY, help="frisky's command line")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rounds = []
    for number in range(args.rounds):
        with limited(120):
            rounds.append(measure(args.program))
        print(
            f"round {number + 1}:", "  ".join(f"{name} {value:.4g}" for name, value in rounds[-1].items()), flush=True
        )
    print("\n| what | median | from – to |\n|---|---|---|")
    for name in rounds[0]:
        values = sorted(one[name] for one in rounds if name in one)
        print(f"| {name} | {statistics.median(values):.4g} | {values[0]:.4g} – {values[-1]:.4g} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
