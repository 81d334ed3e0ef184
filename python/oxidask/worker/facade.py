"""What code inside a task gets for its ``Worker``: the attributes that libraries use, and an error for the rest."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

from oxidask.worker.control import Control
from oxidask.worker.hooks import when_imported
from oxidask.worker.loop import LoopThread
from oxidask.worker.relay import Relay
from oxidask.worker.store import Store
from oxidask.worker.tasks import Runner
from oxidask.worker.views import Announced, DataView, Plugins, StateView, not_provided, pack, payload

logger = logging.getLogger("distributed.worker")


class Worker:
    """Stands for ``distributed.Worker``; does not pretend to be one."""

    def __init__(self, settings: dict[str, Any], runner: Runner, control: Control, store: Store) -> None:
        self._settings = settings
        self._control = control
        self._store = store
        self._runner = runner
        self._loops = LoopThread()
        self._lock = threading.RLock()
        self._client: Any = None
        self._pool: Any = None
        self._background: Any = None
        self.is_primary: bool = settings["executor"] == 0
        """This is the first of the executors behind the address: it hosts handlers of plugins and actors."""
        self._digests: dict[Any, float] = {}
        self._digest_lock = threading.Lock()
        self._scheduler_address: str = settings["scheduler"]
        self.address: str = settings["address"]
        self.contact_address = self.address
        self.worker_address = self.address
        self.address_safe = self.address
        self.name: Any = settings["name"]
        self.id: str = settings["id"]
        self.nanny = None
        self.local_directory: str = settings["local_directory"]
        self.memory_manager = SimpleNamespace(memory_limit=settings["memory_limit"])
        self.state = StateView(control, store, settings)
        self.data = DataView(control, store)
        self.plugins = Plugins()
        self.extensions = Announced(lambda names: control.send({"op": "extensions", "names": names}))
        self.handlers = Announced(lambda names: control.send({"op": "handlers", "names": names}))
        self.stream_handlers = Announced(lambda names: control.send({"op": "stream-handlers", "names": names}))
        self.execution_state = {"scheduler": self._scheduler_address, "ioloop": None, "worker": self}
        self.active_threads = runner.active
        self.active_threads_lock = threading.Lock()
        self.scheduler_delay = 0.0
        self.executors: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.startup_information: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Worker {self.address!r}, name: {self.name}, oxidask>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise not_provided("Worker", name)

    # Loop and network

    @property
    def loop(self) -> Any:
        return self._loops.loop

    io_loop = loop

    @property
    def thread_id(self) -> int | None:
        _ = self._loops.loop
        return self._loops.thread_id

    @property
    def security(self) -> Any:
        return self.rpc_pool.security

    @property
    def rpc_pool(self) -> Any:
        with self._lock:
            if self._pool is None:
                self._pool = _Pool(self)
            return self._pool

    @property
    def rpc(self) -> Any:
        return self.rpc_pool.pool

    @property
    def scheduler(self) -> Any:
        return self.rpc_pool.scheduler

    @property
    def _ongoing_background_tasks(self) -> Any:
        with self._lock:
            if self._background is None:
                from distributed.core import AsyncTaskGroup

                self._background = AsyncTaskGroup()
            return self._background

    @property
    def client(self) -> Any:
        with self._lock:
            return self._client if self._client else self._get_client()

    def _get_client(self, timeout: float | None = None) -> Any:
        """The client of this process, made by stock's own code."""
        import distributed.worker

        return distributed.worker.Worker._get_client(self, timeout=timeout)

    # Talking to the scheduler

    @property
    def status(self) -> Any:
        from distributed.core import Status

        return Status.lookup[self._control.call("status")[0]["status"]]

    def batched_send(self, msg: dict[str, Any]) -> None:
        self._control.send({"op": "send", "message": pack(msg)})

    def log_event(self, topic: Any, msg: Any) -> None:
        try:
            message = pack({"op": "log-event", "topic": topic, "msg": msg})
        except Exception:
            raise TypeError(f"Message must be msgpack serializable. Got {type(msg)=} instead.") from None
        self._control.send({"op": "send", "message": message})

    def handle_stimulus(self, *events: Any) -> None:
        for event in events:
            name = type(event).__name__
            if name != "SecedeEvent":
                raise NotImplementedError(f"Worker.handle_stimulus({name}) is not provided by oxidask")
            self._control.send({"op": "secede", "key": event.key, "duration": event.compute_duration})

    def maybe_transition_long_running(self, ts: Any, *, compute_duration: float, stimulus_id: str = "") -> None:
        self._control.send({"op": "secede", "key": ts.key, "duration": compute_duration})

    async def close(self, *args: Any, **kwargs: Any) -> None:
        self._control.send({"op": "close", "graceful": False})

    async def close_gracefully(self, *args: Any, **kwargs: Any) -> None:
        self._control.send({"op": "close", "graceful": True})

    async def set_resources(self, **resources: float) -> None:
        self.state.total_resources.update(resources)
        self._control.send({"op": "resources", "resources": self.state.total_resources})
        await self.scheduler.set_resources(resources=self.state.total_resources, worker=self.address)

    # Values

    def update_data(self, data: dict[Any, Any], stimulus_id: str | None = None, **_: Any) -> dict[str, Any]:
        """Puts values into the worker, as ``Client.scatter`` inside a task does."""
        from dask.sizeof import sizeof

        nbytes = {}
        for key, value in data.items():
            header, frames = payload(value)
            size = int(sizeof(value))
            nbytes[key] = size
            self._control.call("scatter", parts=frames, key=key, header=header, nbytes=size)
        return {"nbytes": nbytes, "status": "OK"}

    def get_current_task(self) -> Any:
        return self._runner.active[threading.get_ident()]

    def digest_metric(self, name: Any, value: float) -> None:
        with self._digest_lock:
            first = not self._digests
            self._digests[name] = self._digests.get(name, 0.0) + value
        if first:
            # The parent asks for it with its next heartbeat.
            self._control.send({"op": "measured"})

    def take_digests(self) -> dict[Any, float]:
        with self._digest_lock:
            digests, self._digests = self._digests, {}
        return digests

    # Files and plugins

    async def upload_file(self, filename: str, data: Any, load: bool = True) -> dict[str, Any]:
        from distributed.utils import import_file

        path = os.path.join(self.local_directory, filename)
        data = data.encode() if isinstance(data, str) else data
        with open(path, "wb") as file:
            file.write(data)
        if load:
            import_file(path)
        return {"status": "OK", "nbytes": len(data)}

    async def plugin_add(self, plugin: Any, name: str | None = None, catch_errors: bool = True) -> dict[str, Any]:
        from distributed.worker import Worker as Stock

        reply = await Stock.plugin_add(self, plugin, name=name, catch_errors=catch_errors)
        if any(hasattr(known, "transition") for known in self.plugins.values()):
            self._control.send({"op": "watch-transitions"})
        return reply

    async def plugin_remove(self, name: str) -> dict[str, Any]:
        from distributed.worker import Worker as Stock

        return await Stock.plugin_remove(self, name)


class _Pool:
    """Connections of this process to the scheduler and to other workers: distributed's own."""

    def __init__(self, worker: Worker) -> None:
        from distributed.core import ConnectionPool
        from distributed.security import Security

        settings = worker._settings
        self.security = Security(**settings["security"]) if settings.get("security") else Security()
        args = self.security.get_connection_args("worker")
        self.pool = ConnectionPool(limit=512, connection_args=args)
        # Starting waits for nothing, and the first use may be on the loop, where one cannot wait for the loop.
        with contextlib.suppress(StopIteration):
            self.pool.start().send(None)
        _ = worker.loop
        self.scheduler = self.pool(worker._scheduler_address)


class _WorkerVariable:
    """In place of distributed's context variable: also answers in threads whose task began before the import."""

    def __init__(self, real: contextvars.ContextVar[Any], runner: Runner) -> None:
        self._real = real
        self._runner = runner
        self.name = real.name
        self.set = real.set
        self.reset = real.reset

    def get(self, *default: Any) -> Any:
        try:
            return self._real.get()
        except LookupError:
            if threading.get_ident() in self._runner.active:
                return self._runner.facade
            if default:
                return default[0]
            raise


def attach(settings: dict[str, Any], parts: list[Any], runner: Runner, control: Control, store: Store) -> None:
    """Makes the worker that tasks see, and hooks it into ``distributed`` for when that is imported."""
    worker = Worker(settings, runner, control, store)
    runner.facade = worker
    runner.execution_state = worker.execution_state
    runner.loop_call = worker._loops.spawn

    def proxy(instance: Any, key: Any) -> Any:
        from distributed.actor import Actor

        return Actor(type(instance), worker.address, key, worker)

    store.proxy = proxy

    def worker_imported(module: ModuleType) -> None:
        real = module._worker_cvar  # type: ignore[attr-defined]
        module._worker_cvar = _WorkerVariable(real, runner)  # type: ignore[attr-defined]
        runner.context.run(real.set, worker)

    def metrics_imported(module: ModuleType) -> None:
        runner.meter = lambda task: _Metered(module.context_meter, worker, task)  # type: ignore[attr-defined]
        task = runner.tasks.get(threading.get_ident())
        if task is not None:
            # The task that imports it measures too, until the end of its context.
            task.meter = runner.meter(task)
            task.meter.__enter__()

    when_imported("distributed.threadpoolexecutor", runner.threadpool_imported)
    when_imported("distributed.worker", worker_imported)
    when_imported("distributed.metrics", metrics_imported)
    Relay(worker, control).start(settings, parts)


class _Metered:
    """Collects what code in a task measures with ``context_meter``."""

    def __init__(self, meter: Any, worker: Worker, task: Any) -> None:
        from dask.utils import key_split

        prefix = key_split(task.key)
        span = task.span

        def callback(label: Any, value: float, unit: str) -> None:
            if not isinstance(label, tuple):
                label = (label,)
            if span is not None:
                worker.digest_metric(("execute", span, prefix, *label, unit), value)

        self._context = meter.add_callback(callback)

    def __enter__(self) -> None:
        self._context.__enter__()

    def __exit__(self, *exc: Any) -> None:
        self._context.__exit__(*exc)
