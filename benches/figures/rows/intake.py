"""CPU of taking a graph in: scheduler and helper together, no workers.

Our side pickles each node as it comes in. The stock scheduler does so only when it sends the
task, so the same pickling is measured here and added to its side.
"""

from __future__ import annotations

import operator
import time

from dask._task_spec import Task
from distributed import Client
from distributed.protocol.pickle import dumps

from clusters import wait_until

from .. import workloads
from ..metric import Metric, times_better
from ..side import Cluster, Side, cluster, connected
from ..usage import settled

SENTENCE = "Graph intake without workers, CPU of scheduler and helper per task"

METRICS = [
    Metric("map 10,000 by value", "µs/task", **times_better(1)),
    Metric("map 10,000 by reference", "µs/task", **times_better(1)),
    Metric("merge 1,000", "µs/task", **times_better(1)),
    Metric("merge 8,000", "µs/task", **times_better(1)),
    Metric("merge 8,000 / 1,000", "ratio", "≤ 1.3 (linear)", lambda ours, _: ours <= 1.3),
]


def measure(side: Side) -> dict[str, float]:
    pickles = side.label == "stock"
    with cluster(side) as started, connected(started, 0) as client:
        intake(client, started, workloads.map_by_value, 100)
        value = intake(client, started, workloads.map_by_value, 10_000)
        reference = intake(client, started, workloads.map_by_reference, 10_000)
        small = intake(client, started, workloads.merge, 1_000)
        large = intake(client, started, workloads.merge, 8_000)
    return {
        "map 10,000 by value": value + pickles * pickling(workloads.by_value()),
        "map 10,000 by reference": reference + pickles * pickling(operator.neg),
        "merge 1,000": small + pickles * pickling(operator.neg),
        "merge 8,000": large + pickles * pickling(operator.neg),
        "merge 8,000 / 1,000": large / small,
    }


def intake(client: Client, started: Cluster, graph, count: int) -> float:
    """CPU µs per task until all tasks are known and the processes are quiet again."""
    usage = started.scheduler_usage
    settled(usage)
    before = usage.cpu() + usage.cpu_below()
    futures, tasks = graph(client, count)
    key = futures[-1].key

    def known() -> bool:
        status = client.sync(client.scheduler.get_task_status, keys=[key])
        return status[key] not in (None, "released")

    wait_until(known, seconds=300)
    settled(usage)
    spent = usage.cpu() + usage.cpu_below() - before
    client.cancel(futures)
    return spent / tasks * 1e6


def pickling(function) -> float:
    """CPU µs of pickling one task as the stock scheduler does when it sends it."""
    count = 2_000
    tasks = [Task(f"inc-{number}", function, number) for number in range(count)]
    start = time.process_time()
    for task in tasks:
        dumps(task)
    return (time.process_time() - start) / count * 1e6
