"""What a client may ask beside computing: stories, dumps, reports, samplers, spans, plugins on the scheduler."""

from __future__ import annotations

import operator
from pathlib import Path

from distributed import Client, performance_report, span, wait
from distributed.cluster_dump import DumpArtefact
from distributed.diagnostics import MemorySampler
from distributed.diagnostics.plugin import SchedulerPlugin

from clusters import wait_until


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


def test_a_dump_holds_tasks_and_workers(client: Client, tmp_path: Path):
    future = client.submit(operator.neg, 1, key="surface-dump")
    wait(future)
    for url in (str(tmp_path / "here"), f"file://{tmp_path}/there"):
        client.dump_cluster_state(url)
        dump = DumpArtefact.from_url(f"{url}.msgpack.gz")
        assert "surface-dump" in {task["key"] for task in dump.scheduler_tasks_in_state("memory")}
        assert len(dump.dump["workers"]) == 2
        assert "surface-dump" in [row[0] for row in dump.dump["scheduler"]["transition_log"]]


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
