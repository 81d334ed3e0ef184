"""From nothing to the result of a first task, with supervision: scheduler, worker and client start."""

from __future__ import annotations

import operator
import os
import signal
import time

from ..metric import Metric, times_better
from ..side import Side, cluster, connected

SENTENCE = "From the start of scheduler and supervised worker to the first result; restart after a crash"

METRICS = [
    Metric("start to first task", "s", **times_better(3.5)),
    Metric("worker start to first task", "s", **times_better(3.5)),
    Metric("killed to next task", "s"),
    Metric("Client.restart to next task", "s"),
]


def measure(side: Side) -> dict[str, float]:
    start = time.perf_counter()
    with cluster(side) as started:
        worker = time.perf_counter()
        started.start_worker(command=side.worker.replace("--no-nanny", "--nanny"))
        with connected(started, 0) as client:
            client.submit(operator.neg, 1, pure=False).result()
            first = time.perf_counter()
            pid = client.submit(os.getpid, pure=False).result()
            killed = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            client.submit(operator.neg, 2, pure=False).result()
            recovered = time.perf_counter()
            client.restart()
            client.submit(operator.neg, 3, pure=False).result()
            restarted = time.perf_counter()
    return {
        "start to first task": first - start,
        "worker start to first task": first - worker,
        "killed to next task": recovered - killed,
        "Client.restart to next task": restarted - recovered,
    }
