"""What a team's code does with a cluster, small: each function raises when an answer is wrong."""

from __future__ import annotations

import operator
import time

import distributed
from distributed import Client, Event, Lock, Queue, Semaphore, Variable, as_completed, wait


def results(client: Client) -> None:
    assert client.submit(operator.add, 1, 2).result(timeout=60) == 3
    futures = client.map(operator.neg, range(100))
    assert client.gather(futures) == [-i for i in range(100)]
    assert client.submit(sum, futures).result(timeout=60) == -4950
    assert sum(future.result() for future in as_completed(futures[:10])) == -45


class Opener:
    """What unpickles it says which version of distributed it has."""

    def __reduce__(self) -> tuple:
        return eval, ("__import__('distributed').__version__",)


def graphs_open_in_their_environment(client: Client) -> None:
    # Opened with the graph, the object is a text by the time that a worker gets it.
    opened = client.submit(str, Opener(), pure=False).result(timeout=60)
    assert opened == distributed.__version__, f"graph opened by {opened}"


def errors(client: Client) -> None:
    failed = client.submit(operator.truediv, 1, 0)
    assert isinstance(failed.exception(timeout=60), ZeroDivisionError)
    dependent = client.submit(operator.neg, failed)
    assert isinstance(dependent.exception(timeout=60), ZeroDivisionError)


def cancelling(client: Client) -> None:
    future = client.submit(time.sleep, 30)
    client.cancel([future])
    assert future.cancelled()


def scattered_data(client: Client) -> None:
    data = client.scatter({"versions-x": list(range(10))}, broadcast=True)
    assert client.submit(sum, data["versions-x"]).result(timeout=60) == 45
    assert len(client.who_has([data["versions-x"]])["versions-x"]) == 2


def coordination(client: Client) -> None:
    variable, queue = Variable("versions", client=client), Queue("versions", client=client)
    variable.set(client.submit(operator.neg, 7))
    assert variable.get(timeout=60).result(timeout=60) == -7
    queue.put(1)
    assert queue.get(timeout=60) == 1
    with Lock("versions", client=client):
        pass
    with Semaphore(max_leases=2, name="versions-2", scheduler_rpc=client.scheduler, loop=client.loop):
        pass
    event = Event("versions", client=client)
    event.set()
    assert event.wait(timeout=60)


def datasets(client: Client) -> None:
    client.publish_dataset(client.submit(operator.neg, 3), name="versions")
    assert client.get_dataset("versions").result(timeout=60) == -3
    assert "versions" in client.list_datasets()
    client.unpublish_dataset("versions")


def actors(client: Client) -> None:
    # Defined here, so that it travels by value: the servers have no such module.
    class Counter:
        def __init__(self) -> None:
            self.n = 0

        def increment(self) -> int:
            self.n += 1
            return self.n

    counter = client.submit(Counter, actor=True).result(timeout=60)
    assert [counter.increment().result() for _ in range(3)] == [1, 2, 3]


def code_on_servers(client: Client) -> None:
    assert set(client.run(lambda: 1 + 1).values()) == {2}
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.workers)) == 2


def arrays(client: Client) -> None:
    import dask.array as da

    x = da.ones((400, 400), chunks=(100, 100))
    assert (x + x.T).sum().compute() == 2 * 400 * 400


def bags(client: Client) -> None:
    import dask.bag as db

    assert db.range(100, npartitions=4).map(lambda n: n % 3).frequencies().compute()


def dataframes(client: Client) -> None:
    import dask.dataframe as dd
    import pandas as pd

    frame = pd.DataFrame({"key": [i % 7 for i in range(700)], "value": range(700)})
    data = dd.from_pandas(frame, npartitions=7)
    assert data.groupby("key").value.sum().compute().sum() == frame.value.sum()
    # Through P2P where it is the default.
    assert len(data.shuffle("key").compute()) == 700
    other = pd.DataFrame({"key": range(7), "name": list("abcdefg")})
    merged = data.merge(dd.from_pandas(other, npartitions=2), on="key").compute()
    assert len(merged) == 700


def workers_that_go(client: Client) -> None:
    futures = client.map(operator.neg, range(20), pure=False)
    wait(futures, timeout=60)
    leaving = next(iter(client.has_what()))
    client.retire_workers([leaving])
    assert client.gather(futures) == [-i for i in range(20)]
    assert leaving not in client.has_what()


#: In order; the last leaves one worker.
PARTS = [
    results,
    graphs_open_in_their_environment,
    errors,
    cancelling,
    scattered_data,
    coordination,
    datasets,
    actors,
    code_on_servers,
    arrays,
    bags,
    dataframes,
    workers_that_go,
]
