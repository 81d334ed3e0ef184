"""What a client may do to workers, tasks and the cluster: restrict, look inside, restart, leave and come back."""

from __future__ import annotations

import operator
import time

import pytest
from distributed import Client, Event, wait

from clusters import Cluster, wait_until


def test_call_stacks_and_profiles_show_what_runs(own: Client):
    event = Event("operations-stack", client=own)
    future = own.submit(lambda: Event("operations-stack").wait(), key="operations-stack")
    wait_until(lambda: any(own.call_stack().values()))
    (stacks,) = own.call_stack([future]).values()
    assert any("wait" in line for line in stacks["operations-stack"])
    wait_until(lambda: own.profile()["count"] > 0, what="samples of the profile")
    event.set()
    future.result(timeout=30)


def test_a_waiting_task_goes_where_it_is_restricted_to_later(own: Client):
    first, second = sorted(own.scheduler_info()["workers"])
    for at in (first, second):
        event = Event("operations-restrict", client=own)
        block = own.submit(lambda: Event("operations-restrict").wait(), key=f"operations-block-{at}", pure=False)
        future = own.submit(operator.not_, block, key=f"operations-restricted-{at}")
        key = future.key
        wait_until(lambda key=key: own.sync(own.scheduler.get_task_status, keys=[key])[key] == "waiting")
        own.sync(own.scheduler.set_restrictions, worker={key: [at]})
        event.set()
        wait(future, timeout=30)
        assert list(own.who_has(future)[future.key]) == [at]
        event.clear()


def test_resources_that_a_worker_gets_later_count(own: Client):
    future = own.submit(operator.neg, 1, resources={"LATE": 1})
    (address, _) = sorted(own.scheduler_info()["workers"])

    async def give(dask_worker) -> None:
        await dask_worker.set_resources(LATE=1)

    assert future.status == "pending"
    own.run(give, workers=[address])
    assert future.result(timeout=30) == -1
    assert list(own.who_has(future)[future.key]) == [address]


def test_workers_with_a_nanny_are_restarted_one_by_one(commands):
    worker = commands.worker.replace("--no-nanny", "--nanny")
    with Cluster(commands.scheduler, worker) as cluster, Client(cluster.address, timeout=30) as client:
        for name in ("a", "b"):
            cluster.start_worker(name=name)
        client.wait_for_workers(2, timeout=60)
        pids = client.run(lambda: __import__("os").getpid())
        (address, other) = sorted(pids)
        assert client.restart_workers([address], timeout=60) == {address: "OK"}
        client.wait_for_workers(2, timeout=60)
        after = client.run(lambda: __import__("os").getpid())
        assert after[other] == pids[other]
        assert not set(after.values()) - {pids[other]} & set(pids.values())
        assert client.submit(operator.neg, 1).result(timeout=30) == -1


def test_workers_without_a_nanny_are_not_restarted(own: Client):
    addresses = list(own.scheduler_info()["workers"])
    with pytest.raises(ValueError, match="nann"):
        own.restart_workers(addresses)
    assert len(own.scheduler_info()["workers"]) == 2


def test_a_client_that_lost_its_connection_comes_back_under_its_id(own: Client):
    name = own.id
    future = own.submit(operator.neg, 1, key="operations-before")
    wait(future)
    own.loop.add_callback(own.scheduler_comm.comm.abort)
    wait_until(lambda: future.status == "cancelled")
    wait_until(lambda: own.status == "running")
    assert own.id == name
    assert own.submit(operator.neg, 2).result(timeout=30) == -2
    clients = own.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.clients))
    assert clients.count(name) == 1
    # What it wanted before is not kept for it, as it does not want it any more.
    wait_until(lambda: "operations-before" not in own.who_has())


def test_shutdown_ends_the_scheduler_and_its_workers(cluster: Cluster):
    for name in ("a", "b"):
        cluster.start_worker(name=name)
    client = Client(cluster.address, timeout=30)
    client.wait_for_workers(2, timeout=30)
    client.shutdown()
    assert client.status == "closed"
    wait_until(lambda: not any(process.is_alive() for process in cluster.processes))


def test_a_graph_that_comes_before_any_worker_waits(cluster: Cluster):
    with Client(cluster.address, timeout=30) as client:
        start = time.monotonic()
        future = client.submit(operator.neg, 1)
        assert future.status == "pending" and time.monotonic() - start < 10
        cluster.start_worker(name="late")
        assert future.result(timeout=30) == -1
