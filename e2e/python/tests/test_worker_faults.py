"""What a worker of ours survives: dying executors, short memory, hostile peers, the end of the scheduler."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import cloudpickle
import numpy as np
import pytest
from distributed import Client, get_worker, wait
from distributed.core import rpc
from distributed.scheduler import KilledWorker

from clusters import Cluster, wait_until

# Workers cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.skipif("OXIDASK_WORKER" not in os.environ, reason="about our worker")


@pytest.fixture
def one(cluster: Cluster):
    """A client of a cluster with one worker."""
    cluster.start_worker(name="a")
    with Client(cluster.address) as client:
        client.wait_for_workers(1, timeout=30)
        yield client


def executor_pid(client: Client) -> int:
    return client.submit(os.getpid, pure=False).result(timeout=30)


def counted(path: str, value):
    """Gives the value, and leaves a byte in a file for each time that it is computed."""
    with open(path, "a") as file:
        file.write(".")
    return value


def test_array_survives_the_death_of_its_executor(one: Client, tmp_path) -> None:
    runs = tmp_path / "runs"
    array = one.submit(lambda path: counted(path, np.arange(1_250_000)), str(runs))
    array.result(timeout=30)
    made = one.submit(time.time, pure=False).result(timeout=30)
    time_of_run = one.submit(lambda a: get_worker().id, array).result(timeout=30)
    wait_until(lambda: time.time() - made > 1, what="a second")
    pid = executor_pid(one)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: executor_pid(one) != pid, what="another executor")
    assert one.submit(lambda a: get_worker().id, array, pure=False).result(timeout=30) == time_of_run
    assert int(array.result(timeout=30).sum()) == 781249375000
    assert runs.read_text() == ".", "it was computed once"


def test_task_that_kills_its_process_fails_alone_and_says_with_what(one: Client) -> None:
    good = one.map(lambda x: x + 1, range(10))
    bad = one.submit(os._exit, 7)
    with pytest.raises(KilledWorker, match="exit status: 7"):
        bad.result(timeout=120)
    assert one.gather(good) == list(range(1, 11))


def test_executor_killed_in_a_task_runs_it_again(one: Client) -> None:
    def slow():
        time.sleep(1)
        return os.getpid()

    first = executor_pid(one)
    future = one.submit(slow)
    wait_until(lambda: one.processing() and any(one.processing().values()), what="the task runs")
    os.kill(first, signal.SIGKILL)
    assert future.result(timeout=60) != first


def test_values_above_the_limit_go_to_disk_and_come_back(cluster: Cluster) -> None:
    cluster.start_worker(name="a", command=f"{cluster.worker_command} --memory-limit 300MB")
    with Client(cluster.address) as client:
        arrays = [client.submit(lambda i: np.full(2_500_000, i, dtype="f8"), i, pure=False) for i in range(20)]
        sums = client.gather(client.map(lambda a: float(a.sum()), arrays), direct=False)
        assert sums == [2_500_000.0 * i for i in range(20)]

        def spilled():
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            return sum(worker["metrics"]["spilled_bytes"]["disk"] for worker in workers)

        wait_until(lambda: spilled() > 100_000_000, what="values on disk")
        assert float(arrays[0].result(timeout=60)[0]) == 0.0
        del arrays
        wait_until(lambda: spilled() == 0, what="files are gone")


def test_garbage_from_a_peer_closes_that_connection_only(one: Client) -> None:
    address = next(iter(one.scheduler_info(n_workers=-1)["workers"]))
    host, port = address.partition("://")[2].rsplit(":", 1)
    for garbage in (b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", (1 << 62).to_bytes(8, "little") * 4):
        with socket.create_connection((host, int(port)), timeout=10) as peer:
            peer.sendall(garbage)
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(10)
            while peer.recv(4096):
                pass
    assert one.submit(sum, [1, 2], pure=False).result(timeout=30) == 3


def test_unpickling_that_exits_or_raises_fails_that_task(one: Client) -> None:
    class Explosive:
        def __reduce__(self):
            return int, ("explosive",)

    scattered = one.scatter(Explosive(), hash=False)
    with pytest.raises(ValueError, match="explosive"):
        one.submit(repr, scattered).result(timeout=30)
    assert one.submit(sum, [1, 2], pure=False).result(timeout=30) == 3


def test_ten_thousand_keys_released_while_they_run_leave_nothing(one: Client, cluster: Cluster) -> None:
    futures = one.map(lambda x: time.sleep(0.0005) or x, range(10_000), pure=False)
    futures[0].result(timeout=30)
    assert not all(future.done() for future in futures[-100:]), "they are released while tasks run"
    del futures
    wait_until(lambda: not any(one.processing().values()), seconds=120, what="nothing processing")
    wait_until(lambda: not any(one.has_what().values()), seconds=60, what="an empty worker")

    (address,) = one.scheduler_info(n_workers=-1)["workers"]

    async def ask():
        async with rpc(address) as worker:
            return await worker.dump_state()

    wait_until(lambda: not one.sync(ask)["tasks"], what="the worker has forgotten them")
    held = one.submit(lambda: values_held(), pure=False).result(timeout=30)
    assert held < 100, "the executor has forgotten them too"
    assert cluster.processes[1].is_alive()


def values_held() -> int:
    """How many values the process that runs this task keeps."""
    return len(get_worker()._store.keys())


@pytest.fixture
def draining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that the first signal drains, as it does in a pod."""
    monkeypatch.setenv("DASK_OXIDASK__WORKER__DRAIN", "True")


def test_sigterm_ends_a_worker_as_a_stock_one(own: Client, cluster: Cluster) -> None:
    lost = own.scatter(1, workers=["a"], hash=False)
    kept = own.submit(abs, -1, workers=["a"], allow_other_workers=True, pure=False)
    wait(kept)
    cluster.processes[1].terminate()
    wait_until(lambda: lost.status == "cancelled", what="scattered data are lost")
    assert kept.result(timeout=30) == 1
    wait_until(lambda: not cluster.processes[1].is_alive(), what="it ends")
    assert cluster.processes[1].exitcode == 0


def test_sigterm_finishes_what_runs_and_moves_what_only_it_has(
    draining: None, own: Client, cluster: Cluster, tmp_path
) -> None:
    runs = tmp_path / "runs"
    value = own.submit(lambda path: counted(path, list(range(1000))), str(runs), workers=["a"])
    value.result(timeout=30)
    running = own.submit(lambda: time.sleep(1) or "done", workers=["a"], allow_other_workers=True)
    wait_until(lambda: any(own.processing().values()), what="a task runs")
    os.kill(cluster.processes[1].pid, signal.SIGTERM)
    wait_until(lambda: len(own.scheduler_info(n_workers=-1)["workers"]) == 1, seconds=60, what="worker a leaves")
    assert running.result(timeout=30) == "done"
    assert value.result(timeout=30) == list(range(1000))
    assert runs.read_text() == ".", "it was computed once"


def test_second_sigterm_ends_the_worker_at_once(draining: None, one: Client, cluster: Cluster) -> None:
    running = one.submit(time.sleep, 60)
    wait_until(lambda: any(one.processing().values()), what="a task runs")
    worker = cluster.processes[1]
    os.kill(worker.pid, signal.SIGTERM)

    def closing() -> bool:
        # Once its results are elsewhere, a scheduler may not list it any more, although a task runs on.
        workers = one.scheduler_info(n_workers=-1)["workers"].values()
        return all(known["status"] == "closing_gracefully" for known in workers)

    wait_until(closing, what="the worker drains")
    assert worker.is_alive(), "for as long as its task runs"
    start = time.monotonic()
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: not worker.is_alive(), seconds=10, what="it ends")
    assert time.monotonic() - start < 5
    assert not running.done()


def test_unpickling_that_ends_the_process_fails_that_task_alone(one: Client) -> None:
    class Exits:
        def __reduce__(self):
            return os._exit, (9,)

    scattered = one.scatter(Exits(), hash=False)
    good = one.map(lambda x: x + 1, range(5), pure=False)
    with pytest.raises(KilledWorker, match="exit status: 9"):
        one.submit(repr, scattered).result(timeout=120)
    assert one.gather(good) == list(range(1, 6))


def test_unpickling_that_blocks_keeps_only_its_own_thread(cluster: Cluster) -> None:
    cluster.start_worker(name="a", nthreads=2)

    class Blocks:
        def __reduce__(self):
            return time.sleep, (60,)

    with Client(cluster.address, timeout=30) as client:
        scattered = client.scatter(Blocks(), hash=False)
        blocked = client.submit(repr, scattered)
        wait_until(lambda: any(client.processing().values()), what="it is being unpickled")
        assert client.gather(client.map(lambda x: x + 1, range(5), pure=False)) == list(range(1, 6))
        assert not blocked.done()
