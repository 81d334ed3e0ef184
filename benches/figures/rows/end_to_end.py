"""A map with the scheduler and the worker of one side: what a stock client gets out of it, and who pays."""

from __future__ import annotations

import time

from distributed import wait

from .. import workloads
from ..metric import Metric, times_better
from ..side import Side, cluster, connected

SENTENCE = "Map of 10,000 on one worker of one thread, scheduler and worker of one side: throughput, and CPU per task"

COUNT = 10_000

METRICS = [
    Metric("throughput", "tasks/s", **times_better(15, higher_is_better=True)),
    Metric("seconds in Client.map", "s"),
    Metric("client", "µs/task"),
    Metric("scheduler", "µs/task"),
    Metric("helper", "µs/task"),
    Metric("worker", "µs/task"),
]


def measure(side: Side) -> dict[str, float]:
    with cluster(side) as started:
        started.start_worker()
        with connected(started, 1) as client:
            wait(workloads.map_by_value(client, 200)[0])
            scheduler, worker = started.scheduler_usage, started.worker_usages[0]

            def used() -> list[float]:
                return [
                    time.process_time(),
                    scheduler.cpu(),
                    scheduler.cpu_below(),
                    worker.cpu() + worker.cpu_below(),
                ]

            before, start = used(), time.perf_counter()
            futures, tasks = workloads.map_by_value(client, COUNT)
            mapped = time.perf_counter() - start
            wait(futures)
            client.gather(futures)
            seconds, after = time.perf_counter() - start, used()
    client_cpu, *servers = ((b - a) / tasks * 1e6 for a, b in zip(before, after, strict=True))
    return {
        "throughput": tasks / seconds,
        "seconds in Client.map": mapped,
        "client": client_cpu,
        **dict(zip(("scheduler", "helper", "worker"), servers, strict=True)),
    }
