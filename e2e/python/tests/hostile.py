"""What the tests of hostile and unlucky peers share: honest work beside them, memory, raw connections."""

from __future__ import annotations

import contextlib
import operator
import socket
import struct
import threading
import time

import psutil
from distributed import Client

from clusters import Cluster, wait_until

MB = 1 << 20

#: Seconds that a round of honest work may take on a busy machine. A hang takes for ever.
ROUND = 30

#: Logs of fixed length that are short, so that honest work does not change what a scheduler holds.
SHORT_LOGS = {"DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "100", "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "100"}


def memory(cluster: Cluster) -> int:
    """Resident bytes of the scheduler process alone."""
    return psutil.Process(cluster.scheduler.pid).memory_info().rss


class HonestWork:
    """A client of its own that computes from beginning to end of a `with` block, and must always be served."""

    def __init__(self, cluster: Cluster):
        self._client = Client(cluster.address, timeout=30, set_as_default=False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stop = threading.Event()
        self._rounds = 0
        self._longest = 0.0
        self._failure: BaseException | None = None

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                begin = time.monotonic()
                futures = self._client.map(operator.neg, range(10), pure=False)
                assert self._client.gather(futures) == [-n for n in range(10)]
                self._longest = max(self._longest, time.monotonic() - begin)
                self._rounds += 1
                self._stop.wait(0.02)
        except BaseException as failure:
            self._failure = failure

    def more(self) -> None:
        """Waits until a round that begins after this call has ended."""
        goal = self._rounds + 2
        wait_until(lambda: self._rounds >= goal or self._failure, ROUND, "honest work goes on")

    def __enter__(self) -> HonestWork:
        self._thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self.more()
        self._stop.set()
        self._thread.join(ROUND)
        assert not self._thread.is_alive(), "honest work hangs"
        self._client.close()
        if self._failure:
            raise self._failure
        assert self._longest < ROUND


@contextlib.contextmanager
def memory_returns(cluster: Cluster, allowance: int = 8 * MB):
    """At the end of the block the scheduler comes to hold as much as at its beginning."""
    before = memory(cluster)
    yield before
    wait_until(lambda: memory(cluster) - before < allowance, 30, f"memory returns to {before}")


def connect(cluster: Cluster) -> socket.socket:
    connection = socket.create_connection((cluster.host, cluster.port), 10)
    connection.settimeout(30)
    return connection


def closed_by_peer(connection: socket.socket) -> bool:
    """Reads to the end; False if that does not come."""
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def frames(*parts: bytes) -> bytes:
    """A message as it goes over the wire: its length, the number and lengths of its frames."""
    body = struct.pack("<Q", len(parts)) + b"".join(struct.pack("<Q", len(part)) for part in parts) + b"".join(parts)
    return struct.pack("<Q", len(body)) + body


def is_logged(cluster: Cluster, *words: str) -> bool:
    """Whether one line of the scheduler's log has all these words."""
    lines = cluster.scheduler.output(200_000).splitlines()
    return any(all(word in line for word in words) for line in lines)
