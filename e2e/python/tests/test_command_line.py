"""Flags, environment and signals of the program `dask-scheduler`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import OURS
from distributed import Client

from clusters import Cluster, wait_until
from clusters.process import free_port

pytestmark = pytest.mark.skipif(not OURS, reason="about our program")


def run(*arguments: str, seconds: float = 20) -> subprocess.CompletedProcess:
    return subprocess.run([OURS, *arguments], capture_output=True, text=True, timeout=seconds)


def test_an_unknown_flag_is_an_error_that_names_it():
    done = run("--make-coffee")
    assert done.returncode != 0
    assert "--make-coffee" in done.stderr


def test_help_and_version_are_printed():
    assert "--port" in run("--help").stdout
    assert re.search(r"\d+\.\d+", run("--version").stdout)


def test_every_flag_of_the_stock_scheduler_is_known():
    dask = Path(sys.executable).parent / "dask"
    stock = subprocess.run([dask, "scheduler", "--help"], capture_output=True, text=True, timeout=60).stdout
    flags = set(re.findall(r"(?<!\w)--[a-z][a-z-]+", stock))
    ours = run("--help").stdout
    assert {flag for flag in flags if flag not in ours} == set()


def test_a_scheduler_file_tells_clients_the_address(tmp_path):
    path = tmp_path / "scheduler.json"
    command = f"{OURS} --host {{host}} --port {{port}} --no-dashboard --scheduler-file {path}"
    with Cluster(command, "unused"):
        wait_until(path.exists)
        with Client(scheduler_file=str(path), timeout=30) as client:
            assert client.scheduler_info()["type"] == "Scheduler"


def test_an_address_without_a_scheme_works():
    port = free_port("127.0.0.1")
    process = subprocess.Popen(
        [OURS, "--host", f"127.0.0.1:{port}", "--no-dashboard"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with Client(f"127.0.0.1:{port}", timeout=30) as client:
            assert client.scheduler_info()["address"] == f"tcp://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_an_error_and_not_another_port():
    command = f"{OURS} --host {{host}} --port {{port}} --no-dashboard"
    with Cluster(command, "unused") as cluster:
        done = run("--host", "127.0.0.1", "--port", str(cluster.port), "--no-dashboard")
        assert done.returncode != 0
        assert str(cluster.port) in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_its_helpers(number: signal.Signals):
    import psutil

    command = f"{OURS} --host {{host}} --port {{port}} --no-dashboard"
    with Cluster(command, "unused") as cluster:
        with Client(cluster.address, timeout=30) as client:
            client.submit(abs, -1)
            children = psutil.Process(cluster.scheduler.pid).children
            wait_until(lambda: children(recursive=True), what="a helper takes the graph in")
            helpers = children(recursive=True)
        cluster.scheduler.popen.send_signal(number)
        cluster.scheduler.join(10)
        assert cluster.scheduler.exitcode == 0
        wait_until(lambda: not any(helper.is_running() for helper in helpers), 5)


def test_idle_timeout_ends_an_idle_scheduler():
    start = time.monotonic()
    done = run("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--idle-timeout", "1s", seconds=30)
    assert done.returncode == 0
    assert time.monotonic() - start >= 1
