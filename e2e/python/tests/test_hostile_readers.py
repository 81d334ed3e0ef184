"""Peers that stop reading while results and reports come for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from conftest import OURS
from distributed import Client
from hostile import MB, SHORT_LOGS, HonestWork, is_logged, memory, memory_returns

from clusters import Cluster, wait_until

pytestmark = pytest.mark.skipif(not OURS, reason="stock keeps whatever is not read")

#: A client that does as it is told until it is stopped.
PROGRAM = """
import sys
from distributed import Client
client = Client(sys.argv[1], timeout=30)
{}
print("ready", flush=True)
{}
"""


SUBSCRIBER = """
import threading
heard = threading.Event()
client.subscribe_topic("news", lambda event: heard.set())
while not heard.wait(0.1):
    client.log_event("news", "first")
"""


@pytest.fixture
def busy(commands) -> Iterator[Cluster]:
    impatient = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s"}
    # Of the large events only the last is to be kept.
    short = {**SHORT_LOGS, "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "1"}
    with Cluster(commands.scheduler, commands.worker, **impatient, **short) as cluster:
        cluster.start_worker()
        with HonestWork(cluster):
            yield cluster


@pytest.fixture
def start(busy: Cluster) -> Iterator[object]:
    """Starts a client process, and waits until it is ready."""
    started: list[subprocess.Popen] = []

    def run(before: str, after: str) -> psutil.Process:
        argv = [sys.executable, "-c", PROGRAM.format(before, after), busy.address]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return psutil.Process(process.pid)

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_one_that_stops_in_the_middle_of_its_results_costs_no_memory(busy: Cluster, start):
    with memory_returns(busy):
        before = memory(busy)
        reader = start("future = client.submit(bytes, 300 << 20, pure=False); future.status", "future.result()")
        held = reader.memory_info().rss
        wait_until(lambda: reader.memory_info().rss - held > 30 * MB, what="the results come")
        reader.send_signal(signal.SIGSTOP)
        # A gather takes in 64 MiB at most, and passes the rest on as it is read: of the one that stopped, too.
        assert memory(busy) - before < 100 * MB
        with Client(busy.address, timeout=30, set_as_default=False) as other:
            assert len(other.submit(bytes, 100 << 20, pure=False).result(timeout=60)) == 100 << 20
        assert memory(busy) - before < 100 * MB
        reader.kill()


def test_one_that_does_not_read_its_reports_is_given_up(busy: Cluster, start):
    with memory_returns(busy):
        reader = start(SUBSCRIBER, "import time; time.sleep(600)")
        reader.send_signal(signal.SIGSTOP)
        with Client(busy.address, timeout=30, set_as_default=False) as other:
            for _ in range(100):
                other.log_event("news", os.urandom(MB))
            other.submit(int, pure=False).result(timeout=30)
        # It gets nothing more and is told so by the end of its connection.
        wait_until(lambda: is_logged(busy, "client left", "does not read"), what="it is given up")
        reader.send_signal(signal.SIGCONT)
