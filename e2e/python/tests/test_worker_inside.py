"""What code in a task finds: the doors that libraries use, on real processes."""

from __future__ import annotations

import os
import threading
import time

import pytest
from distributed import (
    Client,
    Event,
    Lock,
    Queue,
    Reschedule,
    Variable,
    get_client,
    get_worker,
    rejoin,
    secede,
    worker_client,
)
from distributed.diagnostics.plugin import WorkerPlugin

from clusters import wait_until


def test_get_worker_names_the_address_that_the_scheduler_knows(client: Client) -> None:
    address = client.submit(lambda: get_worker().address).result(timeout=30)
    assert address in client.scheduler_info(n_workers=-1)["workers"]


def test_attributes_that_libraries_read_are_there(client: Client) -> None:
    def read():
        worker = get_worker()
        return (
            worker.name,
            worker.state.nthreads,
            worker.scheduler.address,
            worker.local_directory,
            worker.id,
            worker.get_current_task(),
        )

    name, nthreads, scheduler, _, _, task = client.submit(read, key="read-1").result(timeout=30)
    assert name in ("a", "b")
    assert nthreads == 1
    assert scheduler == client.scheduler.address
    assert task == "read-1"


def test_tasks_submit_tasks_through_get_client(client: Client) -> None:
    def outer(n):
        # A worker has one thread: the tasks of this task need it.
        secede()
        inner = get_client()
        return sum(inner.gather(inner.map(lambda x: x + 1, range(n))))

    assert client.submit(outer, 10).result(timeout=30) == 55


def test_worker_client_gives_up_the_slot_while_it_waits(client: Client) -> None:
    def outer(n):
        with worker_client() as inner:
            return sum(inner.gather(inner.map(lambda x: x * 2, range(n))))

    futures = [client.submit(outer, n) for n in (5, 10, 15)]
    assert client.gather(futures) == [20, 90, 210]


def test_secede_and_rejoin_free_and_take_a_slot(client: Client) -> None:
    def run(_):
        secede()
        time.sleep(0.05)
        rejoin()
        return threading.current_thread().name

    assert len(client.gather(client.map(run, range(4), pure=False))) == 4


def test_nested_compute_goes_to_the_cluster(client: Client) -> None:
    def outer():
        import dask

        return dask.compute(dask.delayed(sum)([1, 2, 3]))[0]

    assert client.submit(outer).result(timeout=30) == 6


def test_coordination_from_inside_a_task(client: Client) -> None:
    def run():
        with Lock("inside-lock"):
            Queue("inside-queue").put(3)
            Variable("inside-variable").set(4)
            Event("inside-event").set()

    client.submit(run).result(timeout=30)
    assert Queue("inside-queue").get(timeout=10) == 3
    assert Variable("inside-variable").get(timeout=10) == 4
    assert Event("inside-event").is_set()


def test_scatter_inside_a_task_places_the_value_here(client: Client) -> None:
    def run():
        with worker_client() as inner:
            future = inner.scatter([1, 2, 3])
            return inner.submit(sum, future).result()

    assert client.submit(run).result(timeout=30) == 6


def test_local_data_is_read_without_the_network(client: Client) -> None:
    value = client.submit(list, range(10_000), workers=["a"])
    value.result(timeout=30)
    assert client.submit(lambda key: len(get_worker().data[key]), value.key, workers=["a"]).result(timeout=30) == 10_000


def test_coroutine_tasks_run_on_the_loop(client: Client) -> None:
    async def run(x):
        import asyncio

        await asyncio.sleep(0.01)
        return x + 1

    assert client.submit(run, 1).result(timeout=30) == 2


def test_actors_answer_clients_and_other_workers(client: Client) -> None:
    class Counter:
        n = 0

        def add(self, k):
            self.n += k
            return self.n

    counter = client.submit(Counter, actor=True, workers=["a"]).result(timeout=30)
    assert counter.add(5).result() == 5
    assert client.submit(lambda c: c.add(2).result(), counter, workers=["b"]).result(timeout=30) == 7
    assert counter.n == 7


def test_reschedule_places_the_task_again(client: Client) -> None:
    def run():
        worker = get_worker()
        if not hasattr(worker, "rescheduled_once"):
            worker.rescheduled_once = True
            raise Reschedule
        return "again"

    assert client.submit(run).result(timeout=30) == "again"


def test_result_that_cannot_be_pickled_stays_and_its_dependants_go_to_it(client: Client) -> None:
    # A scheduler that sees other work there may give the dependant to an idle worker.
    wait_until(lambda: not any(client.processing().values()), what="the end of what ran before")
    lock = client.submit(threading.Lock)
    assert client.submit(lambda lock: lock.acquire(blocking=False), lock).result(timeout=30) is True
    with pytest.raises(TypeError, match="Could not serialize object of type lock"):
        lock.result(timeout=30)


def test_error_carries_the_users_traceback(client: Client) -> None:
    def inner(x):
        return 1 / x

    def outer(x):
        return inner(x)

    with pytest.raises(ZeroDivisionError) as caught:
        client.submit(outer, 0).result(timeout=30)
    names = [entry.name for entry in caught.traceback]
    assert names[-2:] == ["outer", "inner"]


def test_failing_sizeof_and_unknown_executor_are_errors_of_the_task_alone(client: Client) -> None:
    import dask

    with dask.annotate(executor="nowhere"):
        future = client.submit(sum, [1])
    with pytest.raises(ValueError, match="Invalid executor 'nowhere'"):
        future.result(timeout=30)
    assert client.submit(sum, [1, 2]).result(timeout=30) == 3


def test_plugin_hears_of_transitions(own: Client) -> None:
    class Listener(WorkerPlugin):
        name = "listener"

        def setup(self, worker):
            self.worker = worker
            worker.heard = []

        def transition(self, key, start, finish, **kwargs):
            self.worker.heard.append((key, start, finish))

    own.register_plugin(Listener())
    own.submit(sum, [1, 2], key="heard-1").result(timeout=30)

    def heard(dask_worker):
        return [(start, finish) for key, start, finish in dask_worker.heard if key == "heard-1"]

    expected = ("executing", "memory")
    wait_until(lambda: any(expected in rows for rows in own.run(heard).values()), what="a plugin hears it")


def test_uploaded_module_is_found_by_tasks(own: Client, tmp_path) -> None:
    module = tmp_path / "uploaded_module.py"
    module.write_text("def answer(): return 42\n")
    own.upload_file(str(module))

    def run():
        import uploaded_module

        return uploaded_module.answer()

    assert own.submit(run).result(timeout=30) == 42


def test_call_stack_and_profile_show_the_running_task(own: Client) -> None:
    started = Event("stack-started")

    def run():
        Event("stack-started").set()
        time.sleep(5)

    future = own.submit(run)
    started.wait(timeout=30)
    assert own.call_stack([future])
    wait_until(lambda: own.profile()["count"] > 0, what="samples")
    future.cancel()


@pytest.mark.skipif("OXIDASK_WORKER" not in os.environ, reason="stock has all attributes")
def test_worker_attribute_that_is_missing_raises_at_the_users_line(client: Client) -> None:
    with pytest.raises(NotImplementedError, match=r"Worker\.batched_stream is not provided"):
        client.submit(lambda: get_worker().batched_stream).result(timeout=30)
