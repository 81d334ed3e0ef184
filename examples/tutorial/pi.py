"""Monte-Carlo pi on more and more workers: the tutorial's second experiment.

    python examples/tutorial/pi.py SCHEDULER_IP NODES CORES

gives each node one task, as the tutorial does; ``--tasks`` gives as many as are asked for, so that cores count too.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from distributed import Client
from scale_cluster import init_cluster, kill_cluster


def hits(seed: int, points: int) -> int:
    """Random points of the unit square that lie within the quarter circle."""
    generator = np.random.default_rng(seed)
    return int(((generator.random((points, 2)) ** 2).sum(axis=1) < 1).sum())


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("scheduler_ip")
    arguments.add_argument("nodes", nargs="?", default="1")
    arguments.add_argument("cores", nargs="?", default="1")
    arguments.add_argument("--points", type=int, default=20_000_000)
    arguments.add_argument("--tasks", type=int, help="instead of one for each node")
    options = arguments.parse_args()
    address = init_cluster(options.scheduler_ip, options.nodes, options.cores)
    try:
        with Client(address) as client:
            client.wait_for_workers(int(options.nodes))
            tasks = options.tasks or int(options.nodes)
            points = options.points // tasks
            start = time.perf_counter()
            total = sum(client.gather(client.map(hits, range(tasks), points=points)))
            seconds = time.perf_counter() - start
            pi = 4 * total / (points * tasks)
            print(f"nodes={options.nodes} cores={options.cores} pi={pi:.5f} seconds={seconds:.3f}")
    finally:
        kill_cluster(options.scheduler_ip)


if __name__ == "__main__":
    main()
