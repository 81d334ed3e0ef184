"""Plugins, events, streams and what progress bars listen to."""

from __future__ import annotations

import operator

import pytest
from distributed import Client, SchedulerPlugin, WorkerPlugin, wait

from clusters import wait_until


def test_a_worker_plugin_is_set_up_now_and_on_workers_to_come(cluster, own: Client):
    class Marks(WorkerPlugin):
        name = "marks"

        def setup(self, worker) -> None:
            worker.marked = 7

        def teardown(self, worker) -> None:
            del worker.marked

    own.register_plugin(Marks())
    assert set(own.run(lambda dask_worker: dask_worker.marked).values()) == {7}
    cluster.start_worker(name="c")
    own.wait_for_workers(3, timeout=30)
    assert list(own.run(lambda dask_worker: dask_worker.marked).values()) == [7, 7, 7]
    own.unregister_worker_plugin("marks")
    assert set(own.run(lambda dask_worker: hasattr(dask_worker, "marked")).values()) == {False}


def test_events_are_logged_by_topic_and_sent_to_subscribers(client: Client):
    seen: list = []
    client.subscribe_topic("weather", lambda event: seen.append(event[1]))

    def listening() -> bool:
        # The subscription and the event travel on two connections, in no order.
        client.log_event("weather", "calm")
        return bool(seen)

    wait_until(listening)
    client.log_event("weather", "rain")
    client.submit(lambda: __import__("distributed").get_worker().log_event("weather", {"wind": 3})).result(timeout=30)
    wait_until(lambda: len([event for event in seen if event != "calm"]) == 2)
    assert seen[-2] == "rain" and seen[-1]["wind"] == 3
    assert client.get_events("weather")[0][1] == "calm"
    client.unsubscribe_topic("weather")


def test_print_in_a_task_reaches_the_client(client: Client, capsys):
    client.submit(lambda: __import__("distributed").print("from the task"), pure=False).result(timeout=30)
    out: list[str] = []

    def arrived() -> bool:
        out.append(capsys.readouterr().out)
        return "from the task" in "".join(out)

    wait_until(arrived)


def test_the_task_stream_tells_where_and_when_tasks_ran(client: Client):
    client.get_task_stream(count=1)  # the first call starts the recording
    futures = client.map(operator.neg, range(5), pure=False)
    wait(futures)

    def recorded() -> set:
        return {row["key"] for row in client.get_task_stream()}

    wait_until(lambda: {future.key for future in futures} <= recorded())
    row = next(row for row in client.get_task_stream() if row["key"] == futures[0].key)
    assert row["worker"] in client.nthreads()
    assert row["startstops"][0]["start"] <= row["startstops"][0]["stop"]


def test_a_progress_bar_sees_all_tasks_finish(client: Client, capsys):
    from distributed import progress

    futures = client.map(operator.neg, range(10), pure=False)
    progress(futures, notebook=False)
    assert "100%" in capsys.readouterr().out


def test_functions_run_beside_the_scheduler(client: Client):
    def names(dask_scheduler) -> list[str]:
        return sorted(str(worker.name) for worker in dask_scheduler.workers.values())

    assert client.run_on_scheduler(names) == ["a", "b"]
    with pytest.raises(ZeroDivisionError):
        client.run_on_scheduler(operator.truediv, 1, 0)


def test_a_scheduler_plugin_works_or_is_refused_in_words(client: Client):
    class Counts(SchedulerPlugin):
        name = "counts"

    try:
        client.register_plugin(Counts())
    except Exception as error:
        assert "plugin" in str(error).lower()
    assert client.submit(operator.neg, 1, pure=False).result(timeout=30) == -1
