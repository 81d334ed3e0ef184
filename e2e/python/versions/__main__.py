"""`python -m versions [--scheduler CMD] [--worker CMD]`, run by the interpreter of the version: one line for each part.

A command that is not given is that of stock dask of this interpreter.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings

import distributed
from distributed import Client

from clusters import Cluster

from .smoke import PARTS

STOCK = f"{sys.executable} -m distributed.cli"


def main() -> int:
    parser = argparse.ArgumentParser(prog="versions", description=__doc__)
    parser.add_argument("--scheduler", help="command with {host} {port}")
    parser.add_argument("--worker", help="command with {scheduler} {host} {nthreads} {name}")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    scheduler = args.scheduler or f"{STOCK}.dask_scheduler --host {{host}} --port {{port}} --no-dashboard"
    worker = args.worker or (
        f"{STOCK}.dask_worker {{scheduler}} --no-nanny --host {{host}} --nthreads {{nthreads}} "
        "--name {name} --no-dashboard"
    )
    ours = ["scheduler"] * bool(args.scheduler) + ["worker"] * bool(args.worker)
    title = f"distributed {distributed.__version__}, ours: {' and '.join(ours) or 'nothing'}"
    failed = 0
    with Cluster(scheduler, worker) as cluster:
        for name in ("a", "b"):
            cluster.start_worker(name=name, nthreads=2)
        with Client(cluster.address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            for part in PARTS:
                start = time.perf_counter()
                try:
                    part(client)
                except Exception:
                    failed += 1
                    traceback.print_exc()
                    print(f"FAILED {part.__name__}", flush=True)
                else:
                    print(f"{part.__name__}: {time.perf_counter() - start:.2f} s", flush=True)
        if failed:
            print(cluster.logs())
    print(f"{title}: {len(PARTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
