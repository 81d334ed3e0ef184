"""A scheduler that stops reading: the worker's memory does not grow, what it does meanwhile is not lost."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import psutil
import pytest
from distributed import Client, get_worker

from clusters import Cluster, wait_until
from clusters.proxy import Proxy

# Workers cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [
    pytest.mark.skipif("OXIDASK_WORKER" not in os.environ, reason="about our worker"),
    pytest.mark.skipif("OXIDASK_TLS" in os.environ, reason="the proxy passes plain connections"),
]

#: Bytes that a worker may hold for a scheduler that does not read, with as much again for what is on its way.
ROOM = 100_000_000


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    proxy = Proxy(cluster.address)
    cluster.start_worker(name="a", nthreads=2, command=cluster.worker_command.replace("{scheduler}", proxy.address))
    yield proxy
    proxy.close()


def resident(cluster: Cluster) -> int:
    return psutil.Process(cluster.processes[1].pid).memory_info().rss


def chatter(progress: str, messages: int) -> int:
    """Says more than any queue should hold, and leaves in a file how far it has come."""
    worker = get_worker()
    for number in range(messages):
        worker.log_event("chatter", "x" * 1_000_000)
        Path(progress).write_text(str(number + 1))
    return messages


def test_task_that_says_more_than_the_scheduler_hears_waits_for_it(cluster: Cluster, proxy: Proxy, tmp_path) -> None:
    progress = tmp_path / "progress"
    progress.write_text("0")

    def said() -> int:
        return int(progress.read_text() or 0)

    def rests() -> bool:
        before = said()
        time.sleep(1)
        return said() == before

    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        before = resident(cluster)
        future = client.submit(lambda path: chatter(path, 300), str(progress))
        wait_until(lambda: said() > 0, what="the task speaks")
        proxy.passing.clear()
        wait_until(rests, what="the task waits")
        assert said() < 300
        assert resident(cluster) - before < ROOM
        proxy.passing.set()
        assert future.result(timeout=120) == 300
        assert said() == 300


def test_other_work_goes_on_while_the_scheduler_does_not_read(cluster: Cluster, proxy: Proxy, tmp_path) -> None:
    progress = tmp_path / "progress"
    progress.write_text("0")
    steps = tmp_path / "steps"

    def step(path, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with open(path, "a") as file:
                file.write(".")
            time.sleep(0.01)
        return "done"

    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        working = client.submit(step, str(steps), 4)
        talking = client.submit(lambda path: chatter(path, 300), str(progress))
        wait_until(lambda: steps.exists() and progress.read_text() not in ("", "0"), what="both run")
        proxy.passing.clear()
        before = steps.stat().st_size
        wait_until(lambda: steps.stat().st_size > before + 50, what="the other thread works on")
        proxy.passing.set()
        assert working.result(timeout=60) == "done"
        assert talking.result(timeout=120) == 300
