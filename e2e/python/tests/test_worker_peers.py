"""Our worker among others that die, stall or are wrong about what they have."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from distributed import Client
from distributed.core import rpc

from clusters import Cluster, wait_until

pytestmark = pytest.mark.skipif("OXIDASK_WORKER" not in os.environ, reason="about our worker")


def addresses(client: Client) -> dict[str, str]:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {worker["name"]: address for address, worker in workers.items()}


def task_state(client: Client, worker: str, key: str) -> str | None:
    async def ask():
        async with rpc(worker) as peer:
            return await peer.dump_state()

    return client.sync(ask)["tasks"].get(key, {}).get("state")


def test_holder_killed_in_a_transfer_costs_a_computation_and_no_more(own: Client, cluster: Cluster) -> None:
    array = own.submit(np.arange, 5_000_000, workers=["a"], allow_other_workers=True, key="array")
    array.result(timeout=30)
    a, b = cluster.processes[1:]
    here = addresses(own)
    os.kill(a.pid, signal.SIGSTOP)
    try:
        total = own.submit(lambda x: int(x.sum()), array, workers=["b"], key="total")
        wait_until(lambda: task_state(own, here["b"], "array") == "flight", what="the transfer")
    finally:
        os.kill(a.pid, signal.SIGKILL)
    assert total.result(timeout=120) == 12499997500000
    assert b.is_alive()


def test_holder_that_does_not_have_it_is_passed_over(own: Client, cluster: Cluster) -> None:
    cluster.start_worker(name="c")
    own.wait_for_workers(3, timeout=30)
    here = addresses(own)
    value = own.scatter({"value": list(range(1000))}, workers=[here["b"]])["value"]
    own.sync(own.scheduler.update_data, who_has={"value": [here["a"]]}, nbytes={"value": 8000}, client=own.id)
    assert set(own.who_has([value])["value"]) == {here["a"], here["b"]}
    for _ in range(5):
        assert own.submit(sum, value, workers=["c"], pure=False).result(timeout=30) == 499500


def test_value_that_nobody_has_after_all_is_lost_and_not_waited_for(own: Client) -> None:
    here = addresses(own)
    value = own.scatter({"value": [1, 2, 3]}, workers=[here["a"]])["value"]

    async def take_it_away():
        async with rpc(here["a"]) as peer:
            await peer.free_keys(keys=["value"], stimulus_id="test")

    own.sync(take_it_away)
    future = own.submit(sum, value, workers=["b"])
    wait_until(lambda: future.status in ("cancelled", "lost", "error"), seconds=60, what="the loss is known")


def test_lost_scheduler_ends_the_worker(cluster: Cluster) -> None:
    worker = cluster.start_worker(name="a")
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
    cluster.scheduler.kill()
    wait_until(lambda: not worker.is_alive(), seconds=30, what="the worker ends")


def test_worker_that_cannot_reach_its_scheduler_gives_up_when_told_to(cluster: Cluster) -> None:
    cluster.scheduler.kill()
    worker = cluster.start_worker(command=f"{cluster.worker_command} --death-timeout 1")
    wait_until(lambda: not worker.is_alive(), seconds=30, what="the worker gives up")
    assert "failed to reach scheduler" in worker.output(100_000)


def test_values_cross_between_workers_of_one_process_without_a_copy(cluster: Cluster) -> None:
    program = os.environ["OXIDASK_WORKER"]
    command = f"{program} {{scheduler}} --host {{host}} --nthreads 1 --no-dashboard --nworkers 2 --local-directory"
    cluster.start_worker(command=f"{command} {{folder}}")
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(2, timeout=30)
        a, b = client.scheduler_info(n_workers=-1)["workers"]
        array = client.submit(np.arange, 20_000_000, workers=[a])

        def files(_array) -> set[str]:
            """The memory files that this process has mapped."""
            with open("/proc/self/maps") as maps:
                return {line.split()[4] for line in maps if "memfd:oxidask-value" in line}

        assert client.submit(lambda x: int(x[-1]), array, workers=[b]).result(timeout=30) == 19_999_999
        (mapped,) = client.submit(files, array, workers=[b]).result(timeout=30)
        parent = cluster.processes[1].pid
        held = [os.stat(f"/proc/{parent}/fd/{name}") for name in os.listdir(f"/proc/{parent}/fd")]
        large = {status.st_ino for status in held if status.st_size >= 160_000_000}
        assert large == {int(mapped)}, "one file holds the array, for both workers"
