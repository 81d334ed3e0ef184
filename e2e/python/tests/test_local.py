"""`oxidask.LocalCluster`, `experiment` and the tutorial's programs, as a user runs them.

The programs are named by OXIDASK_SCHEDULER, OXIDASK_WORKER and OXIDASK_CLI; without them there is nothing to test.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "python"))

NEEDED = ("OXIDASK_SCHEDULER", "OXIDASK_WORKER", "OXIDASK_CLI")
pytestmark = pytest.mark.skipif(any(name not in os.environ for name in NEEDED), reason=f"needs {', '.join(NEEDED)}")


def cluster(**options):
    from oxidask import LocalCluster

    return LocalCluster(dashboard_address=None, **{"n_workers": 2, "threads_per_worker": 1, **options})


def test_client_takes_the_cluster_as_it_is():
    with cluster() as ours, Client(ours) as client:
        client.wait_for_workers(2)
        assert client.submit(sum, [1, 2, 3]).result() == 6
        assert set(client.nthreads().values()) == {1}
        assert "LocalCluster" in repr(ours)
        assert "tcp://127.0.0.1" in ours._repr_html_()


def test_cluster_scales_up_and_down():
    with cluster(n_workers=1) as ours, Client(ours) as client:
        ours.scale(3)
        client.wait_for_workers(3)
        ours.scale(1)
        wait_for(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 1)


def test_adaptive_cluster_grows_with_its_work():
    with cluster(n_workers=0) as ours, Client(ours) as client:
        ours.adapt(minimum=0, maximum=2, interval="50ms")
        assert client.gather(client.map(lambda x: x + 1, range(10))) == list(range(1, 11))


def test_asynchronous_cluster():
    async def main():
        async with cluster(asynchronous=True) as ours, Client(ours, asynchronous=True) as client:
            assert await client.submit(len, "abc") == 3

    asyncio.run(main())


def test_closed_cluster_leaves_no_process():
    ours = cluster()
    pids = [ours.scheduler._process.pid, *(worker._process.pid for worker in ours.workers.values())]
    ours.close()
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids))


def test_what_cannot_be_is_refused_with_a_reason():
    with pytest.raises(ValueError, match="processes=False"):
        cluster(processes=False)


def test_experiment_gives_a_table_and_a_plot(tmp_path):
    from oxidask import experiment

    table, plot = experiment("pi", sizes=[100_000_000], tasks=8, workers=[1, 2], repeats=1)
    assert list(table.workers) == [1, 2]
    assert (table.seconds > 0).all() and (table.control_seconds > 0).all()
    assert plot._repr_svg_().lstrip().startswith("<svg")
    plot.save(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_report_says_that_the_tutorials_product_is_one_task():
    command = [os.environ["OXIDASK_CLI"], "experiment", "matmul", "--tutorial", "--workers", "1,2", "--repeats", "1"]
    text = subprocess.run([*command, "--no-control"], check=True, capture_output=True, text=True).stdout
    assert "too few tasks" in text and "one chunk" in text and "BLAS" in text


@pytest.mark.parametrize("program", ["matmul.py", "pi.py"])
def test_tutorials_programs_run(program):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    command = [sys.executable, str(ROOT / "examples/tutorial" / program), "127.0.0.1", "2", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"nodes=2 cores=1 .*seconds=\d", done.stdout)


def wait_for(condition, seconds=30):
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
