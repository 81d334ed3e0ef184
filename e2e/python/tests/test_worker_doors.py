"""What code in and around tasks finds beside `get_worker`: messages, measurements, plugins, environment, logs."""

from __future__ import annotations

import logging
import os
import signal
import zipfile
from pathlib import Path

import dask
import pytest
from distributed import Client, MultiLock, Semaphore, get_worker, span
from distributed.diagnostics.plugin import Environ, NannyPlugin, PipInstall, WorkerPlugin

from clusters import Cluster, wait_until

OUR_WORKER = os.environ.get("OXIDASK_WORKER")
ours = pytest.mark.skipif(OUR_WORKER is None, reason="starts our worker with options of its own")


def test_print_warn_and_log_event_reach_the_client(client: Client, capsys) -> None:
    def speak():
        import distributed

        distributed.print("printed in a task")
        distributed.warn("warned in a task")
        get_worker().log_event("door-topic", {"value": 42})

    with pytest.warns(UserWarning, match="warned in a task"):
        client.submit(speak, pure=False).result(timeout=30)
        wait_until(lambda: "printed in a task" in capsys.readouterr().out, what="the text")
        wait_until(lambda: client.get_events("door-topic"), what="the event")
    assert client.get_events("door-topic")[-1][1]["value"] == 42


def test_message_that_msgpack_cannot_carry_is_an_error_at_the_users_line(client: Client) -> None:
    with pytest.raises(TypeError, match="must be msgpack serializable"):
        client.submit(lambda: get_worker().log_event("topic", object()), pure=False).result(timeout=30)


def test_semaphores_and_multilocks_from_inside_tasks(client: Client) -> None:
    semaphore = Semaphore(max_leases=1, name="door-semaphore")

    def guarded(n, semaphore):
        with semaphore, MultiLock(["door-1", "door-2"]):
            return n

    assert client.gather(client.map(guarded, range(5), semaphore=semaphore, pure=False)) == list(range(5))
    assert semaphore.get_value() == 0


def test_run_gives_each_worker_itself(client: Client) -> None:
    answers = client.run(lambda dask_worker: (dask_worker.address, dask_worker.state.nthreads))
    assert answers == {address: (address, 1) for address in client.scheduler_info(n_workers=-1)["workers"]}
    with pytest.raises(ZeroDivisionError):
        client.run(lambda: 1 / 0)

    async def later(x):
        return x + 1

    assert set(client.run(later, 1).values()) == {2}


def test_annotations_and_resources_are_known_in_a_task(cluster: Cluster) -> None:
    cluster.start_worker(name="a", resources={"GPU": 2})
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        total = client.submit(lambda: get_worker().state.total_resources, resources={"GPU": 1})
        assert total.result(timeout=30) == {"GPU": 2}
        with dask.annotate(resources={"GPU": 5}):
            never = client.submit(sum, [1])
        assert client.submit(sum, [1, 2], pure=False).result(timeout=30) == 3
        assert not never.done()


def test_sizeof_of_the_user_is_what_the_scheduler_hears(client: Client) -> None:
    def make():
        class Large:
            def __sizeof__(self):
                return 10

            @property
            def nbytes(self):
                raise RuntimeError("not asked")

        from dask.sizeof import sizeof

        sizeof.register(Large)(lambda _: 12_345_678)
        return Large()

    future = client.submit(make, pure=False)
    wait_until(future.done, what="the task")
    assert client.nbytes([future.key], summary=False) == {future.key: 12_345_678}


def test_what_a_task_measures_reaches_the_spans_of_the_scheduler(client: Client) -> None:
    def measure():
        from distributed.metrics import context_meter

        context_meter.digest_metric("door-metric", 3, "apples")
        context_meter.digest_metric("door-metric", 4, "apples")
        return 1

    def seen(dask_scheduler=None):
        """Units of the metric by prefix, as the spans of a stock scheduler add them up."""
        extension = dask_scheduler.extensions["spans"]
        found = {}
        for known in extension.spans.values():
            for label, value in known.cumulative_worker_metrics.items():
                if "door-metric" in label:
                    found[label] = found.get(label, 0) + value
        return found

    with span("door-span"):
        assert client.submit(measure, key="measure-1", pure=False).result(timeout=30) == 1
    wait_until(lambda: client.run_on_scheduler(seen), what="the measure")
    ((label, value),) = client.run_on_scheduler(seen).items()
    assert value == 7
    assert label[0] == "execute" and label[-2:] == ("door-metric", "apples")
    assert "measure" in label


def test_versions_and_logs_come_from_the_python_that_runs_tasks(client: Client) -> None:
    versions = client.get_versions()["workers"]
    assert {worker["packages"]["dask"] for worker in versions.values()} == {dask.__version__}

    def log():
        logging.getLogger("distributed.worker").warning("logged in a task")

    client.submit(log, workers=["a"], pure=False).result(timeout=30)

    def seen() -> bool:
        rows = [row for rows in client.get_worker_logs().values() for row in rows]
        return any("logged in a task" in row[-1] for row in rows)

    wait_until(seen, what="the line")


def test_plugin_is_set_up_on_all_workers_and_on_those_that_join_later(own: Client, cluster: Cluster) -> None:
    class Mark(WorkerPlugin):
        name = "mark"

        def setup(self, worker):
            worker.mark = worker.address

        def teardown(self, worker):
            worker.mark = None

    own.register_plugin(Mark())
    cluster.start_worker(name="c")
    own.wait_for_workers(3, timeout=30)
    marks = own.run(lambda dask_worker: dask_worker.mark)
    assert len(marks) == 3
    assert all(address == mark for address, mark in marks.items())
    own.unregister_worker_plugin("mark")
    assert set(own.run(lambda dask_worker: dask_worker.mark).values()) == {None}


def test_plugin_whose_setup_raises_is_an_error_of_who_registers_it(own: Client) -> None:
    class Broken(WorkerPlugin):
        def setup(self, worker):
            raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"):
        own.register_plugin(Broken())


def supervised(cluster: Cluster, options: str = "") -> None:
    command = f"{OUR_WORKER} {{scheduler}} --host {{host}} --nthreads 1 --no-dashboard {options} --local-directory"
    cluster.start_worker(command=f"{command} {{folder}}")


@ours
def test_environ_plugin_gives_a_process_that_had_the_variable_from_its_start(cluster: Cluster) -> None:
    supervised(cluster)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        client.register_plugin(Environ({"DOOR_VARIABLE": "open", "PYTHONHASHSEED": "77"}))

        def environment():
            entries = open("/proc/self/environ", "rb").read().split(b"\0")  # noqa: SIM115
            return os.environ.get("DOOR_VARIABLE"), b"PYTHONHASHSEED=77" in entries

        wait_until(
            lambda: client.submit(environment, pure=False).result(timeout=30) == ("open", True),
            what="a process with the variable",
        )


@ours
def test_nanny_plugin_runs_before_the_process_that_it_asks_for(cluster: Cluster, tmp_path) -> None:
    module = tmp_path / "installed_by_plugin.py"

    class Install(NannyPlugin):
        restart = True

        def __init__(self, path):
            self.path = path

        async def setup(self, nanny):
            with open(self.path, "w") as file:
                file.write("VALUE = 42\n")

    cluster.env["PYTHONPATH"] = str(tmp_path)
    supervised(cluster)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        before = client.submit(os.getpid, pure=False).result(timeout=30)
        client.register_plugin(Install(str(module)))
        wait_until(lambda: client.submit(os.getpid, pure=False).result(timeout=30) != before, what="another process")

        def use():
            import installed_by_plugin

            return installed_by_plugin.VALUE

        assert client.submit(use).result(timeout=30) == 42


def wheel(folder: Path, name: str, source: str) -> Path:
    """A package of one module, ready to be installed: nothing is built and no index is asked."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", source)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@ours
def test_pip_install_brings_a_package_before_the_process_that_uses_it(cluster: Cluster, tmp_path) -> None:
    target = tmp_path / "site"
    package = wheel(tmp_path, "door_package", "VALUE = 43\n")
    cluster.env["PYTHONPATH"] = str(target)
    supervised(cluster)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        before = client.submit(os.getpid, pure=False).result(timeout=30)
        options = ["--no-index", "--no-deps", "--target", str(target)]
        client.register_plugin(PipInstall([str(package)], pip_options=options, restart_workers=True))
        wait_until(lambda: client.submit(os.getpid, pure=False).result(timeout=30) != before, what="another process")

        def use():
            import door_package

            return door_package.VALUE

        assert client.submit(use).result(timeout=30) == 43


@ours
def test_plugin_registered_later_is_set_up_in_the_process_after_a_death(cluster: Cluster) -> None:
    class Mark(WorkerPlugin):
        name = "later"

        def setup(self, worker):
            worker.mark = os.getpid()

    supervised(cluster)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        client.register_plugin(Mark())
        pid = client.submit(lambda: get_worker().mark, pure=False).result(timeout=30)
        os.kill(pid, signal.SIGKILL)
        again = client.submit(lambda: (get_worker().mark, os.getpid()), pure=False).result(timeout=30)
        assert again[0] == again[1] != pid


@ours
def test_preload_module_is_set_up_before_the_first_task(cluster: Cluster, tmp_path) -> None:
    preload = tmp_path / "door_preload.py"
    preload.write_text("def dask_setup(worker):\n    worker.preloaded = worker.address\n")
    supervised(cluster, f"--preload {preload}")
    with Client(cluster.address, timeout=30) as client:
        address = client.submit(lambda: (get_worker().preloaded, get_worker().address)).result(timeout=30)
        assert address[0] == address[1]
