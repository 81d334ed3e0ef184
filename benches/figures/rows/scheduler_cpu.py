"""Scheduler CPU per task where workers cost nothing: 24 slots that answer at once."""

from __future__ import annotations

from distributed import Client, wait

from .. import workloads
from ..metric import Metric, at_most
from ..side import ZERO_WORKERS, Cluster, Side, cluster, connected

SENTENCE = "Scheduler CPU per task, workers that answer at once, 24 slots"

GRAPHS = {
    "map 4,000": (workloads.map_by_value, 4_000),
    "map 10,000": (workloads.map_by_value, 10_000),
    "tree 4,000": (workloads.tree, 4_000),
    "tree 10,000": (workloads.tree, 10_000),
}

METRICS = [
    *(Metric(name, "µs/task", **at_most(6, "µs")) for name in GRAPHS),
    *(Metric(f"helper, {name}", "µs/task") for name in GRAPHS),
]


def measure(side: Side) -> dict[str, float]:
    values: dict[str, float] = {}
    with cluster(side) as started:
        started.start_worker(command=ZERO_WORKERS)
        with connected(started, 24) as client:
            run(client, started, *GRAPHS["map 4,000"])  # imports, first-time allocations
            for name, (graph, count) in GRAPHS.items():
                values[name], values[f"helper, {name}"] = run(client, started, graph, count)
    return values


def run(client: Client, started: Cluster, graph, count: int) -> tuple[float, float]:
    """CPU µs per task from submit to gathered results, of the scheduler and of its helpers."""
    usage = started.scheduler_usage
    own, below = usage.cpu(), usage.cpu_below()
    futures, tasks = graph(client, count)
    wait(futures)
    client.gather(futures)
    own, below = usage.cpu() - own, usage.cpu_below() - below
    return own / tasks * 1e6, below / tasks * 1e6
