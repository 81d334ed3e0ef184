"""Several executors behind one address: who runs what, where values are, and what a death costs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client, get_client, get_worker, secede
from distributed.diagnostics.plugin import WorkerPlugin

from clusters import Cluster, wait_until

# Workers cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

OUR_WORKER = os.environ.get("OXIDASK_WORKER")
pytestmark = pytest.mark.skipif(OUR_WORKER is None, reason="stock has one process behind an address")


def start(cluster: Cluster, executors: int, nthreads: int = 0, options: str = "") -> None:
    command = (
        f"{OUR_WORKER} {{scheduler}} --host {{host}} --nthreads {nthreads or executors} --executors {executors} "
        f"--no-dashboard {options} --local-directory {{folder}}"
    )
    cluster.start_worker(command=command)


@pytest.fixture
def two(cluster: Cluster) -> Iterator[Client]:
    """A client of one worker with two executors of one thread each."""
    start(cluster, 2)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        yield client


def meet(folder: str, name: str, others: int) -> int:
    """Waits until as many tasks as `others` are here; gives the process."""
    Path(folder, f"{name}.here").touch()
    deadline = time.monotonic() + 60
    while len(list(Path(folder).glob("*.here"))) < others:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} is alone")
        time.sleep(0.005)
    return os.getpid()


def in_both(client: Client, folder: Path, function, *args) -> list:
    """Runs a function in each executor of a worker of two, at the same time."""
    folder.mkdir(exist_ok=True)

    def both(name, *args):
        pid = meet(str(folder), name, 2)
        return pid, function(*args)

    return [client.submit(both, name, *args, pure=False) for name in ("first", "second")]


def test_each_executor_is_a_process_and_the_address_has_all_threads(cluster: Cluster, tmp_path) -> None:
    start(cluster, 3, nthreads=5)
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        assert list(client.nthreads().values()) == [5]
        pids = client.gather(
            client.map(lambda n, folder: meet(folder, str(n), 5), range(5), folder=str(tmp_path), pure=False)
        )
        assert sorted(pids.count(pid) for pid in set(pids)) == [1, 2, 2]
        assert client.submit(lambda: get_worker().state.nthreads).result(timeout=30) == 5


def test_values_cross_from_one_executor_to_another(two: Client, tmp_path) -> None:
    array, other = in_both(two, tmp_path / "made", lambda: (np.arange(1_000_000), {"of": [os.getpid()] * 5000}))

    def use(made):
        pid, (array, values) = made
        return pid == os.getpid(), int(array.sum()), values["of"][-1] == pid

    used = [future for made in (array, other) for future in in_both(two, tmp_path / f"used-{made.key}", use, made)]
    answers = [answer for _, answer in two.gather(used)]
    assert all(total == 499999500000 and right for _, total, right in answers)
    assert [here for here, _, _ in answers].count(False) == 2, "each value was used in the other process once"
    # Code that asks by key finds it too, wherever it runs.
    looked = in_both(two, tmp_path / "looked", lambda key: len(get_worker().data[key][1][1]["of"]), array.key)
    assert [length for _, length in two.gather(looked)] == [5000, 5000]


def test_dependants_of_what_cannot_be_pickled_go_to_its_executor(two: Client, tmp_path) -> None:
    locks = in_both(two, tmp_path, threading.Lock)
    assert {future.status for future in locks} <= {"pending", "finished"}

    def use(made, n):
        pid, lock = made
        with lock:
            return pid == os.getpid()

    for lock in locks:
        assert all(two.gather([two.submit(use, lock, n, pure=False) for n in range(10)]))


def test_values_bound_to_two_executors_are_an_error_that_says_so(two: Client, tmp_path) -> None:
    first, second = in_both(two, tmp_path, threading.Lock)
    with pytest.raises(RuntimeError, match=r"cannot leave their executors.*use --executors 1"):
        two.submit(lambda *locks: len(locks), first, second).result(timeout=30)
    assert two.submit(sum, [1, 2], pure=False).result(timeout=30) == 3


def test_death_of_one_executor_costs_its_own_tasks_and_values_only(two: Client, tmp_path) -> None:
    def count(name: str) -> str:
        return (tmp_path / name).read_text()

    def keep(folder, name):
        with open(Path(folder, name), "a") as file:
            file.write(".")
        return meet(folder + "/kept", name, 2), threading.Lock()

    def work(folder, name, release):
        with open(Path(folder, name), "a") as file:
            file.write(".")
        pid = meet(folder + "/work", f"{name}-{os.getpid()}", 2)
        while not Path(release).exists():
            time.sleep(0.005)
        return pid

    (tmp_path / "kept").mkdir()
    (tmp_path / "work").mkdir()
    kept = [two.submit(keep, str(tmp_path), f"kept-{n}") for n in range(2)]
    homes = two.gather([two.submit(lambda made: made[0], made, pure=False) for made in kept])
    assert len(set(homes)) == 2
    release = tmp_path / "release"
    working = [two.submit(work, str(tmp_path), f"work-{n}", str(release)) for n in range(2)]
    met = tmp_path / "work"
    wait_until(lambda: len(list(met.glob("*.here"))) == 2, what="both work")
    names = {int(path.stem.rsplit("-", 1)[1]): path.stem.rsplit("-", 1)[0] for path in met.glob("*.here")}
    victim, survivor = homes
    os.kill(victim, signal.SIGKILL)
    # In another process, beside the task that lives on.
    wait_until(lambda: count(names[victim]) == "..", what="the task of the dead one runs again")
    assert not any(future.done() for future in working)
    release.touch()
    results = dict(zip(("work-0", "work-1"), two.gather(working), strict=True))
    assert results[names[survivor]] == survivor
    assert results[names[victim]] not in homes
    assert count(names[survivor]) == ".", "the other one's task was left alone"
    again = two.gather([two.submit(lambda made: made[0], made, pure=False) for made in kept])
    assert again[1] == survivor and count("kept-1") == "."
    assert again[0] != victim and count("kept-0") == "..", "what only the dead one had is computed again"


def test_task_that_kills_its_executor_again_and_again_fails_and_the_others_go_on(two: Client) -> None:
    from distributed.scheduler import KilledWorker

    good = two.map(lambda x: time.sleep(0.05) or x, range(40), pure=False)
    bad = two.submit(os._exit, 5)
    with pytest.raises(KilledWorker, match="exit status: 5"):
        bad.result(timeout=120)
    assert two.gather(good) == list(range(40))


def test_memory_of_a_worker_is_that_of_all_its_executors(two: Client, tmp_path) -> None:
    def hold():
        get_worker().held = bytearray(80_000_000)
        get_worker().held[::4096] = b"x" * len(get_worker().held[::4096])

    (before,) = (worker["metrics"]["memory"] for worker in two.scheduler_info()["workers"].values())
    two.gather(in_both(two, tmp_path, hold))

    def memory() -> int:
        return sum(worker["metrics"]["memory"] for worker in two.scheduler_info()["workers"].values())

    wait_until(lambda: memory() - before > 150_000_000, what="both are counted")
    assert memory() - before < 400_000_000


def test_the_executor_that_takes_too_much_memory_is_the_one_that_is_killed(cluster: Cluster, tmp_path) -> None:
    cluster.env["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "0"
    start(cluster, 2, options="--memory-limit 400MB")
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        from distributed.scheduler import KilledWorker

        def take(megabytes, release):
            held = bytearray(megabytes * 1_000_000)
            held[::4096] = b"x" * len(held[::4096])
            deadline = time.monotonic() + 60
            while not Path(release).exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            return os.getpid()

        release = tmp_path / "release"
        modest = client.submit(take, 50, str(release), key="modest")
        greedy = client.submit(take, 500, str(release), key="greedy")
        with pytest.raises(KilledWorker, match="bytes of memory"):
            greedy.result(timeout=120)
        assert not modest.done()
        release.touch()
        assert modest.result(timeout=30)


def test_plugins_are_in_all_executors_also_in_those_that_come_later(two: Client, tmp_path) -> None:
    class Mark(WorkerPlugin):
        name = "mark"

        def setup(self, worker):
            worker.mark = os.getpid()

        def teardown(self, worker):
            worker.mark = None

    def mark():
        return get_worker().mark

    two.register_plugin(Mark())
    marks = two.gather(in_both(two, tmp_path / "a", mark))
    assert all(pid == mark for pid, mark in marks)
    victim = marks[1][0]
    os.kill(victim, signal.SIGKILL)
    again = two.gather(in_both(two, tmp_path / "b", mark))
    assert all(pid == mark for pid, mark in again)
    assert victim not in dict(again)
    two.unregister_worker_plugin("mark")
    assert [mark for _, mark in two.gather(in_both(two, tmp_path / "c", mark))] == [None, None]


def test_plugin_that_fails_in_any_executor_is_an_error_of_who_registers_it(two: Client) -> None:
    class Broken(WorkerPlugin):
        def setup(self, worker):
            raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"):
        two.register_plugin(Broken())


def test_run_actors_and_shuffles_are_at_home_in_the_first_executor(two: Client) -> None:
    (home,) = two.run(os.getpid).values()

    class Counter:
        n = 0

        def add(self, k):
            self.n += k
            return self.n, os.getpid()

    counter = two.submit(Counter, actor=True).result(timeout=30)
    assert counter.add(5).result() == (5, home)
    assert two.submit(lambda c: c.add(2).result(), counter).result(timeout=30) == (7, home)
    dd = pytest.importorskip("dask.dataframe")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": range(2000), "b": np.arange(2000) % 17})
    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        shuffled = dd.from_pandas(frame, npartitions=8).shuffle("b").compute().sort_values("a", ignore_index=True)
    pd.testing.assert_frame_equal(shuffled, frame, check_dtype=False)


def test_tasks_of_tasks_run_in_any_executor(two: Client) -> None:
    def outer(n):
        secede()
        inner = get_client()
        return sum(inner.gather(inner.map(lambda x: x + 1, range(n))))

    assert two.gather(two.map(outer, range(5, 9))) == [15, 21, 28, 36]


def test_running_tasks_of_all_executors_are_in_the_call_stack(two: Client, tmp_path) -> None:
    release = tmp_path / "release"

    def wait_here(release):
        deadline = time.monotonic() + 60
        while not Path(release).exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    futures = in_both(two, tmp_path / "met", wait_here, str(release))
    keys = {future.key for future in futures}

    def shown() -> set:
        return {key for stacks in two.call_stack(futures).values() for key in stacks}

    wait_until(lambda: len(list((tmp_path / "met").glob("*.here"))) == 2, what="both run")
    wait_until(lambda: shown() == keys, what="both stacks")
    release.touch()
    two.gather(futures)


def test_lightgbm_hands_its_sockets_between_executors_of_one_worker(two: Client) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    import dask.array as da

    points = da.from_array(np.random.default_rng(0).random((400, 4)), chunks=(100, 4))
    side = (points.sum(axis=1) > 2).astype(int)
    model = lightgbm.DaskLGBMClassifier(client=two, n_estimators=10, verbose=-1).fit(points, side)
    assert (model.predict(points).compute() == side.compute()).mean() > 0.8


def test_more_executors_than_threads_are_refused(cluster: Cluster) -> None:
    start(cluster, 3, nthreads=2)
    worker = cluster.processes[1]
    wait_until(lambda: not worker.is_alive(), what="the worker ends")
    assert "3 executors cannot share 2 threads" in worker.output(10_000)
