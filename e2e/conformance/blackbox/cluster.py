"""A scheduler and workers from the command templates, observed over the wire."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from .probe import PROBE
from .processes import Process, expand, free_port

#: Seconds that a process has to listen, or to register.
START_TIMEOUT = 30

#: Keeps idle processes quiet; all of it is configuration that any server may ignore.
QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class WorkerSpec:
    host: str = "127.0.0.1"
    nthreads: int = 1
    name: str = ""
    resources: tuple = ()


@dataclass(frozen=True)
class Spec:
    """What a test asks for; equal specs may share a cluster."""

    workers: tuple[WorkerSpec, ...]
    host: str = "127.0.0.1"
    #: Configuration as `DASK_A__B` and its value.
    env: tuple = ()


class StartFailure(Exception):
    """A process ended, or did not get as far as it should, at its start."""


class Cluster:
    def __init__(self, spec: Spec):
        self.spec = spec
        self.folder = tempfile.mkdtemp(prefix="conformance-")
        ours = ("CONF_", "PYTEST_", "DASK_", "PYTHONPATH")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        self.env.update(QUIET, TMPDIR=self.folder)
        self.env.update(spec.env)
        self.port = free_port(spec.host)
        self.address = f"tcp://{spec.host}:{self.port}"
        self.processes: list[Process] = []
        self.uses = 1
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        argv = expand(os.environ["CONF_SCHEDULER"], host=self.spec.host, port=self.port)
        self.scheduler = Process(argv, self.env, self.folder, "scheduler")
        self.processes.append(self.scheduler)
        self._wait_until(self._listening, self.scheduler, "the scheduler does not listen")
        self.workers = self.add_workers(self.spec.workers)
        self.addresses = sorted(address for address, _ in self.workers)

    def _listening(self) -> bool:
        try:
            socket.create_connection((self.spec.host, self.port), 1).close()
            return True
        except OSError:
            return False

    def add_workers(self, specs: tuple[WorkerSpec, ...]) -> list[tuple[str, Process]]:
        """Starts workers and waits until each is listed as running under its name."""
        before = set(self.identity()["workers"])
        started: list[tuple[str, Process]] = []
        for spec in specs:
            name = spec.name or f"conformance-{len(self.processes)}"
            argv = expand(
                os.environ["CONF_WORKER"],
                host=spec.host,
                scheduler=self.address,
                name=name,
                nthreads=spec.nthreads,
                port=0,
                resources=" ".join(f"{k}={v}" for k, v in spec.resources),
            )
            process = Process(argv, self.env, self.folder, f"worker-{len(self.processes)}")
            self.processes.append(process)
            started.append((name, process))
        found: dict[str, str] = {}

        def registered() -> bool:
            for address, worker in self.identity()["workers"].items():
                if address not in before and worker.get("status", "running") == "running":
                    found[str(worker.get("name", worker.get("id")))] = address
            return all(name in found for name, _ in started)

        if started:
            what = "workers do not register under their names"
            self._wait_until(registered, started[0][1], what)
        return [(found[name], process) for name, process in started]

    def _wait_until(self, condition: Callable[[], bool], process: Process, what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not condition():
            if not process.is_alive() or time.monotonic() > deadline:
                raise StartFailure(f"{what}; exit={process.exitcode}\n{process.output(2000)}")
            time.sleep(0.02)

    def call(self, op: str, **arguments: object) -> object:
        return PROBE.call(self.address, op, **arguments)

    def identity(self) -> dict:
        return self.call("identity", n_workers=-1)

    def is_clean(self, wait: float = 3.0) -> bool:
        """Whether it has the workers it began with, no data, and nothing to do."""
        deadline = time.monotonic() + wait
        while True:
            try:
                if not all(process.is_alive() for process in self.processes):
                    return False
                if (
                    sorted(self.identity()["workers"]) == self.addresses
                    and not any(self.call("has_what").values())
                    and not any(self.call("processing").values())
                ):
                    return True
            except Exception:
                return False
            if time.monotonic() > deadline:
                return False
            time.sleep(0.03)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def logs(self) -> str:
        return "\n".join(
            f"--- {os.path.basename(process.log)} exit={process.exitcode}\n{process.output(1500)}"
            for process in self.processes
        )
