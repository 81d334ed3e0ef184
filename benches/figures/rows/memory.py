"""Memory of the scheduler process for tasks that wait, without workers."""

from __future__ import annotations

from clusters import wait_until

from .. import workloads
from ..metric import Metric, at_most
from ..side import Side, cluster, connected
from ..usage import settled

SENTENCE = "Growth of the scheduler's memory from update-graph to all tasks waiting, no workers"

METRICS = [
    Metric("100,000 tasks", "kB/task", **at_most(0.6, "kB")),
    Metric("1,000,000 tasks", "kB/task", **at_most(0.6, "kB")),
    Metric("all of 1,000,000 tasks", "MB", **at_most(700, "MB")),
]

#: The million takes minutes and gigabytes on the stock side, which is left without it.
SIZES = {"ours": (100_000, 1_000_000), "stock": (100_000,)}
QUICK = (100_000,)


def measure(side: Side, sizes: tuple[int, ...] | None = None) -> dict[str, float]:
    sizes = sizes or SIZES[side.label]
    values: dict[str, float] = {}
    for size in sizes:
        with cluster(side) as started, connected(started, 0) as client:
            workloads.map_by_reference(client, 10)
            settled(started.scheduler_usage)
            before = started.scheduler_usage.rss()
            futures, _ = workloads.map_by_reference(client, size)
            keys = [futures[0].key, futures[-1].key]

            def known(client=client, keys=keys) -> bool:
                status = client.sync(client.scheduler.get_task_status, keys=keys)
                return not {None, "released"} & set(status.values())

            wait_until(known, seconds=600)
            settled(started.scheduler_usage)
            after = started.scheduler_usage.rss()
            values[f"{size:,} tasks"] = (after - before) / size / 1e3
            if size == 1_000_000:
                values["all of 1,000,000 tasks"] = after / 1e6
            del futures
    return values


def measure_quick(side: Side) -> dict[str, float]:
    return measure(side, QUICK)
