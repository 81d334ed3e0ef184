"""`python -m versions [--scheduler CMD] [--worker CMD]`, run by the interpreter of the version: one line for each part.

A command that is not given is that of stock dask of this interpreter.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import distributed
from distributed import Client

from clusters import Cluster

from .smoke import PARTS

STOCK = f"{sys.executable} -m distributed.cli"


def main() -> int:
    parser = argparse.ArgumentParser(prog="versions", description=__doc__)
    parser.add_argument("--scheduler", help="command with {host} {port}")
    parser.add_argument("--worker", help="command with {scheduler} {host} {nthreads} {name}")
    parser.add_argument("--tutorial", action="store_true", help="the programs of the tutorial too, small")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    scheduler = args.scheduler or f"{STOCK}.dask_scheduler --host {{host}} --port {{port}} --no-dashboard"
    worker = args.worker or (
        f"{STOCK}.dask_worker {{scheduler}} --no-nanny --host {{host}} --nthreads {{nthreads}} "
        "--name {name} --no-dashboard"
    )
    ours = ["scheduler"] * bool(args.scheduler) + ["worker"] * bool(args.worker)
    title = f"distributed {distributed.__version__}, ours: {' and '.join(ours) or 'nothing'}"
    failed = ran = 0
    with Cluster(scheduler, worker) as cluster:
        for name in ("a", "b"):
            cluster.start_worker(name=name, nthreads=2)
        with Client(cluster.address, timeout=60) as client, tempfile.TemporaryDirectory() as folder:
            client.wait_for_workers(2, timeout=60)
            parts = {part.__name__: functools.partial(part, client) for part in PARTS}
            if args.tutorial:
                # First, since the last of the smoke run takes a worker away.
                parts = programs(client, Path(folder)) | parts
            for name, part in parts.items():
                start, ran = time.perf_counter(), ran + 1
                try:
                    part()
                except Exception:
                    failed += 1
                    traceback.print_exc()
                    print(f"FAILED {name}", flush=True)
                else:
                    print(f"{name}: {time.perf_counter() - start:.2f} s", flush=True)
        if failed:
            print(cluster.logs())
    print(f"{title}: {ran - failed} passed, {failed} failed")
    return 1 if failed else 0


def programs(client: Client, folder: Path) -> dict[str, Callable[[], object]]:
    """The programs of the tutorial by name, each with a folder of its own."""
    from tutorial.__main__ import MODULES
    from tutorial.program import Context, Program

    found = [value for module in MODULES for value in vars(module).values() if isinstance(value, Program)]
    parts = {}
    for number, program in enumerate(found):
        own = folder / str(number)
        own.mkdir()
        parts[program.name] = functools.partial(program.run, Context(client, "small", own))
    return parts


if __name__ == "__main__":
    sys.exit(main())
