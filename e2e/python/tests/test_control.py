"""Workers that come, go, are retired or restarted, and what autoscalers ask."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import sys
from pathlib import Path

import pytest
from distributed import Client, Event, KilledWorker, wait
from distributed.core import connect

from clusters import Cluster, wait_until


def test_a_cluster_without_workers_waits_for_one(cluster: Cluster):
    with Client(cluster.address, timeout=30) as client:
        future = client.submit(operator.neg, 3)
        assert not future.done()
        cluster.start_worker()
        assert future.result(timeout=30) == -3


def test_retiring_a_worker_moves_its_data_first(own: Client):
    futures = own.map(bytes, [1000] * 20, pure=False)
    wait(futures)
    leaving = next(iter(own.who_has(futures[0])[futures[0].key]))
    retired = own.retire_workers([leaving])
    assert list(retired) == [leaving]
    wait_until(lambda: leaving not in own.nthreads())
    assert len(own.nthreads()) == 1
    assert own.gather(futures) == [bytes(1000)] * 20
    assert all(future.status == "finished" for future in futures)


def test_a_killed_worker_costs_only_its_own_results(cluster: Cluster, own: Client):
    futures = own.map(operator.neg, range(20), pure=False)
    wait(futures)
    os.kill(cluster.processes[1].pid, signal.SIGKILL)
    wait_until(lambda: len(own.nthreads()) == 1)
    assert own.gather(futures) == [-n for n in range(20)]


def test_a_worker_killed_in_the_middle_of_a_task_has_it_done_by_another(cluster: Cluster, own: Client):
    def where_and_wait() -> int:
        Event("started").set()
        Event("go on").wait(30)
        return os.getpid()

    future = own.submit(where_and_wait, workers=["a"], allow_other_workers=True)
    assert Event("started", client=own).wait(30)
    pid = own.run(os.getpid)
    busy = next(address for address, keys in own.processing().items() if future.key in keys)
    os.kill(pid[busy], signal.SIGKILL)
    Event("go on", client=own).set()
    assert future.result(timeout=30) in set(pid.values()) - {pid[busy]}


def test_a_task_that_kills_its_workers_is_given_up(cluster: Cluster):
    dask = Path(sys.executable).parent / "dask"
    command = f"{dask} worker {{scheduler}} --host {{host}} --nthreads 1 --name {{name}} --no-dashboard"
    cluster.start_worker(command=command)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=60)
        future = client.submit(os._exit, 1)
        with pytest.raises(KilledWorker, match=future.key):
            future.result(timeout=90)
        client.wait_for_workers(1, timeout=60)
        assert client.submit(operator.neg, 1).result(timeout=60) == -1


def test_restart_loses_the_data_and_keeps_the_workers(cluster: Cluster):
    dask = Path(sys.executable).parent / "dask"
    command = f"{dask} worker {{scheduler}} --host {{host}} --nthreads 1 --name {{name}} --no-dashboard"
    cluster.start_worker(command=command)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=60)
        before = set(client.run(os.getpid).values())
        future = client.submit(operator.neg, 1)
        wait(future)
        client.restart(timeout=60)
        assert future.cancelled()
        assert not before & set(client.run(os.getpid).values())
        assert client.submit(operator.neg, 1).result(timeout=60) == -1


def test_retry_runs_a_failed_task_again(client: Client, tmp_path):
    flag = tmp_path / "flag"

    def needs_flag(path: str) -> str:
        import pathlib

        return pathlib.Path(path).read_text()

    future = client.submit(needs_flag, str(flag), pure=False)
    assert isinstance(future.exception(timeout=30), FileNotFoundError)
    flag.write_text("here")
    future.retry()
    assert future.result(timeout=30) == "here"


def test_retries_are_made_before_a_task_is_erred(client: Client, tmp_path):
    def third_time(folder: str) -> int:
        import pathlib
        import uuid

        pathlib.Path(folder, uuid.uuid4().hex).touch()
        tries = len(list(pathlib.Path(folder).iterdir()))
        if tries < 3:
            raise RuntimeError(f"try {tries}")
        return tries

    (tmp_path / "tries").mkdir()
    future = client.submit(third_time, str(tmp_path / "tries"), retries=2, pure=False)
    assert future.result(timeout=30) == 3


def test_an_error_reaches_dependents_with_its_traceback(client: Client):
    def divide(x: int) -> float:
        return x / 0

    last = client.submit(operator.neg, client.submit(operator.neg, client.submit(divide, 1)))
    with pytest.raises(ZeroDivisionError) as raised:
        last.result(timeout=30)
    assert "divide" in [entry.name for entry in raised.traceback]


def test_restrictions_resources_and_priorities_are_kept(cluster: Cluster):
    cluster.start_worker(name="plain")
    cluster.start_worker(name="gpu", resources={"GPU": 1})
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(2, timeout=30)

        def name() -> str:
            from distributed import get_worker

            return str(get_worker().name)

        asked = [client.submit(name, resources={"GPU": 1}, pure=False) for _ in range(5)]
        assert client.gather(asked) == ["gpu"] * 5
        assert client.submit(name, workers=["plain"], pure=False).result(timeout=30) == "plain"
        impossible = client.submit(name, resources={"TPU": 1}, pure=False)
        wait_until(
            lambda: client.sync(client.scheduler.get_task_status, keys=[impossible.key])[impossible.key] == "no-worker"
        )


def test_the_desired_number_of_workers_follows_the_load(own: Client):
    def target() -> int:
        return own.sync(own.scheduler.adaptive_target, target_duration=5.0)

    wait_until(lambda: target() <= 1, what="an idle cluster wants few workers")
    futures = own.map(lambda _: Event("load ends").wait(60), range(200), pure=False)
    wait_until(lambda: target() > 2, what="200 waiting tasks want more than 2 workers")
    Event("load ends", client=own).set()
    own.cancel(futures)


def test_workers_to_close_names_idle_ones(own: Client):
    closing = own.sync(own.scheduler.workers_to_close, n=1)
    assert len(closing) == 1 and closing[0] in own.nthreads()


def test_check_idle_says_since_when_nothing_happens(own: Client):
    assert own.submit(operator.neg, 1).result(timeout=30) == -1
    answer = own.sync(own.scheduler.check_idle)
    assert answer is None or answer > 0


def test_the_scheduler_ends_at_sigterm(cluster: Cluster):
    cluster.start_worker()
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
    cluster.scheduler.terminate()
    cluster.scheduler.join(15)
    assert cluster.scheduler.exitcode == 0


def test_who_watches_workers_hears_of_those_that_come_and_go(own: Client, cluster: Cluster):
    async def watch() -> None:
        comm = await connect(cluster.address)
        await comm.write({"op": "subscribe_worker_status"})
        identity = await asyncio.wait_for(comm.read(), 30)
        assert {worker["name"] for worker in identity["workers"].values()} == {"a", "b"}
        process = cluster.start_worker(name="c")
        action, workers = (await asyncio.wait_for(comm.read(), 60))[0]
        address = next(iter(workers["workers"]))
        assert (action, workers["workers"][address]["name"]) == ("add", "c")
        process.kill()
        assert list((await asyncio.wait_for(comm.read(), 60))[0]) == ["remove", address]
        await comm.close()

    asyncio.run(watch())
