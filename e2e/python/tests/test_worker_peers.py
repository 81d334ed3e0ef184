"""Our worker among others that die, stall or are wrong about what they have."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest
from distributed import Client, get_task_stream, wait
from distributed.core import rpc

from clusters import Cluster, wait_until

# Workers cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

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


@pytest.mark.skipif("OXIDASK_SCHEDULER" not in os.environ, reason="stock stops at an assertion of its own here")
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


def test_transfer_stands_in_the_task_stream_of_who_needed_it(own: Client) -> None:
    here = addresses(own)
    array = own.submit(np.arange, 500_000, workers=[here["a"]], pure=False)
    wait(array)
    with get_task_stream(client=own) as stream:
        for _ in range(2):
            own.submit(lambda x: len(x), array, workers=[here["b"]], pure=False).result(timeout=30)
    first, second = ({step["action"]: step for step in row["startstops"]} for row in stream.data)
    assert first["transfer"]["source"] == here["a"]
    assert first["transfer"]["start"] < first["transfer"]["stop"] <= first["compute"]["start"]
    assert set(second) == {"compute"}, "it came once"


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def transferred_as_files(client: Client, worker: str) -> bool:
    """Moves an array from worker a to `worker`; true if both then hold the same memory file."""
    here = addresses(client)
    array = client.submit(np.arange, 5_000_000, workers=[here["a"]], pure=False)
    wait(array)

    def inode() -> set:
        """Memory files with a large value in the process above the executor's template, which is the worker."""
        parent = os.getppid()
        with open(f"/proc/{parent}/status") as status:
            (above,) = (line.split()[1] for line in status if line.startswith("PPid"))
        held = [os.stat(f"/proc/{above}/fd/{name}") for name in os.listdir(f"/proc/{above}/fd")]
        return {status.st_ino for status in held if status.st_size >= 40_000_000}

    def at_a() -> set:
        return client.run(inode, workers=[here["a"]])[here["a"]]

    wait_until(at_a, what="the array in the hands of worker a")
    before = at_a()
    # Looked at by the task that has it: the scheduler drops copies that nobody needs.
    used = client.submit(lambda x: (int(x.sum()), inode()), array, workers=[here[worker]], pure=False)
    total, there = used.result(timeout=60)
    assert total == 12499997500000 and there
    return bool(before & there)


def test_workers_on_one_host_share_memory_and_those_in_containers_get_a_copy(cluster: Cluster) -> None:
    if not can_unshare():
        pytest.skip("needs mount and pid namespaces")
    cluster.start_worker(name="a")
    cluster.start_worker(name="b")
    # As in a container: it has the same address, but sees other processes and other files.
    contained = "unshare --mount --pid --fork --kill-child --mount-proc " + cluster.worker_command
    cluster.start_worker(name="c", command=contained)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(3, timeout=60)
        hosts = {address.rsplit(":", 1)[0] for address in addresses(client).values()}
        assert len(hosts) == 1, "equal addresses prove nothing"
        assert transferred_as_files(client, "b")
        assert not transferred_as_files(client, "c")
