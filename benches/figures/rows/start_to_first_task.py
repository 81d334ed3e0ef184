"""From nothing to the result of a first task, with supervision: scheduler, worker and client start."""

from __future__ import annotations

import operator
import os
import signal
import time

from ..metric import Metric, times_better
from ..side import Cluster, Side, cluster, connected

SENTENCE = "From the start of scheduler and supervised worker to the first result; restart after a crash"

METRICS = [
    Metric("start to first task", "s", **times_better(3.5)),
    Metric("worker start to first task", "s"),
    Metric("killed to next task", "s"),
    Metric("Client.restart to next task", "s"),
]


def measure(side: Side) -> dict[str, float]:
    return {**start(side), **recover(side)}


def supervised(started: Cluster) -> None:
    started.start_worker(command=started.worker_command.replace("--no-nanny", "--nanny"))


def start(side: Side) -> dict[str, float]:
    begin = time.perf_counter()
    with cluster(side) as started:
        worker = time.perf_counter()
        supervised(started)
        with connected(started, 0) as client:
            client.submit(operator.neg, 1, pure=False).result(timeout=60)
            first = time.perf_counter()
    return {"start to first task": first - begin, "worker start to first task": first - worker}


def recover(side: Side) -> dict[str, float]:
    """In a cluster that has come to rest; a stock nanny may miss the death of a worker that has only just come."""
    with cluster(side) as started:
        supervised(started)
        with connected(started, 1) as client:
            pid = client.submit(os.getpid, pure=False).result(timeout=60)
            time.sleep(1)
            killed = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            client.submit(operator.neg, 2, pure=False).result(timeout=60)
            recovered = time.perf_counter()
            client.restart(timeout=60)
            client.submit(operator.neg, 3, pure=False).result(timeout=60)
            restarted = time.perf_counter()
    return {"killed to next task": recovered - killed, "Client.restart to next task": restarted - recovered}
