"""A cluster as a test asks for it, observed over the wire."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import clusters
from clusters import Process, StartFailure

from .probe import PROBE

__all__ = ["Cluster", "Spec", "StartFailure", "WorkerSpec"]

#: Keeps idle processes quiet; all of it is configuration that any server may ignore.
QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
}

#: Variables of this run that its processes must not see.
OURS = ("CONF_", "PYTEST_", "DASK_", "PYTHONPATH")


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


class Cluster(clusters.Cluster):
    def __init__(self, spec: Spec):
        self.spec = spec
        self.uses = 1
        commands = os.environ["CONF_SCHEDULER"], os.environ["CONF_WORKER"]
        super().__init__(*commands, host=spec.host, **{**QUIET, **dict(spec.env)})
        try:
            self.workers = self.add_workers(spec.workers)
        except BaseException:
            self.stop()
            raise
        self.addresses = sorted(address for address, _ in self.workers)

    def _start(self, argv: list[str], name: str) -> Process:
        own = {**QUIET, **dict(self.spec.env)}
        for variable in list(self.env):
            if variable.startswith(OURS) and variable not in own:
                del self.env[variable]
        return super()._start(argv, name)

    def add_workers(self, specs: tuple[WorkerSpec, ...]) -> list[tuple[str, Process]]:
        """Starts workers and waits until each is listed as running under its name."""
        before = set(self.identity()["workers"])
        started: list[tuple[str, Process]] = []
        for spec in specs:
            name = spec.name or f"conformance-{len(self.processes)}"
            process = self.start_worker(
                name=name,
                nthreads=spec.nthreads,
                resources=dict(spec.resources),
                host=spec.host,
            )
            started.append((name, process))
        found: dict[str, str] = {}

        def registered() -> bool:
            for address, worker in self.identity()["workers"].items():
                if address not in before and worker.get("status", "running") == "running":
                    found[str(worker.get("name", worker.get("id")))] = address
            return all(name in found for name, _ in started)

        for name, process in started:
            self.wait_until(registered, process, f"worker {name} does not register")
        return [(found[name], process) for name, process in started]

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
