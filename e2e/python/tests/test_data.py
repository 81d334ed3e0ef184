"""Data that clients put in, move and take out."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from distributed import Client, wait
from distributed.client import FutureCancelledError

from clusters import wait_until


def test_scattered_data_comes_back_and_is_used_by_tasks(client: Client):
    values = client.scatter({"one": 1, "two": [2], "three": np.arange(3)})
    assert client.gather(values["two"]) == [2]
    assert np.array_equal(client.gather(values["three"]), np.arange(3))
    assert client.submit(operator.neg, values["one"]).result(timeout=30) == -1


def test_broadcast_puts_data_on_every_worker(client: Client):
    future = client.scatter([1, 2, 3], broadcast=True)
    for one in future:
        assert len(client.who_has(one)[one.key]) == 2


def test_scatter_to_a_named_worker(client: Client):
    address = sorted(client.nthreads())[0]
    future = client.scatter(b"x" * 1000, workers=[address])
    assert list(client.who_has(future)[future.key]) == [address]


def test_large_and_mixed_values_are_gathered_unchanged(client: Client):
    import pandas as pd

    array = client.submit(np.arange, 2_000_000)
    frame = client.submit(pd.DataFrame, {"a": range(1000), "b": ["x"] * 1000})
    text = client.submit(operator.mul, "ab", 100_000)
    got = client.gather([array, frame, text])
    assert np.array_equal(got[0], np.arange(2_000_000))
    pd.testing.assert_frame_equal(got[1], pd.DataFrame({"a": range(1000), "b": ["x"] * 1000}))
    assert got[2] == "ab" * 100_000


def test_a_key_may_be_a_tuple_or_bytes_long(client: Client):
    graph = {("x", 0, "β"): (operator.neg, 1), "y" * 300: (operator.neg, ("x", 0, "β"))}
    assert client.get(graph, [("x", 0, "β"), "y" * 300]) == [-1, 1]


def test_gather_raises_the_error_of_a_failed_task(client: Client):
    futures = [client.submit(operator.neg, 1), client.submit(operator.truediv, 1, 0)]
    with pytest.raises(ZeroDivisionError):
        client.gather(futures)
    assert client.gather(futures, errors="skip") == [-1]


def test_replicate_and_rebalance_move_data(client: Client):
    futures = client.map(bytes, [10_000] * 4, pure=False)
    wait(futures)
    client.replicate(futures, n=2)
    assert all(len(holders) == 2 for holders in client.who_has(futures).values())
    address = sorted(client.nthreads())[0]
    there = client.scatter([bytes([n]) * 1_000_000 for n in range(8)], workers=[address])
    client.rebalance(there)
    assert client.gather(there) == [bytes([n]) * 1_000_000 for n in range(8)]


def test_released_data_leaves_the_workers(client: Client):
    futures = client.map(operator.neg, range(10), pure=False)
    wait(futures)
    keys = {future.key for future in futures}
    del futures
    wait_until(lambda: not keys & {key for held in client.has_what().values() for key in held})


def test_a_cancelled_future_cannot_be_gathered(client: Client):
    future = client.submit(operator.neg, 5, pure=False)
    wait(future)
    client.cancel(future)
    wait_until(future.cancelled)
    with pytest.raises(FutureCancelledError):
        future.result(timeout=10)


def test_two_clients_share_a_result_until_the_last_has_gone(client: Client):
    future = client.submit(operator.neg, 7, key="shared-between-clients")
    wait(future)
    with Client(client.scheduler.address, set_as_default=False) as other:
        same = other.submit(operator.neg, 7, key="shared-between-clients")
        assert same.result(timeout=30) == -7
        future.release()
        assert same.result(timeout=30) == -7
    wait_until(lambda: "shared-between-clients" not in str(client.has_what()))


def test_nothing_is_recomputed_for_a_persisted_collection(client: Client, tmp_path):
    import dask

    @dask.delayed
    def make(number: int, folder: str) -> int:
        import pathlib
        import uuid

        pathlib.Path(folder, uuid.uuid4().hex).touch()
        return number

    made = [make(n, str(tmp_path)) for n in range(5)]
    persisted = client.persist(made)
    total = client.compute(dask.delayed(sum)(persisted))
    again = client.compute(dask.delayed(max)(persisted))
    assert (total.result(timeout=30), again.result(timeout=30)) == (10, 4)
    assert len(list(tmp_path.iterdir())) == 5
