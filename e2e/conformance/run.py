#!/usr/bin/env python3
"""Runs dask's and distributed's own tests on processes started by any two commands.

Exits with an error when a test fails that is not in known-failures.txt, or when one of those
passes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import known_failures
import tree
from session import HERE, PYTHON, Session

sys.path.append(str(PYTHON))

from clusters import stock


def main() -> int:
    args = arguments()
    start = time.monotonic()
    ids = wanted_ids(args)
    folder = Path(tempfile.mkdtemp(prefix="conformance-run-"))
    tree.lay_out(folder / "tree", args.distributed_tests)
    with stock.template(folder) as template:
        session = Session(
            tree=folder / "tree",
            scheduler=args.scheduler or template.scheduler,
            worker=args.worker or template.worker,
            jobs=args.jobs,
            timeout=args.timeout,
            deadline=start + args.limit,
            log=folder / "pytest.log",
            expression=args.expression,
        )
        records = session.run(ids)
    if args.out:
        args.out.write_text(json.dumps(records, indent=1))
    if args.expression:
        ids = [i for i in ids if i in records]
    missing = {"outcome": "notrun", "why": "not collected, or out of time"}
    passed = {i for i in ids if records.get(i, missing)["outcome"] == "passed"}
    failed = set(ids) - passed
    for test in sorted(failed):
        record = records.get(test, missing)
        print(f"{record['outcome']}: {test}\n    " + "\n    ".join(record["why"][-600:].splitlines()))
    complaints = known_failures.compare(known_failures.read(args.known), passed, failed)
    if not passed:
        complaints.append("no test passed")
    for complaint in complaints:
        print(complaint)
    print(f"\n{len(ids)} ids in {time.monotonic() - start:.0f} s")
    print(f"conformance: {len(passed)} passed, {len(failed)} failed")
    if complaints:
        print(f"the log of pytest is {session.log}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scheduler", help="command with {host} {port}; stock without it")
    parser.add_argument(
        "--worker",
        help="command with {scheduler} {host} {nthreads} {name} {resources}; stock without it",
    )
    parser.add_argument(
        "--distributed-tests",
        type=Path,
        metavar="PATH",
        help=f"git directory of dask/distributed with commit {tree.COMMIT}, or a folder that "
        "holds its distributed/; without it only dask's tests run",
    )
    parser.add_argument("--ids", type=Path, default=HERE / "ids.txt", help="file of test ids")
    parser.add_argument("--known", type=Path, default=HERE / "known-failures.txt")
    parser.add_argument("-k", dest="expression", help="as pytest has it")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=30, help="seconds for one test")
    parser.add_argument("--limit", type=int, default=1800, help="seconds for everything")
    parser.add_argument("--out", type=Path, help="write a record for each test, as JSON")
    return parser.parse_args()


def wanted_ids(args: argparse.Namespace) -> list[str]:
    lines = [line.strip() for line in args.ids.read_text().splitlines()]
    ids = [line for line in lines if line and not line.startswith("#")]
    if args.distributed_tests is None:
        ids = [i for i in ids if i.startswith("dask/")]
    return ids


if __name__ == "__main__":
    sys.exit(main())
