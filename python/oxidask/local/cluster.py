"""`LocalCluster`: as distributed's, with our scheduler and workers as processes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import tempfile
from typing import Any

from dask.system import CPU_COUNT
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface, SpecCluster
from distributed.deploy.utils import nprocesses_nthreads

from .programs import program, scripts_first

_START_SECONDS = 60
"""How long the scheduler may take to listen."""

_STOP_SECONDS = 10
"""How long a process may take to end when asked to, before it is killed."""


class _Process(ProcessInterface):
    """One of our programs, for as long as the cluster has it."""

    def __init__(self, log_level: str = "warn"):
        super().__init__()
        self._log_level = log_level
        self._process: asyncio.subprocess.Process | None = None

    async def _spawn(self, name: str, *arguments: str) -> None:
        environment = {"RUST_LOG": self._log_level, **scripts_first()}
        self._process = await asyncio.create_subprocess_exec(
            program(name), *arguments, env=environment, stdin=asyncio.subprocess.DEVNULL
        )

    async def close(self, **_: Any) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except asyncio.TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        await super().close()


class _Scheduler(_Process):
    def __init__(self, host: str, port: int, dashboard_address: str | None, protocol: str, **options: Any):
        super().__init__(**options)
        self._host, self._port = host, port or _free_port(host)
        self._dashboard, self._protocol = dashboard_address, protocol

    async def start(self) -> _Scheduler:
        arguments = ["--host", self._host, "--port", str(self._port)]
        if self._dashboard is None:
            arguments.append("--no-dashboard")
        else:
            arguments += ["--dashboard-address", self._dashboard]
        await self._spawn("dask-scheduler", *arguments)
        self.address = f"{self._protocol}://{self._host}:{self._port}"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self._host, self._port)
                writer.close()
                break
            if self._process is None or self._process.returncode is not None:
                raise RuntimeError(f"the scheduler ended at once, with {self._process and self._process.returncode}")
            if loop.time() > deadline:
                raise TimeoutError(f"the scheduler does not listen at {self.address} after {_START_SECONDS} s")
            await asyncio.sleep(0.005)
        return await super().start()


class _Worker(_Process):
    def __init__(
        self,
        scheduler: str,
        name: Any = None,
        nthreads: int = 1,
        memory_limit: str | float | None = "auto",
        host: str | None = None,
        local_directory: str | None = None,
        resources: dict[str, float] | None = None,
        death_timeout: float | None = None,
        lazy_executor: bool = False,
        **options: Any,
    ):
        super().__init__(**options)
        self._arguments = [scheduler, "--name", str(name), "--nthreads", str(nthreads), "--no-dashboard"]
        self._arguments += ["--memory-limit", "0" if memory_limit is None else str(memory_limit)]
        self._arguments += ["--local-directory", local_directory or tempfile.gettempdir()]
        if host:
            self._arguments += ["--host", host]
        if resources:
            self._arguments += ["--resources", " ".join(f"{k}={v}" for k, v in resources.items())]
        if death_timeout is not None:
            self._arguments += ["--death-timeout", str(death_timeout)]
        if lazy_executor:
            self._arguments.append("--lazy-executor")

    async def start(self) -> _Worker:
        await self._spawn("dask-worker", *self._arguments)
        return await super().start()


class LocalCluster(SpecCluster):
    """A scheduler and workers of oxidask as processes on this machine.

    Takes the arguments of `distributed.LocalCluster`. ``processes=False`` is refused: our workers are processes of
    their own. ``lazy_executor=True`` starts no interpreter before a task needs one.
    """

    def __init__(
        self,
        name: str | None = None,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        processes: bool | None = None,
        loop: Any = None,
        start: Any = None,
        host: str | None = None,
        ip: str | None = None,
        scheduler_port: int = 0,
        silence_logs: int | None = 30,
        dashboard_address: str | None = ":8787",
        worker_dashboard_address: str | None = None,
        diagnostics_port: Any = None,
        services: Any = None,
        worker_services: Any = None,
        service_kwargs: Any = None,
        asynchronous: bool = False,
        security: Any = None,
        protocol: str | None = None,
        blocked_handlers: list[str] | None = None,
        interface: str | None = None,
        worker_class: Any = None,
        scheduler_kwargs: dict[str, Any] | None = None,
        scheduler_sync_interval: float = 1,
        memory_limit: str | float | None = "auto",
        lazy_executor: bool = False,
        **worker_kwargs: Any,
    ):
        refused = {
            "processes=False": processes is False,
            "security": bool(security),
            "interface": interface is not None,
            "worker_class": worker_class is not None,
            "blocked_handlers": bool(blocked_handlers),
            "protocol (other than tcp)": protocol not in (None, "tcp", "tcp://"),
        }
        wrong = [argument for argument, is_given in refused.items() if is_given]
        if wrong:
            raise ValueError(
                f"oxidask.LocalCluster does not take {', '.join(wrong)}: its scheduler and workers are processes of "
                "their own that speak plain TCP on this machine; use distributed.LocalCluster for that"
            )
        host = host or ip or "127.0.0.1"
        if n_workers is None and threads_per_worker is None:
            n_workers, threads_per_worker = nprocesses_nthreads()
        elif n_workers is None:
            n_workers = max(1, CPU_COUNT // threads_per_worker) if threads_per_worker else 1
        elif threads_per_worker is None and n_workers:
            threads_per_worker = max(1, math.ceil(CPU_COUNT / n_workers))
        nthreads = threads_per_worker or 1
        if memory_limit == "auto" and n_workers:
            # The worker itself would take what is due to its threads, of a machine that it thinks it shares with none.
            from dask.system import CPU_COUNT as cpus
            from distributed.system import MEMORY_LIMIT

            memory_limit = int(MEMORY_LIMIT * min(1, nthreads / max(cpus, nthreads * n_workers)))
        scheduler = {
            "cls": _Scheduler,
            "options": {
                "host": host,
                "port": scheduler_port,
                "dashboard_address": _dashboard(dashboard_address, host),
                "protocol": "tcp",
                **(scheduler_kwargs or {}),
            },
        }
        worker = {
            "cls": _Worker,
            "options": {
                "nthreads": nthreads,
                "memory_limit": memory_limit,
                "host": host,
                "lazy_executor": lazy_executor,
                **worker_kwargs,
            },
        }
        super().__init__(
            name=name,
            scheduler=scheduler,
            worker=worker,
            workers={i: worker for i in range(n_workers or 0)},
            loop=loop,
            asynchronous=asynchronous,
            silence_logs=silence_logs or False,
            scheduler_sync_interval=scheduler_sync_interval,
        )

    def __repr__(self) -> str:
        state = self.status.name if isinstance(self.status, Status) else self.status
        return f"{type(self).__name__}({self._name}, {self.scheduler_address!r}, workers={len(self.workers)}, {state})"


def _dashboard(address: str | None, host: str) -> str | None:
    """The address of the status page, on another port if that one is taken, as distributed chooses."""
    if address is None:
        return None
    bind, _, port = str(address).rpartition(":")
    bind = bind.removeprefix("http://") or host
    with socket.socket() as probe:
        try:
            probe.bind((bind, int(port or 0)))
        except OSError:
            return f"{bind}:0"
    return f"{bind}:{port}"


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
