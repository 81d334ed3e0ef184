"""`python -m tutorial ADDRESS`: runs the programs on a cluster, one line of JSON for each."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from distributed import Client

from . import arrays, bags, dataframes, learning, tasks
from .program import Context, Program

MODULES = [tasks, arrays, dataframes, bags, learning]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tutorial", description=__doc__)
    parser.add_argument("address", help="of the scheduler, as tcp://127.0.0.1:8786")
    parser.add_argument("--size", choices=["small", "full"], default="full")
    parser.add_argument("--workers", type=int, default=1, help="wait for this many first")
    parser.add_argument("--only", default="", help="programs whose name contains this")
    parser.add_argument("--limit", type=int, default=300, help="seconds for each program")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")

    failed = 0
    with Client(args.address, timeout=30) as client, tempfile.TemporaryDirectory() as folder:
        client.wait_for_workers(args.workers, timeout=60)
        programs = [
            value
            for module in MODULES
            for value in vars(module).values()
            if isinstance(value, Program) and args.only in value.name
        ]
        for number, program in enumerate(programs):
            own = Path(folder) / str(number)
            own.mkdir()
            row = run(program, Context(client, args.size, own), args.limit)
            print(json.dumps(row), flush=True)
            failed += not row["ok"]
    return 1 if failed else 0


def run(program: Program, context: Context, limit: int) -> dict:
    """The row of a program; a program that hangs fails after `limit` seconds."""

    def out_of_time(*_: object) -> None:
        raise RuntimeError(f"no result after {limit} s")

    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(limit)
    start = time.perf_counter()
    try:
        result, ok = program.run(context), True
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        result, ok = f"{type(error).__name__}: {error}"[:300], False
    finally:
        signal.alarm(0)
    return {
        "name": program.name,
        "ok": ok,
        "result": " ".join(result.split()),
        "seconds": time.perf_counter() - start,
    }


if __name__ == "__main__":
    sys.exit(main())
