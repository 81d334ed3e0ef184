"""Executors are forked from a template: each is as a separately started process would be."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import cloudpickle
import pytest
from distributed import Client

from clusters import Cluster, wait_until

# Workers cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

OUR_WORKER = os.environ.get("OXIDASK_WORKER")
pytestmark = pytest.mark.skipif(OUR_WORKER is None, reason="stock starts each worker's interpreter anew")


def traits() -> dict[str, object]:
    """What two processes must not have in common."""
    import multiprocessing
    import random
    import tempfile
    import threading
    import uuid

    import numpy

    sockets = set()
    files = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            sockets.add(target)
        files[name] = target
    with tempfile.NamedTemporaryFile() as file:
        temporary = file.name
    return {
        "random": random.random(),
        "numpy": numpy.random.random(),
        "uuid": str(uuid.uuid4()),
        "temporary": temporary,
        "authkey": bytes(multiprocessing.current_process().authkey),
        "sockets": sockets,
        "parent": os.getppid(),
        "group": os.getpgid(0) == os.getpid(),
        "pools": [thread.name for thread in threading.enumerate() if "ThreadPool" in thread.name],
        "sigchld": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    }


def start(cluster: Cluster, workers: int) -> None:
    command = (
        f"{OUR_WORKER} {{scheduler}} --host {{host}} --nthreads 1 --no-dashboard --nworkers {workers} "
        "--local-directory {folder}"
    )
    cluster.start_worker(command=command)


def test_executors_of_one_template_share_nothing(cluster: Cluster) -> None:
    start(cluster, 2)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(2, timeout=30)
        a, b = client.run(traits).values()
    assert a["parent"] == b["parent"], "they come from one template"
    for what in ("random", "numpy", "uuid", "temporary", "authkey"):
        assert a[what] != b[what], what
    assert not a["sockets"] & b["sockets"]
    for one in (a, b):
        assert one["group"] and one["sigchld"] and not one["pools"]


def test_executor_that_died_is_replaced_by_one_with_other_random_numbers(cluster: Cluster) -> None:
    start(cluster, 1)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        (before,) = client.run(traits).values()
        pid = client.submit(os.getpid, pure=False).result(timeout=30)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: client.submit(os.getpid, pure=False).result(timeout=30) != pid, what="another executor")
        (after,) = client.run(traits).values()
    assert after["parent"] == before["parent"]
    assert after["random"] != before["random"]
    assert after["numpy"] != before["numpy"]


def test_template_that_is_killed_is_started_anew(cluster: Cluster) -> None:
    start(cluster, 1)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        (before,) = client.run(os.getppid).values()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: client.submit(os.getppid, pure=False).result(timeout=30) != before, what="another template")
        assert client.submit(sum, [1, 2], pure=False).result(timeout=30) == 3


def test_thread_at_the_start_of_the_interpreter_leads_to_executors_of_their_own(cluster: Cluster, tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    cluster.env["PYTHONPATH"] = str(tmp_path)
    start(cluster, 1)
    with Client(cluster.address, timeout=30) as client:
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        command = client.submit(lambda: Path("/proc/self/cmdline").read_text()).result(timeout=30)
        assert "spawned" in command, "a fork would have lost that thread"
        pid = client.submit(os.getpid, pure=False).result(timeout=30)
        os.kill(pid, signal.SIGKILL)
        assert client.submit(sum, [1, 2], pure=False).result(timeout=30) == 3
