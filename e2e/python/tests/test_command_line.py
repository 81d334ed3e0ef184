"""Flags, environment and signals of the program `dask-scheduler`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
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


def test_the_pid_file_lives_as_long_as_the_process(tmp_path):
    path = tmp_path / "pid"
    with Cluster(f"{OURS} --host {{host}} --port {{port}} --no-dashboard --pid-file {path}", "unused") as cluster:
        assert int(path.read_text()) == cluster.scheduler.pid
        cluster.terminate()
        assert not path.exists()


def test_a_preloaded_module_is_set_up_and_torn_down(tmp_path):
    module = tmp_path / "mark.py"
    module.write_text(
        f"""
import pathlib, sys
here = pathlib.Path({str(tmp_path)!r})
def dask_setup(scheduler):
    assert not (here / "up").exists()
    (here / "up").write_text(scheduler.address)
def dask_teardown(scheduler):
    (here / "down").write_text("")
"""
    )
    with Cluster(f"{OURS} --host {{host}} --port {{port}} --no-dashboard --preload {module}", "unused") as cluster:
        wait_until((tmp_path / "up").exists)
        wait_until(lambda: (tmp_path / "up").read_text() == cluster.address)
        cluster.terminate()
        assert (tmp_path / "down").exists()


def test_a_preload_that_fails_ends_the_scheduler(tmp_path):
    (tmp_path / "bad.py").write_text("raise ValueError('out of order')")
    flags = ["--no-dashboard", "--python", sys.executable, "--preload", str(tmp_path / "bad.py")]
    done = run("--host", "127.0.0.1", "--port", "0", *flags, seconds=60)
    assert done.returncode != 0
    assert "preload" in done.stderr and "out of order" in done.stderr


def start_log(**environment: str) -> str:
    """What a scheduler with these variables says at its start."""
    with Cluster(f"{OURS} --host {{host}} --port {{port}} --no-dashboard", "unused", **environment) as cluster:
        return cluster.scheduler.output(100_000)


def test_stocks_own_defaults_passed_on_as_a_whole_cause_no_warning():
    import distributed  # noqa: F401  its defaults are part of the configuration

    with dask.config.set({}):
        whole = dask.config.serialize(dask.config.global_config)
    assert "without effect" not in start_log(DASK_INTERNAL_INHERIT_CONFIG=whole)


def test_keys_without_effect_are_named_in_one_warning():
    log = start_log(
        DASK_DISTRIBUTED__COMM__COMPRESSION="lz4",
        DASK_DISTRIBUTED__COMM__SHARD="32MiB",
        DASK_DISTRIBUTED__SCHEDULER__NO_SUCH_KEY="1",
    )
    (line,) = [line for line in log.splitlines() if "without effect" in line]
    for key in ("comm.compression", "comm.shard", "no_such_key"):
        assert key in line


def test_encryption_that_is_required_but_not_configured_is_an_error(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "True")
    done = run("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    assert done.returncode != 0
    assert "--tls-cert" in done.stderr
