"""Graphs whose unpickling does harm. Their keys err in words, others' graphs go on, memory returns."""

from __future__ import annotations

import operator
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest
from conftest import OURS
from distributed import Client
from hostile import SHORT_LOGS, HonestWork, memory_returns

from clusters import Cluster

pytestmark = pytest.mark.skipif(not OURS, reason="stock unpickles graphs in the scheduler itself")

#: Seconds that a graph may take. Far more than any honest graph of these tests needs.
TIMEOUT = 8


class Trap:
    """An argument whose unpickling calls a function of the standard library."""

    def __init__(self, function: object, *arguments: object):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture(scope="module")
def cluster_of_all(commands) -> Iterator[Cluster]:
    strict = {
        "DASK_OXIDASK__GRAPH__TIMEOUT": f"{TIMEOUT}s",
        "DASK_OXIDASK__GRAPH__MEMORY_LIMIT": "600 MiB",
        **SHORT_LOGS,
    }
    with Cluster(commands.scheduler, commands.worker, **strict) as cluster:
        cluster.start_worker()
        yield cluster


@pytest.fixture
def offender(cluster_of_all: Cluster) -> Iterator[Client]:
    """A client that does harm while another works honestly."""
    address = cluster_of_all.address
    with HonestWork(cluster_of_all), memory_returns(cluster_of_all), Client(address, timeout=30) as client:
        yield client
        assert client.submit(operator.neg, 7, pure=False).result(timeout=60) == -7, "it is not shut out"


ENDLESS = "[bytearray(1 << 24) for _ in iter(int, 1)]"


@pytest.mark.parametrize(
    ("trap", "told"),
    [
        pytest.param(Trap(int, "not a number"), ["not a number"], id="raises"),
        pytest.param(Trap(os._exit, 3), [sys.executable, "exit status: 3"], id="exits"),
        pytest.param(Trap(os.abort), [sys.executable, "signal: 6"], id="aborts"),
        pytest.param(Trap(sys.exit, "enough"), ["enough"], id="asks to exit"),
        pytest.param(
            Trap(__import__, "module_that_nobody_has"), [sys.executable, "module_that_nobody_has"], id="lacks a module"
        ),
        pytest.param(Trap(eval, ENDLESS), ["MemoryError"], id="allocates without end"),
        pytest.param(Trap(time.sleep, 10_000), [sys.executable, f"{TIMEOUT} s", "oxidask.graph.timeout"], id="sleeps"),
    ],
)
def test_a_graph_whose_unpickling_does_harm_errs_its_keys_in_words(offender: Client, trap: Trap, told: list[str]):
    futures = [offender.submit(operator.truth, trap, pure=False) for _ in range(2)]
    for future in futures:
        error = future.exception(timeout=90)
        text = in_words(error)
        assert all(word in text for word in told), text


def in_words(error: BaseException | None) -> str:
    """The exception with those that caused it."""
    texts = []
    while error is not None:
        texts.append(repr(error))
        error = error.__cause__
    return "\n".join(texts)


def test_a_module_of_the_user_that_the_scheduler_lacks_is_named(offender: Client, tmp_path, monkeypatch):
    (tmp_path / "only_at_the_client.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_at_the_client

    error = offender.submit(only_at_the_client.double, 2, pure=False).exception(timeout=60)
    text = in_words(error)
    assert "only_at_the_client" in text and sys.executable in text, text


def test_who_gives_up_a_graph_that_sleeps_is_free_at_once(offender: Client):
    future = offender.submit(operator.truth, Trap(time.sleep, 10_000), pure=False)
    future.cancel()
    with pytest.raises(CancelledError):
        future.result(timeout=30)
    del future
    assert offender.submit(operator.neg, 5, pure=False).result(timeout=60) == -5
