"""From submit to result of a trivial task, submits apart and back to back."""

from __future__ import annotations

import operator
import statistics
import time

from distributed import Client

from ..metric import Metric, times_better
from ..side import Side, cluster, connected

SENTENCE = "Submit to result of one task on one stock worker, submits 50 ms apart, p50"

COUNT = 100
#: Seconds between submits, longer than any batching on the way.
SPACING = 0.05

METRICS = [
    Metric("server part", "ms", **times_better(2)),
    Metric("total", "ms"),
    Metric("back to back", "ms"),
]


class Clock:
    """Notes when the client writes a graph, learns of a result, and gathers it."""

    def __init__(self, client: Client):
        self.written = self.known = self.gathering = 0.0
        comm, handlers = client.scheduler_comm.comm, client._stream_handlers
        write, in_memory, gather = comm.write, handlers["key-in-memory"], client._gather_remote

        async def timed_write(messages, *arguments, **options):
            result = await write(messages, *arguments, **options)
            if any(message.get("op") == "update-graph" for message in messages):
                self.written = time.perf_counter()
            return result

        def timed_in_memory(*arguments, **options):
            self.known = time.perf_counter()
            return in_memory(*arguments, **options)

        async def timed_gather(*arguments, **options):
            start = time.perf_counter()
            result = await gather(*arguments, **options)
            self.gathering = time.perf_counter() - start
            return result

        comm.write, client._gather_remote = timed_write, timed_gather
        handlers["key-in-memory"] = timed_in_memory

    def server_part(self) -> float:
        """Seconds from the graph's way out to the word of its result, and of the gather."""
        return self.known - self.written + self.gathering


def measure(side: Side) -> dict[str, float]:
    return latency(side.with_stock_workers())


def latency(side: Side) -> dict[str, float]:
    with cluster(side) as started:
        started.start_worker()
        with connected(started, 1) as client:
            clock = Clock(client)
            for number in range(10):
                client.submit(operator.neg, number, pure=False).result()
            server, total = [], []
            for number in range(COUNT):
                time.sleep(SPACING)
                start = time.perf_counter()
                client.submit(operator.neg, number, pure=False).result()
                total.append(time.perf_counter() - start)
                server.append(clock.server_part())
            start = time.perf_counter()
            for number in range(COUNT):
                client.submit(operator.neg, number, pure=False).result()
            back_to_back = (time.perf_counter() - start) / COUNT
    return {
        "server part": statistics.median(server) * 1e3,
        "total": statistics.median(total) * 1e3,
        "back to back": back_to_back * 1e3,
    }
