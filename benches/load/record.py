"""Records what a stock client sends for the graphs of the load, for fakes to send it again.

`python record.py FOLDER`: one file per graph with the message as it goes over the wire, and `versions`, what a stock
peer says of itself when it registers. Keys hold `XXXXXXXX` where each run puts a name of its own.
"""

from __future__ import annotations

import operator
import struct
import sys
from pathlib import Path

from distributed import Client, LocalCluster
from distributed.protocol import dumps
from distributed.utils import nbytes
from distributed.versions import get_versions

#: Tasks of each map.
MAPS = {"map-500": 500, "map-100k": 100_000, "map-1m": 1_000_000}

#: Results of `large-*`, which the fakes make large.
LARGE = 40


def keys(name: str, count: int) -> list[str]:
    return [f"{name}-XXXXXXXX-{number}" for number in range(count)]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "versions", get_versions())
    cluster = LocalCluster(n_workers=0, processes=False, dashboard_address=None)
    with cluster, Client(cluster) as client:
        sent: list[dict] = []
        client._send_to_scheduler = lambda message: sent.append(message)

        def record(name: str) -> None:
            graphs = [message for message in sent if message["op"] == "update-graph"]
            assert len(graphs) == 1, name
            write(folder / name, graphs)
            sent.clear()

        for name, count in MAPS.items():
            futures = client.map(operator.neg, range(count), key=keys(name, count))
            record(name)
            del futures
            sent.clear()
        futures = client.map(operator.neg, range(LARGE), key=keys("large", LARGE))
        record("large")
        del futures
        sent.clear()
        future = client.submit(operator.neg, 1, key="submit-XXXXXXXX")
        record("submit")
        del future
        del client._send_to_scheduler


def write(path: Path, message: object) -> None:
    """A message with its lengths, as `distributed.comm.tcp` writes it."""
    frames = dumps(message)
    lengths = [nbytes(frame) for frame in frames]
    head = struct.pack(f"<Q{len(lengths)}Q", len(lengths), *lengths)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head) + sum(lengths)))
        file.write(head)
        for frame in frames:
            file.write(frame)


if __name__ == "__main__":
    main()
