"""Memory of a worker with its supervision while it has nothing to do."""

from __future__ import annotations

import operator
import time

from ..metric import Metric, at_most
from ..side import Side, cluster, connected

SENTENCE = "Memory of one supervised worker (all its processes) after ten seconds without tasks"

#: Seconds without tasks before memory is looked at.
IDLE = 10

METRICS = [
    Metric("before a task", "MB", **at_most(40, "MB")),
    Metric("after a trivial task", "MB", **at_most(40, "MB")),
]


def measure(side: Side) -> dict[str, float]:
    with cluster(side) as started:
        started.start_worker(command=side.worker.replace("--no-nanny", "--nanny"))
        with connected(started, 1) as client:
            usage = started.worker_usages[0]
            time.sleep(IDLE)
            before = usage.pss_of_all()
            client.submit(operator.neg, 1, pure=False).result()
            time.sleep(IDLE)
            return {"before a task": before / 1e6, "after a trivial task": usage.pss_of_all() / 1e6}
