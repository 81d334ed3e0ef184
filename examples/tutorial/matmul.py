"""Matrix multiplication on more and more workers: the tutorial's first experiment.

    python examples/tutorial/matmul.py SCHEDULER_IP NODES CORES

starts a cluster with `scale_cluster`, multiplies two matrices of whole ones, and prints the seconds. The product is one
chunk, hence one task, so neither nodes nor cores make it faster; ``--chunks`` cuts the matrices and changes that.
"""

from __future__ import annotations

import argparse
import time

import dask.array as da
from distributed import Client
from scale_cluster import init_cluster, kill_cluster


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("scheduler_ip")
    arguments.add_argument("nodes", nargs="?", default="1")
    arguments.add_argument("cores", nargs="?", default="1")
    arguments.add_argument(
        "--chunks", type=int, help="rows and columns of a chunk, instead of one chunk for each matrix"
    )
    options = arguments.parse_args()
    address = init_cluster(options.scheduler_ip, options.nodes, options.cores)
    try:
        with Client(address) as client:
            client.wait_for_workers(int(options.nodes))
            chunks = (options.chunks, options.chunks) if options.chunks else -1
            left = da.ones((1000, 2000), dtype=int, chunks=chunks)
            right = da.ones((2000, 1000), dtype=int, chunks=chunks)
            start = time.perf_counter()
            product = da.matmul(left, right).compute()
            seconds = time.perf_counter() - start
            assert (product == 2000).all()
            print(f"nodes={options.nodes} cores={options.cores} seconds={seconds:.3f}")
    finally:
        kill_cluster(options.scheduler_ip)


if __name__ == "__main__":
    main()
