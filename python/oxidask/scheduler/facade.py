"""The object that user code gets as ``dask_scheduler``.

The scheduler itself is another process, written in Rust. This stands in for it: what is read is asked for, what is
called is sent as the operation of that name, and what is set stays here.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from oxidask.scheduler.hooks import Plugins
from oxidask.scheduler.plugins import write_and_import
from oxidask.scheduler.views import Tasks, WorkerView

if TYPE_CHECKING:
    from oxidask.scheduler.aside import Aside

OPERATIONS = {
    "adaptive_target": "adaptive_target",
    "get_events": "events",
    "get_has_what": "has_what",
    "get_logs": "logs",
    "get_metadata": "get_metadata",
    "get_nbytes": "nbytes",
    "get_ncores": "ncores",
    "get_ncores_running": "ncores_running",
    "get_processing": "processing",
    "get_story": "get_story",
    "get_task_status": "get_task_status",
    "get_task_stream": "get_task_stream",
    "get_who_has": "who_has",
    "identity": "identity",
    "set_metadata": "set_metadata",
    "set_restrictions": "set_restrictions",
    "workers_to_close": "workers_to_close",
}
"""Methods of the stock scheduler that answer at once, with the operation that clients call them by."""

COROUTINES = frozenset(
    {
        "broadcast",
        "gather",
        "get_worker_logs",
        "proxy",
        "rebalance",
        "register_nanny_plugin",
        "register_worker_plugin",
        "replicate",
        "restart",
        "restart_workers",
        "retire_workers",
        "scatter",
        "unregister_nanny_plugin",
        "unregister_worker_plugin",
    }
)
"""Those that are coroutines; their operations have the same names."""


class SchedulerFacade:
    """Stands in for ``distributed.Scheduler`` where user code expects one."""

    def __init__(self, aside: Aside) -> None:
        self._questions = aside.questions
        self.loop = _loop_of(aside.loop)
        self.tasks = Tasks(aside.questions)
        self.plugins = Plugins(aside, self)
        self.preloads: list[Any] = []
        self.extensions: dict[str, Any] = {"spans": None}
        self.status = Status.running
        self.monitor = SimpleNamespace(count=0)
        self._directory: str | None = None

    def __repr__(self) -> str:
        return f"<Scheduler {self.address!r}, workers: {len(self.workers)}, tasks: {len(self.tasks)}>"

    # Reading

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in OPERATIONS:
            return functools.partial(self._questions.rpc, OPERATIONS[name])
        if name in COROUTINES:
            return self._coroutine(name)
        found, value = self._questions.ask("attribute", name=name)[0]
        if found:
            return value
        raise AttributeError(
            f"the scheduler has no attribute {name!r} here: it runs outside Python, and functions sent to it get a "
            f"stand-in that offers address, id, workers, tasks, clients, idle_since, log_event and its RPC operations"
        )

    @property
    def workers(self) -> dict[str, WorkerView]:
        """Workers by address, as they are at this moment."""
        identity = self._questions.rpc("identity", n_workers=-1)
        return {address: WorkerView(address, fields) for address, fields in identity["workers"].items()}

    @property
    def aliases(self) -> dict[Any, str]:
        """Addresses by name."""
        return {worker.name: address for address, worker in self.workers.items()}

    @property
    def running(self) -> set[WorkerView]:
        """Workers that take tasks."""
        return {worker for worker in self.workers.values() if worker.status == Status.running}

    @property
    def total_nthreads(self) -> int:
        """Threads of all workers."""
        return sum(worker.nthreads for worker in self.workers.values())

    @property
    def local_directory(self) -> str:
        """A folder for files of this process."""
        if self._directory is None:
            self._directory = tempfile.mkdtemp(prefix="oxidask-scheduler-")
        return self._directory

    def remove_local_directory(self) -> None:
        """Removes the folder, at the end."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    # Acting

    def _coroutine(self, name: str) -> Any:
        async def call(comm: Any = None, **kwargs: Any) -> Any:
            # Asking blocks, and the loop belongs to all functions.
            return await asyncio.to_thread(self._questions.rpc, name, **kwargs)

        call.__name__ = name
        return call

    def log_event(self, topic: Any, msg: Any) -> None:
        """Adds to the event log, and tells subscribers of the topic."""
        self._questions.rpc("log_event", topic=topic, msg=msg)

    def check_idle(self) -> float | None:
        """Since when the scheduler has been idle, in seconds of `time.time`."""
        return self._questions.rpc("check_idle")

    def add_plugin(self, plugin: Any, *, idempotent: bool = False, name: str | None = None, **kwargs: Any) -> None:
        """Has a plugin told of what happens, from now on."""
        from oxidask.scheduler.calls import plugin_name

        name = name or plugin_name(plugin)
        if not (idempotent and name in self.plugins):
            self.plugins.add(name, plugin)

    def remove_plugin(self, name: str | None = None) -> None:
        """Has a plugin not told any more."""
        self.plugins.remove(name)

    async def upload_file(self, filename: str, data: str | bytes, load: bool = True) -> dict[str, Any]:
        """Writes a file to `local_directory` and imports it."""
        write_and_import(self.local_directory, filename, data, load)
        return {"status": "OK", "nbytes": len(data)}


def _loop_of(loop: asyncio.AbstractEventLoop) -> Any:
    """The loop as Tornado's, since that is what ``Scheduler.loop`` is."""
    try:
        from tornado.ioloop import IOLoop

        return IOLoop.current()
    except ImportError:
        return loop
