"""Measures one of the rows; `cargo xtask bench operator` calls this where the API server can be reached."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys

from figures import paired, report
from figures.metric import Metric, at_most

from . import measure, on_kind
from .api import Api
from .fake_nodes import PODS_PER_NODE, fake_nodes
from .side import Side


def seconds(name: str, limit: float | None = None) -> Metric:
    return Metric(name, "s", **(at_most(limit, "s") if limit else {}))


def many(limits: dict[str, float]) -> list[Metric]:
    return [
        seconds("clusters created"),
        seconds("all children", limits["children"]),
        seconds("all pods run"),
        seconds("CPU until then", limits.get("cpu")),
        Metric("peak memory", "MB", **at_most(limits["memory"], "MB")),
        Metric("reconcile p50", "ms"),
        Metric("reconcile p99", "ms"),
        Metric("writes a minute at rest", "", **at_most(0, "")),
        Metric("CPU at rest", "%"),
        seconds("all children gone"),
    ]


#: Name: sentence, metrics, function, clusters, workers of each, seconds that a step may take.
ROWS = {
    "many": (
        "50 clusters of 10 workers",
        many({"children": 5, "cpu": 1.5, "memory": 40}),
        measure.many, 50, 10, 400,
    ),
    "thousand": (
        "1,000 clusters of 10 workers",
        many({"children": 60, "memory": 128}),
        measure.many, 1000, 10, 1200,
    ),
    "restart": (
        "An operator that starts beside 50 clusters of 10 workers",
        [seconds("until nothing is left to do"), seconds("CPU until then"), Metric("writes until then", "")],
        measure.restart, 50, 10, 400,
    ),
    "growing": (
        "One cluster from no worker to 2,000",
        [*map(seconds, ["all workers created", "all workers run", "CPU until then"]), Metric("peak memory", "MB")],
        measure.growing, None, 2000, 900,
    ),
    "kube_cluster": (
        "KubeCluster with real pods, from its creation through its scalings",
        [
            Metric("object to Deployment", "ms", **at_most(100, "ms")),
            seconds("KubeCluster ready"),
            seconds("1 → 6 connected", 3),
            seconds("4 → 1"),
            Metric("computed again", "", **at_most(0, "")),
        ],
        on_kind.kube_cluster, None, 6, 120,
    ),
}  # fmt: skip


def main() -> int:
    args = arguments()
    sentence, metrics, function, clusters, workers, deadline = ROWS[args.row]
    clusters, workers = args.clusters or clusters, args.workers or workers
    size = {"workers": workers, "deadline": deadline} | ({"clusters": clusters} if clusters else {})
    api = Api()
    ours = Side.ours(args.operator)
    nodes = -(-(clusters or 1) * (workers + 1) * 11 // 10 // PODS_PER_NODE)
    real = args.row == "kube_cluster"
    with contextlib.nullcontext() if real else fake_nodes(api, args.kwok, args.kwok_module, nodes):
        once = functools.partial(function, api, **size)
        if args.ours_alone:
            comparisons = paired.alone(ours, metrics, once, args.rounds)
        else:
            part = report.RESULTS / f"operator_{args.row}.part.json" if args.resume else None
            comparisons = paired.compare(ours, Side.stock(), metrics, once, args.rounds, part)
            if part:
                part.unlink()
    print(f"\n{sentence}\n{report.table(comparisons)}")
    if args.write:
        command = "cargo xtask bench operator " + " ".join(args.said)
        print(f"\nwritten to {report.write(f'operator_{args.row}', sentence, command, comparisons)}")
    print(json.dumps({one.metric.name: [one.ours, one.stock] for one in comparisons}))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--operator", required=True, help="our program")
    parser.add_argument("--kwok", required=True, help="its program")
    parser.add_argument("--kwok-module", required=True, help="folder of its module, which has its stages")
    parser.add_argument("--clusters", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ours-alone", action="store_true", help="where the stock operator does not come to an end")
    parser.add_argument(
        "--resume", action="store_true", help="keep whole rounds, and go on after those of a run cut off"
    )
    parser.add_argument("--write", action="store_true", help="write benches/results/operator_ROW.md")
    args = parser.parse_args()
    from_xtask = {"--operator", "--kwok", "--kwok-module", args.operator, args.kwok, args.kwok_module}
    args.said = [word for word in sys.argv[1:] if word not in from_xtask]
    return args


if __name__ == "__main__":
    sys.exit(main())
