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

from oxidask.scheduler.extensions import Extensions, monitor_of_parent
from oxidask.scheduler.groups import picture
from oxidask.scheduler.hooks import Plugins
from oxidask.scheduler.plugins import write_and_import
from oxidask.scheduler.views import ClientView, Tasks, WorkerView

if TYPE_CHECKING:
    from oxidask.scheduler.aside import Aside

OPERATIONS = {
    "adaptive_target": "adaptive_target",
    "get_events": "events",
    "get_has_what": "has_what",
    "get_metadata": "get_metadata",
    "get_nbytes": "nbytes",
    "get_ncores": "ncores",
    "get_ncores_running": "ncores_running",
    "get_processing": "processing",
    "get_runspec": "get_runspec",
    "get_task_prefix_states": "get_task_prefix_states",
    "get_task_status": "get_task_status",
    "get_task_stream": "get_task_stream",
    "get_who_has": "who_has",
    "identity": "identity",
    "set_metadata": "set_metadata",
    "set_restrictions": "set_restrictions",
    "workers_to_close": "workers_to_close",
}
"""Methods of the stock scheduler that answer at once, with the operation that clients call them by."""

COROUTINES = {
    "benchmark_hardware": "benchmark_hardware",
    "broadcast": "broadcast",
    "gather": "gather",
    "get_call_stack": "call_stack",
    "get_cluster_state": "get_cluster_state",
    "get_profile": "profile",
    "get_profile_metadata": "profile_metadata",
    "get_worker_logs": "worker_logs",
    "proxy": "proxy",
    "rebalance": "rebalance",
    "register_nanny_plugin": "register_nanny_plugin",
    "register_worker_plugin": "register_worker_plugin",
    "replicate": "replicate",
    "restart": "restart",
    "restart_workers": "restart_workers",
    "retire_workers": "retire_workers",
    "scatter": "scatter",
    "unregister_nanny_plugin": "unregister_nanny_plugin",
    "unregister_worker_plugin": "unregister_worker_plugin",
}
"""Those that are coroutines, with their operations."""


class SchedulerFacade:
    """Stands in for ``distributed.Scheduler`` where user code expects one."""

    def __init__(self, aside: Aside) -> None:
        self._questions = aside.questions
        self._aside_loop = aside.loop
        self.loop = _loop_of(aside.loop)
        self.tasks = Tasks(aside.questions, self)
        self.plugins = Plugins(aside, self)
        self.preloads: list[Any] = []
        self.extensions = Extensions(aside, self)
        self.status = Status.running
        self._directory: str | None = None
        self._monitor: Any = None

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
        return self.attribute(name)

    def attribute(self, name: str) -> Any:
        """What the scheduler says of itself under this name."""
        found, value = self._questions.ask("attribute", name=name)[0]
        if found:
            return value
        raise AttributeError(
            f"the scheduler has no attribute {name!r} here: it runs outside Python, and functions sent to it get a "
            f"stand-in that offers address, id, workers, tasks, task_groups, task_prefixes, clients, events, "
            f"extensions, plugins, idle_since, log_event and its RPC operations"
        )

    def rpc_call(self, op: str, **kwargs: Any) -> Any:
        """The answer to an operation that clients call by this name."""
        return self._questions.rpc(op, **kwargs)

    @property
    def workers(self) -> dict[str, WorkerView]:
        """Workers by address, as they are at this moment."""
        identity = self._questions.rpc("identity", n_workers=-1)
        more = self.attribute("workers_state")
        return {
            address: WorkerView(address, {**fields, **more.get(address, {})}, self)
            for address, fields in identity["workers"].items()
        }

    @property
    def clients(self) -> dict[str, ClientView]:
        """Clients by id, and what wants keys like one."""
        return {name: ClientView(name, self) for name in self.attribute("clients_state")}

    @property
    def task_groups(self) -> dict[str, Any]:
        """Groups with known tasks, by name."""
        return picture(self.attribute("groups_state"))[0]

    @property
    def task_prefixes(self) -> dict[str, Any]:
        """Prefixes by name."""
        return picture(self.attribute("groups_state"))[1]

    @property
    def events(self) -> dict[str, Any]:
        """The event log by topic: pairs of time and message."""
        return self._questions.rpc("events")

    @property
    def idle(self) -> dict[str, WorkerView]:
        """Running workers that have little to do."""
        return {address: worker for address, worker in self.workers.items() if worker.idle}

    @property
    def saturated(self) -> set[WorkerView]:
        """Workers that have more to do than others."""
        return {worker for worker in self.workers.values() if worker.saturated}

    @property
    def memory(self) -> Any:
        """Measures of the memory of all workers. Unit: bytes."""
        sums: dict[str, int] = {}
        for worker in self.workers.values():
            for name, amount in vars(worker.memory).items():
                sums[name] = sums.get(name, 0) + amount
        return SimpleNamespace(**sums)

    @property
    def monitor(self) -> Any:
        """Measurements of the scheduler's process, this one's parent; taken from the first look on."""
        if self._monitor is None:
            self._monitor = monitor_of_parent(self._aside_loop)
        return self._monitor

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
            return await asyncio.to_thread(self._questions.rpc, COROUTINES[name], **kwargs)

        call.__name__ = name
        return call

    def get_logs(self, start: float = 0, n: int | None = None, timestamps: bool = False) -> list[tuple]:
        """Log lines since `start`, the newest first: level and text, with `timestamps` the time before them."""
        lines = [tuple(line) for line in self.attribute("logs_state") if line[0] >= start]
        lines = lines[: n or None]
        return lines if timestamps else [line[1:] for line in lines]

    def story(self, *keys_or_stimuli: Any) -> list[Any]:
        """Transitions of tasks, or those that stimuli caused: key, start, finish, {}, stimulus, time."""
        names = [getattr(key, "key", key) for key in keys_or_stimuli]
        return [tuple(row) for row in self._questions.rpc("get_story", keys_or_stimuli=names)]

    get_story = story

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
