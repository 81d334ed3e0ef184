"""Peers that are broken, malicious or unlucky. The others' work goes on, nothing hangs."""

from __future__ import annotations

import contextlib
import operator
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator

import psutil
import pytest
from conftest import OURS
from distributed import Client, wait

from clusters import Cluster, wait_until

pytestmark = pytest.mark.skipif(not OURS, reason="stock does not withstand all of this")

MB = 1 << 20


@pytest.fixture
def busy(cluster: Cluster) -> Iterator[tuple[Cluster, Client]]:
    """A cluster with a worker and a well-behaved client, whose work is checked at the end."""
    cluster.start_worker()
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        assert client.submit(operator.neg, 1, pure=False).result(timeout=30) == -1
        yield cluster, client
        assert cluster.scheduler.is_alive()
        futures = client.map(operator.neg, range(50), pure=False)
        assert client.gather(futures) == [-n for n in range(50)]


def memory(cluster: Cluster) -> int:
    return psutil.Process(cluster.scheduler.pid).memory_info().rss


def connect(cluster: Cluster) -> socket.socket:
    connection = socket.create_connection((cluster.host, cluster.port), 10)
    connection.settimeout(20)
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


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10, id="HTTP"),
        pytest.param(os.urandom(4096), id="noise"),
        pytest.param(struct.pack("<Q", 1 << 63) + b"x" * 64, id="a length of 2^63"),
        pytest.param(struct.pack("<QQQ", 10 << 30, 1, (10 << 30) - 16) + b"x" * 64, id="a declared frame of 10 GB"),
        pytest.param(struct.pack("<QQ", 64, 1 << 60) + b"x" * 64, id="2^60 frames"),
        pytest.param(frames(b"\xdf\xff\xff\xff\xff"), id="a map of 2^32 entries"),
        pytest.param(frames(b"\x91" * 100_000 + b"\xc0"), id="100,000 nested arrays"),
        pytest.param(frames(b"\xc1"), id="an invalid msgpack byte"),
    ],
)
def test_what_is_no_message_closes_that_connection(busy, sent: bytes):
    cluster, _ = busy
    before = memory(cluster)
    with connect(cluster) as connection:
        with contextlib.suppress(OSError):  # it may be closed while we still send
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        assert closed_by_peer(connection)
    assert memory(cluster) - before < 20 * MB


def test_a_message_cut_off_in_the_middle_is_forgotten(busy):
    cluster, _ = busy
    before = memory(cluster)
    for _ in range(50):
        # It may be closed while we still send.
        with connect(cluster) as connection, contextlib.suppress(OSError):
            connection.sendall(struct.pack("<QQQ", 5 * MB, 1, 5 * MB - 16) + bytes(MB))
    wait_until(lambda: memory(cluster) - before < 30 * MB)


def test_a_thousand_connections_that_say_nothing(busy):
    cluster, client = busy
    before = memory(cluster)
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connect(cluster))
        assert client.submit(operator.neg, 2, pure=False).result(timeout=30) == -2
        assert memory(cluster) - before < 100 * MB


def test_a_client_that_stops_reading_does_not_stop_the_others(busy):
    cluster, client = busy
    with Client(cluster.address, timeout=30, set_as_default=False) as other:
        futures = other.map(operator.neg, range(2000), pure=False)
        # Its event loop sleeps, so that nothing is read, while results come.
        other.loop.add_callback(time.sleep, 3)
        mine = client.map(operator.neg, range(200), pure=False)
        assert client.gather(mine) == [-n for n in range(200)]
        assert len(other.gather(futures)) == 2000


class Trap:
    """An argument whose unpickling calls a function of the standard library."""

    def __init__(self, function: object, *arguments: object):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("trap", "told"),
    [
        pytest.param(Trap(int, "not a number"), "not a number", id="raises"),
        pytest.param(Trap(os._exit, 3), None, id="exits"),
        pytest.param(Trap(os.abort), None, id="aborts"),
        pytest.param(Trap(__import__, "module_that_nobody_has"), "module_that_nobody_has", id="lacks a module"),
    ],
)
def test_a_graph_whose_unpickling_fails_errs_its_keys(busy, trap: Trap, told: str | None):
    _, client = busy
    future = client.submit(operator.truth, trap, pure=False)
    error = future.exception(timeout=60)
    assert error is not None
    if told:
        assert told in str(error)


def test_a_graph_whose_unpickling_sleeps_does_not_hold_up_other_clients(busy):
    cluster, client = busy
    with Client(cluster.address, timeout=30, set_as_default=False) as other:
        stuck = other.submit(operator.truth, Trap(time.sleep, 600), pure=False)
        assert client.submit(operator.neg, 3, pure=False).result(timeout=20) == -3
        del stuck


def test_a_graph_whose_unpickling_allocates_without_end_is_stopped(commands):
    limit = {"OXIDASK_HELPER_MEMORY_LIMIT": str(600 * MB)}
    with Cluster(commands.scheduler, commands.worker, **limit) as cluster:
        cluster.start_worker()
        with Client(cluster.address, timeout=30) as client:
            future = client.submit(operator.truth, Trap(bytearray, 1 << 44), pure=False)
            assert future.exception(timeout=60) is not None
            assert client.submit(operator.neg, 4, pure=False).result(timeout=30) == -4


def test_a_worker_that_registers_twice_is_told_so_or_replaced(busy):
    cluster, client = busy
    first = client.scheduler_info(n_workers=-1)["workers"]
    name = next(iter(first.values()))["name"]
    cluster.start_worker(name=name)
    wait_until(lambda: len(client.nthreads()) >= 1)
    futures = client.map(operator.neg, range(20), pure=False)
    assert client.gather(futures) == [-n for n in range(20)]


def test_a_worker_killed_while_it_sends_data_costs_no_result(own: Client, cluster: Cluster):
    large = own.map(bytes, [20 * MB] * 10, pure=False, workers=["a"], allow_other_workers=True)
    wait(large)
    lengths = own.map(len, large, workers=["b"], allow_other_workers=True)
    wait_until(lambda: any(future.done() for future in lengths))
    os.kill(cluster.processes[1].pid, signal.SIGKILL)
    assert own.gather(lengths) == [20 * MB] * 10


def test_memory_returns_after_many_tasks(busy):
    cluster, client = busy

    def round_trip() -> None:
        futures = client.map(operator.neg, range(5000), pure=False)
        wait(futures)
        client.cancel(futures)
        del futures
        wait_until(lambda: not any(client.has_what().values()))

    round_trip()
    before = memory(cluster)
    round_trip()
    round_trip()
    assert memory(cluster) - before < 10 * MB
