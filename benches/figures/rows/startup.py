"""What a scheduler costs before anything uses it."""

from __future__ import annotations

import time

from ..metric import Metric, at_most
from ..side import Side, cluster

SENTENCE = "Start of the scheduler, and its memory and CPU while nothing happens"

METRICS = [
    Metric("start to open port", "ms", **at_most(20, "ms")),
    Metric("idle memory", "MB", **at_most(12, "MB")),
    Metric("idle CPU", "%", **at_most(0.1, "%")),
]

#: Seconds over which the idle CPU is taken.
IDLE = 5


def measure(side: Side) -> dict[str, float]:
    with cluster(side) as started:
        time.sleep(2)  # what a start leaves to do
        usage = started.scheduler_usage
        before, start = usage.cpu() + usage.cpu_below(), time.perf_counter()
        time.sleep(IDLE)
        idle = (usage.cpu() + usage.cpu_below() - before) / (time.perf_counter() - start)
        return {
            "start to open port": started.start_seconds * 1e3,
            "idle memory": usage.rss() / 1e6,
            "idle CPU": idle * 100,
        }
