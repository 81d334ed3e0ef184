"""Connections that send what is no message, or nothing at all. The others' work goes on, nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Iterator

import pytest
from conftest import OURS
from distributed.comm import CommClosedError
from distributed.comm import connect as connect_as_dask
from hostile import MB, SHORT_LOGS, HonestWork, closed_by_peer, connect, frames, is_logged, memory, memory_returns

from clusters import Cluster, wait_until

pytestmark = pytest.mark.skipif(not OURS, reason="stock does not withstand all of this")


@pytest.fixture
def busy(commands) -> Iterator[Cluster]:
    """A cluster whose worker and honest client are at work all the time, and whose memory returns in the end."""
    short = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s", **SHORT_LOGS}
    with Cluster(commands.scheduler, commands.worker, **short) as cluster:
        cluster.start_worker()
        with HonestWork(cluster), memory_returns(cluster):
            yield cluster


NO_MESSAGES = [
    pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10, "limit", id="HTTP"),
    pytest.param(b"\xff" * 8 + os.urandom(4096), "limit", id="noise"),
    pytest.param(struct.pack("<QQ", 1 << 63, 1) + b"x" * 64, "limit", id="a length of 2^63"),
    pytest.param(struct.pack("<QQQ", (100 << 30) + 16, 1, 100 << 30) + b"x" * 64, "limit", id="a frame of 100 GB"),
    pytest.param(struct.pack("<QQ", 64, 1 << 60) + b"x" * 64, "limit", id="2^60 frames"),
    pytest.param(frames(b"\xdf\xff\xff\xff\xff"), "", id="a map of 2^32 entries"),
    pytest.param(frames(b"\x91" * 100_000 + b"\xc0"), "", id="100,000 nested arrays"),
    pytest.param(frames(b"\xc1"), "", id="an invalid msgpack byte"),
    pytest.param(frames(b"\x81\xa2op\xa4gath"[:-3]), "", id="a map that ends in the middle"),
]


@pytest.mark.parametrize(("sent", "told"), NO_MESSAGES)
def test_what_is_no_message_closes_that_connection_and_is_logged(busy: Cluster, sent: bytes, told: str):
    with connect(busy) as connection:
        port = connection.getsockname()[1]
        with contextlib.suppress(OSError):  # it may be closed while we still send
            connection.sendall(sent)
        assert closed_by_peer(connection)
    wait_until(lambda: is_logged(busy, f":{port}", "connection closed", told), what="who was closed is logged")


@pytest.mark.parametrize(("sent", "told"), NO_MESSAGES)
@pytest.mark.parametrize("role", ["caller", "client"])
def test_a_peer_that_said_hello_and_turns_to_garbage_is_closed(busy: Cluster, role: str, sent: bytes, told: str):
    async def turn() -> None:
        comm = await connect_as_dask(busy.address, deserialize=False)
        if role == "client":
            await comm.write({"op": "register-client", "client": "Client-bad", "versions": {}, "reply": False})
            await comm.read()
        with contextlib.suppress(OSError, CommClosedError):
            await comm.stream.write(sent)
        with pytest.raises(CommClosedError):
            while True:
                await asyncio.wait_for(comm.read(), 30)

    asyncio.run(turn())


async def busy_answer(cluster: Cluster) -> dict:
    """What the scheduler says of itself on a new connection."""
    comm = await connect_as_dask(cluster.address)
    await comm.write({"op": "identity", "reply": True})
    reply = await asyncio.wait_for(comm.read(), 30)
    await comm.close()
    return reply


def test_a_declared_frame_of_10_gb_takes_the_memory_of_what_has_come(busy: Cluster):
    async def declare() -> None:
        before = memory(busy)
        comms = [await connect_as_dask(busy.address, deserialize=False) for _ in range(20)]
        for comm in comms:
            # Within the limit, so it is waited for.
            await comm.stream.write(struct.pack("<QQQ", (10 << 30) + 16, 1, 10 << 30) + bytes(MB))
        reply = await busy_answer(busy)
        assert reply["type"] == "Scheduler"
        assert memory(busy) - before < 60 * MB
        for comm in comms:
            comm.abort()

    asyncio.run(declare())


def test_a_message_cut_off_in_the_middle_is_forgotten(busy: Cluster):
    for _ in range(50):
        # It may be closed while we still send.
        with connect(busy) as connection, contextlib.suppress(OSError):
            connection.sendall(struct.pack("<QQQ", 5 * MB, 1, 5 * MB - 16) + bytes(MB))


def test_a_thousand_connections_that_say_nothing_are_closed_in_time(busy: Cluster):
    before = memory(busy)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(busy)) for _ in range(1000)]
        assert memory(busy) - before < 50 * MB
        assert all(map(closed_by_peer, silent))
    assert is_logged(busy, "before its handshake was complete")
