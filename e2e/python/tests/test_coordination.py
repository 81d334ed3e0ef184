"""Locks, queues and the like, between clients and tasks."""

from __future__ import annotations

import operator

import pytest
from distributed import (
    Client,
    Event,
    Lock,
    MultiLock,
    Queue,
    Semaphore,
    TimeoutError,
    Variable,
)

from clusters import Cluster, wait_until


def test_a_lock_is_held_by_one_at_a_time(client: Client):
    first, second = Lock("door"), Lock("door")
    assert first.acquire(timeout=10)
    assert not second.acquire(timeout=0.2)
    first.release()
    assert second.acquire(timeout=10)
    second.release()
    with pytest.raises(RuntimeError):
        second.release()


def test_tasks_exclude_each_other_by_a_lock(client: Client, tmp_path):
    def add_one(path: str) -> None:
        import pathlib

        with Lock("counter"):
            file = pathlib.Path(path)
            file.write_text(str(int(file.read_text()) + 1))

    counter = tmp_path / "counter"
    counter.write_text("0")
    client.gather(client.map(lambda _, path: add_one(path), range(20), path=str(counter), pure=False))
    assert counter.read_text() == "20"


def test_a_semaphore_gives_its_leases_and_no_more(client: Client):
    semaphore = Semaphore(max_leases=2, name="two")
    assert semaphore.acquire(timeout=10) and semaphore.acquire(timeout=10)
    assert not semaphore.acquire(timeout=0.2)
    assert semaphore.get_value() == 2
    semaphore.release()
    assert semaphore.acquire(timeout=10)
    semaphore.close()


def test_the_lease_of_one_that_was_killed_expires(commands):
    short = {
        "DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_TIMEOUT": "1s",
        "DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_VALIDATION_INTERVAL": "100ms",
    }
    with Cluster(commands.scheduler, commands.worker, **short) as cluster:
        holder = cluster.start_worker()
        with Client(cluster.address, timeout=30) as client:
            held = client.submit(lambda: Semaphore(max_leases=1, name="left").acquire(timeout=10))
            assert held.result(timeout=30)
            waiting = Semaphore(max_leases=1, name="left")
            assert not waiting.acquire(timeout=0.2)
            holder.kill()
            assert waiting.acquire(timeout=15)


def test_an_event_wakes_all_who_wait(client: Client):
    futures = client.map(lambda _: Event("gate").wait(30), range(2), pure=False)
    event = Event("gate", client=client)
    assert not event.is_set()
    assert not event.wait(timeout=0.1)
    event.set()
    assert client.gather(futures) == [True, True]
    event.clear()
    assert not event.is_set()


def test_a_queue_passes_values_and_futures_in_order(client: Client):
    queue = Queue("line", client=client)
    future = client.submit(operator.neg, 1)
    queue.put(1)
    queue.put({"two": [2]})
    queue.put(future)
    assert queue.qsize() == 3
    assert queue.get(timeout=10) == 1
    assert queue.get(timeout=10) == {"two": (2,)}
    assert queue.get(timeout=10).result(timeout=30) == -1
    with pytest.raises(TimeoutError):
        queue.get(timeout=0.1)
    queue.close()


def test_a_full_queue_makes_the_putter_wait(client: Client):
    queue = Queue("short line", maxsize=1, client=client)
    queue.put(1)
    with pytest.raises(TimeoutError):
        queue.put(2, timeout=0.1)
    assert queue.get(timeout=10) == 1
    queue.put(3, timeout=10)
    assert queue.get(batch=True) == [3]
    queue.close()


def test_a_variable_keeps_a_future_alive_for_others(client: Client):
    variable = Variable("board", client=client)
    variable.set(client.submit(operator.neg, 11, pure=False))
    with Client(client.scheduler.address, set_as_default=False) as other:
        assert Variable("board", client=other).get(timeout=10).result(timeout=30) == -11
    variable.set([1, "two"])
    assert list(variable.get()) == [1, "two"]
    variable.delete()

    def gone() -> bool:
        # The deletion travels on the client's stream, which nothing orders with requests, in stock Dask neither.
        try:
            variable.get(timeout=0.1)
        except TimeoutError:
            return True
        return False

    wait_until(gone)


def test_a_multilock_takes_all_or_waits(client: Client):
    both, left = MultiLock(["left", "right"]), MultiLock(["left"])
    assert both.acquire(timeout=10)
    assert not left.acquire(timeout=0.2)
    both.release()
    assert left.acquire(timeout=10)
    left.release()


def test_published_data_outlives_its_client(client: Client):
    with Client(client.scheduler.address, set_as_default=False) as other:
        other.publish_dataset(numbers=other.map(operator.neg, range(3)))
        assert "numbers" in other.list_datasets()
    assert client.gather(client.get_dataset("numbers")) == [0, -1, -2]
    with pytest.raises(KeyError):
        client.publish_dataset(numbers=1)
    client.unpublish_dataset("numbers")
    wait_until(lambda: "numbers" not in client.list_datasets())
    with pytest.raises(KeyError):
        client.get_dataset("numbers")


@pytest.mark.parametrize("name", [("a", "b"), 9.0, 8])
def test_data_are_published_under_names_of_any_type(client: Client, name):
    future = client.submit(operator.neg, 1, pure=False)
    client.publish_dataset(future, name=name)
    assert client.list_datasets() == (name,)
    assert client.get_dataset(name).result(timeout=30) == -1
    client.unpublish_dataset(name)
    assert client.list_datasets() == ()


@pytest.mark.parametrize("name", ["text", ("a", 1), 7])
def test_events_and_locks_may_have_names_of_any_type(client: Client, name):
    event = Event(name)
    assert not event.is_set()
    event.set()
    assert Event(name).wait(timeout=10)
    event.clear()
    lock = Lock(name)
    assert lock.acquire(timeout=10)
    assert not Lock(name).acquire(timeout="50 ms")
    lock.release()


def test_an_actor_keeps_its_state_between_calls(client: Client):
    class Counter:
        total = 0

        def add(self, number: int) -> int:
            self.total += number
            return self.total

    counter = client.submit(Counter, actor=True).result(timeout=30)
    assert counter.add(2).result(timeout=30) == 2
    assert counter.add(3).result(timeout=30) == 5
    assert counter.total == 5
    assert client.submit(lambda actor: actor.add(1).result(), counter).result(timeout=30) == 6


def test_a_task_may_submit_tasks_and_wait_for_them(client: Client):
    def fib(n: int) -> int:
        from distributed import worker_client

        if n < 2:
            return n
        with worker_client() as inner:
            return sum(inner.gather(inner.map(fib, [n - 1, n - 2])))

    assert client.submit(fib, 6).result(timeout=60) == 8
