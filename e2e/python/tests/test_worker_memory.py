"""Memory of our worker: limits reached by one task and by many, and a disk that is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import cloudpickle
import numpy as np
import pytest
from distributed import Client
from distributed.scheduler import KilledWorker

from clusters import Cluster, wait_until

# Workers cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.skipif("OXIDASK_WORKER" not in os.environ, reason="about our worker")

LIMIT = 400_000_000


def hold(share: float, seconds: float) -> int:
    """Takes a share of the limit, touches it and keeps it for a while."""
    memory = bytearray(int(share * LIMIT))
    memory[::4096] = b"x" * len(memory[::4096])
    time.sleep(seconds)
    return len(memory)


def start(cluster: Cluster, nthreads: int = 1) -> None:
    cluster.start_worker(name="a", nthreads=nthreads, command=f"{cluster.worker_command} --memory-limit {LIMIT}")


def test_task_that_takes_too_much_memory_fails_and_the_error_says_so(cluster: Cluster) -> None:
    cluster.env["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "1"
    start(cluster)
    with Client(cluster.address, timeout=30) as client:
        kept = client.submit(bytes, 1000)
        future = client.submit(lambda: hold(1.5, 30))
        with pytest.raises(KilledWorker, match="bytes of memory"):
            future.result(timeout=120)
        assert kept.result(timeout=30) == bytes(1000)
        assert client.submit(sum, [1, 2], pure=False).result(timeout=30) == 3


def test_tasks_that_take_too_much_together_are_run_one_by_one(cluster: Cluster) -> None:
    start(cluster, nthreads=4)
    with Client(cluster.address, timeout=30) as client:
        futures = [client.submit(lambda: hold(0.4, 1.5), pure=False) for _ in range(4)]
        assert client.gather(futures) == [int(0.4 * LIMIT)] * 4


def test_executor_is_not_killed_for_what_values_weigh(cluster: Cluster) -> None:
    for threshold in ("TARGET", "SPILL", "PAUSE"):
        cluster.env[f"DASK_DISTRIBUTED__WORKER__MEMORY__{threshold}"] = "False"
    start(cluster)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        executor = client.submit(os.getpid, pure=False).result(timeout=30)
        values = [client.scatter(np.full(LIMIT // 32, float(n)), hash=False) for n in range(5)]
        (worker,) = client.scheduler_info(n_workers=-1)["workers"]

        def managed() -> int:
            (known,) = client.scheduler_info(n_workers=-1)["workers"].values()
            return known["metrics"]["managed_bytes"]

        wait_until(lambda: managed() > 1.2 * LIMIT, what="values above the limit")
        sums = client.gather(client.map(lambda a: float(a[0]), values, pure=False))
        assert sums == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert client.submit(os.getpid, pure=False).result(timeout=30) == executor
        assert list(client.scheduler_info(n_workers=-1)["workers"]) == [worker]


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace")
def test_full_disk_pauses_the_worker_and_loses_nothing(cluster: Cluster, tmp_path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "on-a-small-disk"
    script.write_text(f'#!/bin/sh\nmount -t tmpfs -o size=30m none {disk} || exit 1\nexec "$@"\n')
    script.chmod(0o755)
    command = cluster.worker_command.replace("{folder}", str(disk))
    cluster.start_worker(name="a", command=f"unshare -m {script} {command} --memory-limit {LIMIT}")
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        arrays = [client.submit(np.full, 1_250_000, float(n), pure=False) for n in range(40)]

        def status() -> str:
            (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
            return worker["status"]

        wait_until(lambda: status() == "paused", seconds=60, what="a pause")
        worker = cluster.processes[1]
        wait_until(lambda: "cannot be spilled to disk" in worker.output(1_000_000), seconds=60, what="a full disk")
        done = [array for array in arrays if array.status == "finished"]
        assert done
        for array in done[:: max(1, len(done) // 5)]:
            number = arrays.index(array)
            assert array.result(timeout=60).sum() == 1_250_000.0 * number
        del array, done
        # With less to hold it goes on.
        keep = arrays[-1]
        arrays.clear()
        assert keep.result(timeout=120)[0] == 39.0
        wait_until(lambda: status() == "running", seconds=60, what="the end of the pause")
