"""NumPy arrays from worker to worker, against raw loopback TCP between two processes in the same run."""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time

import cloudpickle
import numpy as np
from distributed import Client, get_task_stream, wait

from ..metric import Metric
from ..side import Side, cluster, connected

# Workers cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SENTENCE = (
    "Arrays from worker to worker, from the request to the value in the other worker's hands (`transfer` of its task): "
    "as a share of raw loopback TCP's rate in the same run, first transfer apart"
)

#: Megabytes of an array, and how often it is made and moved.
SIZES = {1: 16, 10: 10, 100: 5}

#: By host: equal ones may share memory, different ones have a socket between them.
PATHS = {"socket": ("127.0.0.1", "127.0.0.2"), "same host": ("127.0.0.1", "127.0.0.1")}


def target(path: str, size: int) -> dict:
    if path == "same host":
        return {"target": "≥ 3 × stock", "reached": lambda ours, stock: ours >= 3 * stock}
    share = 0.85 if size >= 100 else 0.4
    return {"target": f"≥ {share} of raw", "reached": lambda ours, _: ours >= share}


METRICS = [
    *(Metric(f"{path}, {size} MB", "of raw", **target(path, size)) for path in PATHS for size in SIZES),
    *(
        Metric(
            f"{path}, {size} MB, CPU",
            "of raw",
            **({"target": "≤ 1.5 × raw", "reached": lambda ours, _: ours <= 1.5} if path == "socket" else {}),
        )
        for path in PATHS
        for size in SIZES
    ),
    *(Metric(f"{path}, 100 MB, first", "of raw") for path in PATHS),
    *(Metric(f"{path}, 100 MB, until a task has it", "of raw") for path in PATHS),
]


def raw(size: int, count: int) -> tuple[float, float]:
    """Seconds and CPU seconds for one array over loopback TCP into memory that is used again, by both processes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            send(listener.getsockname(), size, count)
        peer, _ = listener.accept()
        with peer:
            memory = memoryview(bytearray(size * 1_000_000))
            times = []
            before = time.process_time()
            for _ in range(count):
                start = time.perf_counter()
                peer.sendall(b"x")
                rest = memory
                while rest:
                    rest = rest[peer.recv_into(rest) :]
                times.append(time.perf_counter() - start)
            own = time.process_time() - before
        _, _, used = os.wait4(child, 0)
    return statistics.median(times), (own + used.ru_utime + used.ru_stime) / count


def send(address: tuple, size: int, count: int) -> None:
    """The sending process, which ends here."""
    with socket.create_connection(address) as peer:
        # Written to, since fresh memory is one page of zeros that never leaves the cache.
        memory = b"\x01" * (size * 1_000_000)
        for _ in range(count):
            peer.recv(1)
            peer.sendall(memory)
    os._exit(0)


def measure(side: Side) -> dict[str, float]:
    values = {}
    for path, hosts in PATHS.items():
        with cluster(side) as started:
            for name, host in zip("ab", hosts, strict=True):
                started.start_worker(name=name, host=host)
            with connected(started, 2) as client:
                for size, count in SIZES.items():
                    raw_seconds, raw_cpu = raw(size, count)
                    first, seconds, used, cpu = move(client, started, size, count)
                    values[f"{path}, {size} MB"] = raw_seconds / seconds
                    values[f"{path}, {size} MB, CPU"] = cpu / raw_cpu
                    if size == 100:
                        values[f"{path}, 100 MB, first"] = raw_seconds / first
                        values[f"{path}, 100 MB, until a task has it"] = raw_seconds / used
    return values


def make(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, size * 125_000)


def use(array: np.ndarray | None) -> int:
    return 0 if array is None else int(array[0])


def move(client: Client, started, size: int, count: int) -> tuple[float, float, float, float]:
    """Seconds of the first transfer; medians of the others: seconds, seconds until the task begins, CPU seconds.

    What the same task costs without a transfer is taken off its CPU.
    """
    usages = started.worker_usages

    def cpu() -> float:
        return sum(usage.cpu() + usage.cpu_below() for usage in usages)

    def timed(array) -> tuple[float, float, float]:
        used = cpu()
        with get_task_stream(client=client) as stream:
            client.submit(lambda array: use(array), array, workers=["b"], pure=False).result(timeout=60)
        steps = {step["action"]: step for row in stream.data for step in row["startstops"]}
        used = cpu() - used
        if "transfer" not in steps:
            return 0.0, 0.0, used
        transfer, compute = steps["transfer"], steps["compute"]
        return transfer["stop"] - transfer["start"], compute["start"] - transfer["start"], used

    base_cpu = statistics.median(timed(None)[2] for _ in range(10))
    rows = []
    for _ in range(count):
        array = client.submit(lambda size: make(size), size, workers=["a"], pure=False)
        wait(array, timeout=60)
        # A value is in its worker's hands within a second; what is measured is the way between workers.
        time.sleep(0.2 + size / 100)
        rows.append(timed(array))
        del array
        time.sleep(0.2)
    seconds, until_used, used = zip(*rows[1:], strict=True)
    if not all(seconds):
        raise RuntimeError("a task has not told of its transfer")
    medians = (statistics.median(seconds), statistics.median(until_used))
    return rows[0][0], *medians, max(statistics.median(used) - base_cpu, 0.0)
