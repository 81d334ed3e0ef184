"""One of the two sides of a comparison, and the cluster that it starts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client

import clusters

from .usage import Usage

DASK = Path(sys.executable).parent / "dask"

SCHEDULER_OPTIONS = "--host {host} --port {port} --no-dashboard"
WORKER_OPTIONS = (
    "{scheduler} --host {host} --nthreads {nthreads} --no-nanny --no-dashboard "
    "--memory-limit 0 --name {name} --local-directory {folder}"
)
#: One process that stands for 24 workers of one thread, which answer at once.
ZERO_WORKERS = f"{sys.executable} {Path(__file__).parent / 'zero_worker.py'} {{scheduler}} --count 24"


@dataclass(frozen=True)
class Side:
    """How the processes are started, as commands for `clusters.Cluster`."""

    label: str
    scheduler: str
    worker: str

    @classmethod
    def stock(cls) -> Side:
        return cls("stock", f"{DASK} scheduler {SCHEDULER_OPTIONS}", f"{DASK} worker {WORKER_OPTIONS}")

    @classmethod
    def ours(cls, scheduler: str | None, worker: str | None) -> Side:
        """Our programs; what is not given is stock."""
        return cls(
            "ours",
            f"{scheduler or f'{DASK} scheduler'} {SCHEDULER_OPTIONS}",
            f"{worker or f'{DASK} worker'} {WORKER_OPTIONS}",
        )

    def with_stock_workers(self) -> Side:
        """The same scheduler; for rows that are about it alone."""
        return replace(self, worker=Side.stock().worker)


class Cluster(clusters.Cluster):
    """With what its processes have used."""

    @property
    def scheduler_usage(self) -> Usage:
        return Usage(self.scheduler.pid)

    @property
    def worker_usages(self) -> list[Usage]:
        return [Usage(process.pid) for process in self.processes[1:]]


@contextlib.contextmanager
def cluster(side: Side) -> Iterator[Cluster]:
    with Cluster(side.scheduler, side.worker) as started:
        yield started
        started.terminate()


@contextlib.contextmanager
def connected(started: Cluster, workers: int) -> Iterator[Client]:
    """A stock client, once that many workers are there."""
    with Client(started.address, timeout=60) as client:
        if workers:
            client.wait_for_workers(workers, timeout=120)
        yield client
