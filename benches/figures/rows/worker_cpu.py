"""CPU of a worker per trivial Python task, worker and executor together, where nothing else is slow."""

from __future__ import annotations

from distributed import Client, wait

from .. import workloads
from ..metric import Metric, at_most
from ..side import Cluster, Side, cluster, connected

SENTENCE = "CPU of one real worker (all its processes) per trivial Python task, one thread"

GRAPHS = {
    "map 10,000": (workloads.map_by_value, 10_000),
    "tree 10,000": (workloads.tree, 10_000),
}

#: Stock runs a part of the tasks: what one costs is the same, and it takes a minute for all.
STOCK_SHARE = 4

METRICS = [Metric(name, "µs/task", **at_most(60, "µs")) for name in GRAPHS]


def measure(side: Side) -> dict[str, float]:
    with cluster(side) as started:
        started.start_worker()
        with connected(started, 1) as client:
            wait(workloads.map_by_value(client, 200)[0])
            share = 1 if side.label == "ours" else STOCK_SHARE
            return {name: run(client, started, make, count // share) for name, (make, count) in GRAPHS.items()}


def run(client: Client, started: Cluster, graph, count: int) -> float:
    usage = started.worker_usages[0]
    before = usage.cpu() + usage.cpu_below()
    futures, tasks = graph(client, count)
    wait(futures)
    client.gather(futures)
    return (usage.cpu() + usage.cpu_below() - before) / tasks * 1e6
