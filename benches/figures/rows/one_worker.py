"""A map on one real worker with one thread and default settings."""

from __future__ import annotations

import time

from distributed import wait

from .. import workloads
from ..metric import Metric, at_most, times_better
from ..side import Side, cluster, connected

SENTENCE = "Map of 10,000 on one stock worker: throughput, and CPU of scheduler and worker per task"

COUNT = 10_000

METRICS = [
    Metric("throughput", "tasks/s", **times_better(3, higher_is_better=True)),
    Metric("scheduler", "µs/task", **at_most(35, "µs")),
    Metric("helper", "µs/task"),
    Metric("worker", "µs/task"),
    Metric("client", "µs/task"),
]


def measure(side: Side) -> dict[str, float]:
    with cluster(side.with_stock_workers()) as started:
        started.start_worker()
        with connected(started, 1) as client:
            wait(workloads.map_by_value(client, 200)[0])
            scheduler, worker = started.scheduler_usage, started.worker_usages[0]
            before = scheduler.cpu(), scheduler.cpu_below(), worker.cpu() + worker.cpu_below()
            start, own = time.perf_counter(), time.process_time()
            futures, tasks = workloads.map_by_value(client, COUNT)
            wait(futures)
            client.gather(futures)
            seconds, own = time.perf_counter() - start, time.process_time() - own
            after = scheduler.cpu(), scheduler.cpu_below(), worker.cpu() + worker.cpu_below()
    per_task = [(b - a) / tasks * 1e6 for a, b in zip(before, after, strict=True)]
    return {
        "throughput": tasks / seconds,
        "scheduler": per_task[0],
        "helper": per_task[1],
        "worker": per_task[2],
        "client": own / tasks * 1e6,
    }
