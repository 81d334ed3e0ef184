"""What a client may ask of the scheduler's state."""

from __future__ import annotations

import operator
import os

import pytest
from distributed import Client, Event, wait

from clusters import wait_until


def ask(client: Client, op: str, **arguments: object) -> object:
    return client.sync(getattr(client.scheduler, op), **arguments)


def test_identity_lists_the_workers_under_their_names(client: Client):
    info = client.scheduler_info(n_workers=-1)
    assert info["type"] == "Scheduler"
    assert info["address"] == client.scheduler.address
    assert {worker["name"] for worker in info["workers"].values()} == {"a", "b"}
    assert all(worker["nthreads"] == 1 for worker in info["workers"].values())
    assert all(worker["status"] == "running" for worker in info["workers"].values())


def test_identity_of_few_workers_still_counts_all(client: Client):
    info = client.scheduler_info(n_workers=1)
    assert len(info["workers"]) == 1
    assert info["n_workers"] == 2
    assert info["total_threads"] == 2


def test_who_has_and_has_what_agree(client: Client):
    futures = client.map(operator.neg, range(6), pure=False)
    wait(futures)
    who_has, has_what = client.who_has(futures), client.has_what()
    assert set(who_has) == {future.key for future in futures}
    for key, holders in who_has.items():
        assert [holder for holder in holders if key in has_what[holder]] == list(holders) != []


def test_nbytes_is_the_size_of_each_result(client: Client):
    future = client.submit(bytes, 100_000)
    wait(future)
    assert 100_000 <= client.nbytes(summary=False)[future.key] < 101_000
    assert client.nbytes(summary=True)["bytes"] == client.nbytes(summary=False)[future.key]


def test_ncores_gives_the_threads_of_each_worker(client: Client):
    assert sorted(client.nthreads().values()) == [1, 1]
    address = next(iter(client.nthreads()))
    assert client.nthreads([address]) == {address: 1}


def test_processing_lists_what_runs(client: Client):
    event = Event("processing-ends")
    future = client.submit(lambda: Event("processing-ends").wait(30), pure=False)
    wait_until(lambda: any(future.key in keys for keys in client.processing().values()))
    event.set()
    assert future.result(timeout=30)
    wait_until(lambda: not any(client.processing().values()))


def test_task_status_follows_a_task_through_its_life(client: Client):
    future = client.submit(operator.neg, 1, pure=False)
    key = future.key
    wait(future)
    assert ask(client, "get_task_status", keys=[key, "unknown"]) == {key: "memory", "unknown": None}
    failed = client.submit(operator.truediv, 1, 0, pure=False)
    wait(failed)
    assert ask(client, "get_task_status", keys=[failed.key]) == {failed.key: "erred"}


def test_versions_of_client_scheduler_and_workers(client: Client):
    versions = client.get_versions(check=False)
    assert set(versions) == {"client", "scheduler", "workers"}
    assert len(versions["workers"]) == 2
    assert versions["scheduler"]["packages"]["distributed"]
    for worker in versions["workers"].values():
        assert worker["packages"]["dask"] == versions["client"]["packages"]["dask"]


def test_metadata_is_kept_by_path(client: Client):
    client.set_metadata(["paths", "x"], {"y": 1})
    assert client.get_metadata(["paths", "x", "y"]) == 1
    client.set_metadata("paths", {"z": [1, 2]})
    assert list(client.get_metadata(["paths", "z"])) == [1, 2]
    assert client.get_metadata(["paths", "missing"], default=None) is None


def test_run_answers_for_each_worker(client: Client):
    pids = client.run(os.getpid)
    assert set(pids) == set(client.nthreads())
    assert len(set(pids.values())) == 2
    address = next(iter(pids))
    assert client.run(os.getpid, workers=[address]) == {address: pids[address]}


def test_run_raises_what_the_function_raised(client: Client):
    with pytest.raises(ZeroDivisionError):
        client.run(operator.truediv, 1, 0)
    errors = client.run(operator.truediv, 1, 0, on_error="return")
    assert all(isinstance(error, ZeroDivisionError) for error in errors.values())


@pytest.mark.skipif(not os.environ.get("OXIDASK_SCHEDULER"), reason="stock answers something else")
def test_an_unknown_operation_is_refused_by_name(client: Client):
    with pytest.raises(Exception, match="make_coffee"):
        ask(client, "make_coffee")
    assert client.submit(operator.neg, 1).result(timeout=30) == -1
