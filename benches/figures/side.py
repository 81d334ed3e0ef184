"""One of the two sides of a comparison, and the processes that run it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from .usage import Usage

BIN = Path(sys.executable).parent

STOCK_SCHEDULER = f"{BIN / 'dask'} scheduler --host 127.0.0.1 --port {{port}} --no-dashboard"
STOCK_WORKER = (
    f"{BIN / 'dask'} worker {{address}} --host 127.0.0.1 --nthreads 1 --no-nanny --no-dashboard "
    "--memory-limit 0 --name {name} --local-directory {folder}"
)
#: One process that stands for 24 workers of one thread, which answer at once.
ZERO_WORKERS = f"{sys.executable} -m figures.zero_worker {{address}} --count 24"


@dataclass(frozen=True)
class Side:
    """How the processes are started: commands with {port}, {address}, {name}, {folder}."""

    label: str
    scheduler: str
    worker: str

    @classmethod
    def stock(cls) -> Side:
        return cls("stock", STOCK_SCHEDULER, STOCK_WORKER)

    @classmethod
    def ours(cls, scheduler: str | None, worker: str | None) -> Side:
        """Our binaries; what is not given is stock."""
        options = "--host 127.0.0.1 --port {port} --no-dashboard"
        worker_options = STOCK_WORKER.split("{address}", 1)[1]
        return cls(
            "ours",
            f"{scheduler} {options}" if scheduler else STOCK_SCHEDULER,
            f"{worker} {{address}}{worker_options}" if worker else STOCK_WORKER,
        )


class Cluster:
    """Running processes of a side; `stop` ends them and nothing else."""

    def __init__(self, side: Side, folder: str):
        self.side, self.folder = side, folder
        self.processes: list[subprocess.Popen] = []
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        #: Seconds from the start of the scheduler to its open port.
        self.start_seconds = self._start_scheduler()

    def _start_scheduler(self) -> float:
        start = time.perf_counter()
        scheduler = self._spawn(self.side.scheduler.format(port=self.port), "scheduler")
        deadline = start + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return time.perf_counter() - start
            if scheduler.poll() is not None or time.perf_counter() > deadline:
                log = Path(self.folder, "scheduler.log").read_text()
                raise RuntimeError(f"the scheduler does not listen:\n{log[-2000:]}")
            time.sleep(0.0005)

    def add_worker(self, command: str | None = None) -> subprocess.Popen:
        name = f"w{len(self.processes)}"
        command = (command or self.side.worker).format(
            address=self.address, name=name, folder=f"{self.folder}/{name}"
        )
        return self._spawn(command, name)

    def _spawn(self, command: str, name: str) -> subprocess.Popen:
        here = str(Path(__file__).parent.parent)
        env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": here}
        env.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        with open(f"{self.folder}/{name}.log", "wb") as log:
            process = subprocess.Popen(
                shlex.split(command), env=env, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    @property
    def scheduler(self) -> Usage:
        """The scheduler process alone."""
        return Usage(self.processes[0].pid)

    @property
    def workers(self) -> list[Usage]:
        return [Usage(process.pid) for process in self.processes[1:]]

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in reversed(self.processes):
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, number)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and any(p.poll() is None for p in self.processes):
                time.sleep(0.02)


@contextlib.contextmanager
def cluster(side: Side) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="figures-") as folder:
        started = Cluster(side, folder)
        try:
            yield started
        finally:
            started.stop()


@contextlib.contextmanager
def connected(started: Cluster, workers: int) -> Iterator[Client]:
    """A stock client, once that many workers are there."""
    with Client(started.address, timeout=60) as client:
        if workers:
            client.wait_for_workers(workers, timeout=120)
        yield client


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]
