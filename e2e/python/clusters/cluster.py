"""A scheduler on a free port and the workers that join it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .process import Process, expand, free_port

#: Seconds that a process has to listen, or to register.
START_TIMEOUT = 60

BIN = Path(sys.executable).parent


class StartFailure(Exception):
    """A process ended, or did not get as far as it should, at its start."""


def wait_until(condition: Callable[[], object], seconds: float = 30, what: str = "") -> None:
    """Polls until the condition holds; the only way in which our tests wait."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.01)


class Cluster:
    """Placeholders of the commands: {host} and {port} for the scheduler; {scheduler}, {host},
    {name}, {nthreads}, {resources}, {folder} for a worker."""

    def __init__(self, scheduler: str, worker: str, *, host: str = "127.0.0.1", scheme: str = "tcp", **env: str):
        self.worker_command = worker
        self.folder = tempfile.mkdtemp(prefix="cluster-")
        # Our own interpreter is the one that helpers and `dask` are to find.
        path = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self.env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.env = {**os.environ, "PATH": path, **self.env, **env, "TMPDIR": self.folder}
        self.host, self.port = host, free_port(host)
        self.address = f"{scheme}://{host}:{self.port}"
        self.processes: list[Process] = []
        #: Seconds from the start of the scheduler to its open port.
        self.start_seconds = 0.0
        try:
            self._start_scheduler(scheduler)
        except BaseException:
            self.stop()
            raise

    def _start_scheduler(self, command: str) -> None:
        start = time.perf_counter()
        argv = expand(command, host=self.host, port=self.port, folder=self.folder)
        self.scheduler = self._start(argv, "scheduler")
        self.wait_until(self._listening, self.scheduler, "the scheduler does not listen")
        self.start_seconds = time.perf_counter() - start

    def _start(self, argv: list[str], name: str) -> Process:
        process = Process(argv, self.env, self.folder, name)
        self.processes.append(process)
        return process

    def _listening(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), 1).close()
            return True
        except OSError:
            return False

    def start_worker(
        self,
        *,
        name: str = "",
        nthreads: int = 1,
        resources: dict | None = None,
        host: str | None = None,
        command: str | None = None,
    ) -> Process:
        """Starts a worker and does not wait for it."""
        number = len(self.processes)
        argv = expand(
            command or self.worker_command,
            scheduler=self.address,
            host=host or self.host,
            port=0,
            name=name or f"worker-{number}",
            nthreads=nthreads,
            resources=" ".join(f"{k}={v}" for k, v in (resources or {}).items()),
            folder=f"{self.folder}/worker-{number}",
        )
        return self._start(argv, f"worker-{number}")

    def wait_until(self, condition: Callable[[], bool], process: Process, what: str) -> None:
        """Waits for a condition that `process` should bring about."""
        deadline = time.monotonic() + START_TIMEOUT
        while not condition():
            if not process.is_alive() or time.monotonic() > deadline:
                raise StartFailure(f"{what}; exit={process.exitcode}\n{process.output(2000)}")
            time.sleep(0.001)

    def stop(self) -> None:
        """Ends all processes at once, without asking."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def terminate(self, seconds: float = 10) -> None:
        """Asks all processes to end, workers first, and waits for that."""
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not any(p.is_alive() for p in self.processes), seconds)

    def logs(self) -> str:
        return "\n".join(
            f"--- {os.path.basename(process.log)} exit={process.exitcode}\n{process.output(1500)}"
            for process in self.processes
        )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
