"""What a client may ask beside computing: stories, dumps, reports, samplers, spans, plugins on the scheduler."""

from __future__ import annotations

import operator
import os
import time
from pathlib import Path

import distributed.versions
import pytest
from distributed import Client, get_worker, performance_report, span, wait
from distributed.active_memory_manager import ActiveMemoryManagerPolicy
from distributed.cluster_dump import DumpArtefact
from distributed.diagnostics import MemorySampler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import NoWorkerError
from distributed.utils_test import slowinc

from clusters import Cluster, wait_until


def test_a_story_tells_of_scheduler_and_workers(client: Client):
    future = client.submit(operator.neg, 1, key="surface-story")
    wait(future)
    story = client.story("surface-story")
    assert {row[0] for row in story} > {"scheduler"}
    assert [row[2:4] for row in story if row[0] == "scheduler"][-1] == ("processing", "memory")


def test_the_memory_manager_is_started_and_stopped(client: Client):
    assert client.amm.running()
    client.amm.stop()
    assert not client.amm.running()
    client.amm.run_once()
    client.amm.start()
    assert client.amm.running()


@pytest.mark.skipif("OXIDASK_SCHEDULER" not in os.environ, reason="stock lets in whoever comes")
def test_a_client_of_another_age_is_told_its_version_and_ours(shared: Cluster, monkeypatch: pytest.MonkeyPatch):
    versions = distributed.versions.get_versions()
    versions["packages"]["distributed"] = "2024.12.1"
    monkeypatch.setattr(distributed.versions, "get_versions", lambda: versions)
    with pytest.raises(ImportError, match=r"2024\.12\.1.* older .*oxidask .*2025\.4 to 2026\.8"):
        Client(shared.address, timeout=30)


def test_policies_of_users_run_beside_the_scheduler(own: Client):
    class Twice(ActiveMemoryManagerPolicy):
        """Keeps two copies of what is called so, and drops nothing."""

        def run(self):
            for task in self.manager.scheduler.tasks.values():
                if str(task.key).startswith("twice") and len(task.who_has) == 1:
                    chosen = yield "replicate", task, None
                    assert chosen is not None and chosen not in task.who_has

    own.amm.stop()
    data = own.scatter({"twice": 1, "once": 2}, workers=[next(iter(own.has_what()))])
    own.run_on_scheduler(lambda dask_scheduler: dask_scheduler.extensions["amm"].add_policy(Twice()))
    assert len(own.who_has()["twice"]) == 1
    own.amm.run_once()
    wait_until(lambda: len(own.who_has()["twice"]) == 2)
    assert len(own.who_has()["once"]) == 1
    policies = own.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.extensions["amm"].policies))
    assert policies == 1
    del data


def test_policies_of_the_configuration_run_regularly(commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "policy_of_a_test.py").write_text(
        "from distributed.active_memory_manager import ActiveMemoryManagerPolicy\n"
        "class Everywhere(ActiveMemoryManagerPolicy):\n"
        "    def __init__(self, prefix):\n"
        "        self.prefix = prefix\n"
        "    def run(self):\n"
        "        for task in self.manager.scheduler.tasks.values():\n"
        "            if str(task.key).startswith(self.prefix):\n"
        "                yield 'replicate', task, None\n"
    )
    key = "DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER__"
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv(f"{key}POLICIES", "[{'class': 'policy_of_a_test.Everywhere', 'prefix': 'spread'}]")
    monkeypatch.setenv(f"{key}INTERVAL", "50ms")
    with Cluster(commands.scheduler, commands.worker) as cluster:
        for name in ("a", "b"):
            cluster.start_worker(name=name)
        with Client(cluster.address, timeout=30) as client:
            client.wait_for_workers(2, timeout=30)
            data = client.scatter({"spread": 1}, workers=[next(iter(client.has_what()))])
            wait_until(lambda: len(client.who_has()["spread"]) == 2)
            del data


def test_what_is_asked_of_the_scheduler_is_logged(own: Client):
    (x,) = own.scatter([1])
    assert own.gather(x) == 1
    own.replicate([x], n=2)
    own.rebalance([x])
    failed = own.submit(operator.truediv, 1, 0)
    wait(failed)
    own.retry([failed])
    own.cancel([failed])
    events = [event for _, event in own.get_events("all") if isinstance(event, dict)]
    actions = {event["action"] for event in events}
    assert {"scatter", "gather", "replicate", "rebalance", "add-worker", "add-client"} <= actions
    (replicated,) = (event for event in events if event["action"] == "replicate")
    # Stock puts objects there that no client can read, so that the whole topic is lost.
    assert set(replicated["workers"]) == set(own.has_what())

    def of_own() -> dict:
        return {event["action"]: event for _, event in own.get_events(own.id) if isinstance(event, dict)}

    # The client says what it cancels on its stream, and asks for events on another connection.
    wait_until(lambda: "cancel" in of_own())
    of_client = of_own()
    assert of_client["retry"]["count"] == of_client["cancel"]["count"] == 1
    assert of_client["cancel"]["force"] is False
    of_workers = [event for address in own.has_what() for _, event in own.get_events(address)]
    assert "replicate-add" in {event.get("action") for event in of_workers}


def test_events_of_workers_name_them(own: Client):
    def note() -> None:
        get_worker().log_event("surface-note", {"n": 1})
        get_worker().log_event([get_worker().address, "surface-both"], {"n": 2})

    own.submit(note).result(timeout=30)
    wait_until(lambda: own.get_events("surface-both"))
    for topic in ("surface-note", "surface-both"):
        ((_, event),) = own.get_events(topic)
        assert event["worker"] in own.has_what()


def test_moves_of_tasks_are_logged(commands, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING_INTERVAL", "20ms")
    with Cluster(commands.scheduler, commands.worker) as cluster:
        for name in ("a", "b"):
            cluster.start_worker(name=name)
        with Client(cluster.address, timeout=30) as client:
            client.wait_for_workers(2, timeout=30)
            futures = client.map(slowinc, range(20), delay=0.05, workers=["a"], allow_other_workers=True)
            wait(futures)
            events = [event for _, event in client.get_events("stealing")]
            assert {event[0] for event in events} >= {"request", "confirm"}
            (outcome, key, state, victim, thief, stimulus) = next(e for e in events if e[0] == "confirm")
            assert key in {future.key for future in futures} and {victim, thief} == set(client.has_what())
            assert (outcome, state) == ("confirm", "ready") and stimulus.startswith("steal-")


def test_tasks_without_a_worker_fail_in_time_and_that_is_logged(commands, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT", "200ms")
    with Cluster(commands.scheduler, commands.worker) as cluster, Client(cluster.address, timeout=30) as client:
        future = client.submit(operator.neg, 1, key="surface-nobody")
        with pytest.raises(NoWorkerError):
            future.result(timeout=30)
        events = [event for _, event in client.get_events("scheduler")]
        (event,) = (event for event in events if event["action"] == "no-workers-timeout-exceeded")
        assert set(event["keys"]) == {"surface-nobody"}


def test_a_dump_holds_tasks_and_workers(client: Client, tmp_path: Path):
    future = client.submit(operator.neg, 1, key="surface-dump")
    wait(future)
    for url in (str(tmp_path / "here"), f"file://{tmp_path}/there"):
        client.dump_cluster_state(url)
        dump = DumpArtefact.from_url(f"{url}.msgpack.gz")
        assert "surface-dump" in {task["key"] for task in dump.scheduler_tasks_in_state("memory")}
        assert len(dump.dump["workers"]) == 2
        assert "surface-dump" in [row[0] for row in dump.dump["scheduler"]["transition_log"]]


def test_the_scheduler_dumps_its_own_state(client: Client):
    future = client.submit(operator.neg, 1, key="surface-own-dump")
    wait(future)
    state = client.sync(client.scheduler.dump_state, exclude=["events"])
    assert "surface-own-dump" in state["tasks"] and "events" not in state


def test_memory_is_sampled_while_the_block_lasts(client: Client):
    sampler = MemorySampler()
    with sampler.sample("s", client=client, interval=0.02):
        wait_until(lambda: client.submit(operator.neg, 1, pure=False).result() == -1)
    assert all(nbytes > 1_000_000 for _, nbytes in sampler.samples["s"])


def test_a_performance_report_is_a_page(client: Client, tmp_path: Path):
    with performance_report(str(tmp_path / "report.html")):
        client.gather(client.map(operator.neg, range(5), pure=False))
    assert "Dask Performance Report" in (tmp_path / "report.html").read_text()


def test_spans_are_found_on_the_scheduler(client: Client):
    with span("surface", "inner") as span_id:
        future = client.submit(operator.neg, 1, key="surface-span")
    wait(future)

    def look(dask_scheduler):
        found = dask_scheduler.extensions["spans"].spans[span_id]
        return found.name, found.parent.name, found.states["memory"], found.done

    assert client.run_on_scheduler(look) == (("surface", "inner"), ("surface",), 1, True)


def test_a_plugin_hears_of_graphs_clients_and_events_and_keeps_workers(own: Client):
    # Defined here, so that it travels by value.
    class Watcher(SchedulerPlugin):
        def __init__(self):
            self.seen = []

        def update_graph(self, scheduler, *, client, keys, tasks, annotations, priority, stimulus_id, **kwargs):
            self.seen.append(("graph", sorted(keys)))

        def add_client(self, scheduler, client):
            self.seen.append(("client", client))

        def log_event(self, topic, msg):
            self.seen.append(("event", topic))

        def valid_workers_downscaling(self, scheduler, workers):
            return workers[:1]

    own.register_plugin(Watcher(), name="watcher")
    with Client(own.scheduler.address) as second:
        second_id = second.id
    own.submit(operator.neg, 1, key="surface-plugin").result()
    own.log_event("surface", "hello")

    def seen() -> list:
        return own.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["watcher"].seen)

    wanted = {("graph", ("surface-plugin",)), ("client", second_id), ("event", "surface")}
    wait_until(lambda: {(kind, tuple(x) if isinstance(x, list) else x) for kind, x in seen()} >= wanted)
    assert len(own.sync(own.scheduler.workers_to_close, n=2)) == 1


def test_metadata_of_a_task_go_with_it(client: Client):
    future = client.submit(operator.neg, 5, key="surface-metadata")
    wait(future)
    client.set_metadata("surface-metadata", 1)
    assert client.get_metadata("surface-metadata") == 1
    del future
    wait_until(lambda: client.get_metadata("surface-metadata", None) is None)


@pytest.mark.parametrize("direct", [True, False])
def test_results_come_in_the_families_that_the_client_allows(shared: Cluster, direct: bool):
    with Client(shared.address, timeout=30, serializers=["dask", "msgpack"]) as client:
        client.wait_for_workers(2, timeout=30)
        # Kept as a pickle where workers keep bytes.
        number = client.submit(operator.add, 1, 2, pure=False)
        assert client.gather(number, direct=direct) == 3
        function = client.submit(lambda: slowinc, pure=False)
        wait(function)
        with pytest.raises(TypeError):
            client.gather(function, direct=direct)


def test_losses_are_told_after_the_graphs_that_were_sent_before(own: Client, cluster: Cluster):
    class Slow:
        """Takes a second to be opened by whoever takes the graph in."""

        def __reduce__(self):
            return time.sleep, (1,)

    data = own.scatter(1, workers=["a"], hash=False)
    after = own.submit(operator.add, data, own.submit(slowinc, Slow(), pure=False), pure=False)
    cluster.processes[1].kill()
    wait_until(lambda: data.status == "cancelled")
    assert after.status == "cancelled"


def test_workers_that_could_go_are_grouped_by_a_function(own: Client):
    def group(worker):
        return worker.name == "a"

    async def ask(**kwargs):
        return await own.scheduler.workers_to_close(attribute="name", **kwargs)

    assert set(own.sync(ask, key=group)) == {"a", "b"}
    data = own.scatter("x" * 100, workers=["a"])
    # Of two groups that hold something the smaller one goes, as a whole.
    more = own.scatter("y" * 10_000, workers=["b"])
    assert list(own.sync(ask, key=group, n=1)) == ["a"]
    del data, more
