#!/usr/bin/env python3
"""Measures rows of the figures: ours against stock Dask in the same run, alternating.

`cargo xtask bench NAME` builds our programs and calls this.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pkgutil
import signal
import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "e2e" / "python"))

from figures import paired, report, rows
from figures.side import Side


def main() -> int:
    args = arguments()
    names = sorted(module.name for module in pkgutil.iter_modules(rows.__path__))
    if not args.name:
        for name in names:
            print(f"{name:<16} {row(name).SENTENCE}")
        return 0
    if args.name not in [*names, "all"]:
        print(f"no row is called {args.name}; rows: {', '.join(names)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    stock = Side.stock()
    compared = bool(args.scheduler or args.worker)
    ours = Side.ours(args.scheduler, args.worker) if compared else stock
    for name in names if args.name == "all" else [args.name]:
        module = row(name)
        measure = getattr(module, "measure_quick", module.measure) if args.quick else module.measure
        part = report.RESULTS / f"{name}.part.json" if args.resume else None
        comparisons = paired.compare(ours, stock, module.METRICS, measure, args.rounds, part)
        if part:
            part.unlink()
        print(f"\n{module.SENTENCE}\n{report.table(comparisons)}")
        if compared and args.rounds >= 5 and not args.quick:
            command = f"cargo xtask bench {name}"
            print(f"\nwritten to {report.write(name, module.SENTENCE, command, comparisons)}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", help="a row, or `all`; they are listed without it")
    parser.add_argument("--scheduler", help="our program; without any of ours, stock meets stock")
    parser.add_argument("--worker", help="our program")
    parser.add_argument("--rounds", type=int, default=5, help="of both sides")
    parser.add_argument(
        "--resume", action="store_true", help="keep whole rounds, and go on after those of a run cut off"
    )
    parser.add_argument("--quick", action="store_true", help="leave the longest parts out")
    return parser.parse_args()


def row(name: str):
    return importlib.import_module(f"figures.rows.{name}")


if __name__ == "__main__":
    sys.exit(main())
