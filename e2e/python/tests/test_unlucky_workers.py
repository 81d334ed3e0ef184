"""Workers that are killed at the worst time, or come twice."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from conftest import OURS
from distributed import Client, wait
from distributed.core import connect as connect_as_dask
from distributed.versions import get_versions
from hostile import MB, SHORT_LOGS, HonestWork, memory_returns

from clusters import Cluster, wait_until

pytestmark = pytest.mark.skipif(not OURS, reason="stock's own tests show what stock does")


@pytest.fixture
def cluster(commands) -> Iterator[Cluster]:
    """Three workers, `c` for a client that is at work all the time."""
    with Cluster(commands.scheduler, commands.worker, **SHORT_LOGS) as started:
        for name in "abc":
            started.start_worker(name=name)
        yield started


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(3, timeout=60)
        with HonestWork(cluster), memory_returns(cluster):
            yield client


def workers(client: Client) -> dict:
    return client.scheduler_info(n_workers=-1)["workers"]


def process_of(client: Client, name: str) -> int:
    """The process id of the worker of this name."""
    address = next(address for address, worker in workers(client).items() if worker["name"] == name)
    return client.run(os.getpid, workers=[address])[address]


def test_a_worker_killed_in_the_middle_of_a_task_costs_no_result(cluster: Cluster, client: Client, tmp_path):
    def run(folder: str) -> str:
        import pathlib

        mark = pathlib.Path(folder) / str(os.getpid())
        mark.touch()
        if len(list(pathlib.Path(folder).iterdir())) == 1:
            time.sleep(600)
        return "done"

    victim = process_of(client, "a")
    future = client.submit(run, str(tmp_path), workers=["a"], allow_other_workers=True, pure=False)
    wait_until(lambda: list(tmp_path.iterdir()), what="the task runs")
    assert [path.name for path in tmp_path.iterdir()] == [str(victim)]
    os.kill(victim, signal.SIGKILL)
    assert future.result(timeout=60) == "done"


def test_a_worker_killed_while_another_fetches_from_it_costs_no_result(cluster: Cluster, client: Client):
    victim = process_of(client, "a")
    large = client.map(bytes, [50 * MB] * 10, pure=False, workers=["a"], allow_other_workers=True)
    wait(large)
    lengths = client.map(len, large, workers=["b"], allow_other_workers=True, pure=False)
    wait_until(lambda: any(future.done() for future in lengths), what="the first transfer is over")
    assert not all(future.done() for future in lengths), "killed too late to show anything"
    os.kill(victim, signal.SIGKILL)
    assert client.gather(lengths) == [50 * MB] * 10


def test_a_worker_killed_while_its_result_is_gathered_costs_no_result(cluster: Cluster, client: Client):
    victim = process_of(client, "a")
    future = client.submit(bytes, 400 * MB, pure=False, workers=["a"], allow_other_workers=True)
    wait(future)
    results: list[bytes] = []
    gathering = threading.Thread(target=lambda: results.append(client.gather(future, direct=False)), daemon=True)
    own = psutil.Process()
    before = own.memory_info().rss
    gathering.start()
    wait_until(lambda: own.memory_info().rss - before > 40 * MB, what="the result comes")
    os.kill(victim, signal.SIGKILL)
    assert not results, "killed too late to show anything"
    gathering.join(90)
    assert [len(result) for result in results] == [400 * MB]


def test_a_worker_whose_name_is_taken_is_told_so_and_ends(cluster: Cluster, client: Client):
    second = cluster.start_worker(name="a")
    wait_until(lambda: not second.is_alive(), 60, "it ends")
    assert second.exitcode != 0
    assert "name taken, a" in second.output(20_000)
    assert {worker["name"] for worker in workers(client).values()} == {"a", "b", "c"}


def test_a_worker_that_registers_twice_is_refused_and_the_first_stays(cluster: Cluster, client: Client):
    address = next(address for address, worker in workers(client).items() if worker["name"] == "a")

    async def register_again() -> dict:
        comm = await connect_as_dask(cluster.address, deserialize=False)
        await comm.write(registration(address), serializers=["msgpack"])
        return await asyncio.wait_for(comm.read(), 30)

    reply = asyncio.run(register_again())
    assert reply["status"] != "OK"
    assert f"Worker already exists {address}" in str(reply)
    assert client.submit(os.getpid, workers=["a"], pure=False).result(timeout=30)


def registration(address: str) -> dict:
    return {
        "op": "register-worker",
        "reply": False,
        "address": address,
        "status": "running",
        "nthreads": 1,
        "name": "another",
        "now": time.time(),
        "resources": {},
        "memory_limit": 1 << 30,
        "local_directory": "/tmp",
        "services": {},
        "nanny": None,
        "pid": os.getpid(),
        "versions": get_versions(),
        "metrics": {},
        "extra": {},
        "stimulus_id": "again",
        "server_id": "again",
    }
