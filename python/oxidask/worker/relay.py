"""Operations that peers ask of the worker and that Python answers: plugins, ``Client.run``, actors, handlers."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import pickle
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from oxidask.worker.control import Control
from oxidask.worker.hooks import when_imported
from oxidask.worker.nanny import Nanny
from oxidask.worker.profiler import Profiler
from oxidask.worker.tasks import NeedsPrimary, unpickling
from oxidask.worker.views import pack

logger = logging.getLogger("distributed.worker")

_SHUFFLE = b"distributed.shuffle._worker_plugin"
"""In the pickle of Dask's own P2P plugin, which every scheduler sends and few programs use."""


class Relay:
    """Takes messages that the parent passes on unopened, and gives back answers ready to send."""

    def __init__(self, worker: Any, control: Control) -> None:
        self._worker = worker
        self._control = control
        self._set_up_shuffle: Callable[[], Awaitable[None]] | None = None
        self._nanny = Nanny(worker, control)
        self._profiler = Profiler(worker.active_threads)
        self._logs = _Logs()
        logging.getLogger("distributed").addHandler(self._logs)
        self._shuffle_task: asyncio.Future[None] | None = None

    def start(self, settings: dict[str, Any], parts: list[Any]) -> None:
        """Announces what is answered here and adds the plugins of the scheduler (name, pickle)."""
        ops = self._control.ops
        ops["rpc"] = self._rpc
        ops["stream"] = self._stream
        ops["plugins"] = self._plugins
        ops["transitions"] = self._transitions
        ops["heartbeat"] = self._heartbeat
        ops["nanny-plugins"] = self._nanny_plugins
        when_imported("distributed.profile", lambda module: self._profiler.start())
        ops["collect-garbage"] = lambda document, parts: gc.collect()
        handlers = {
            "run": self._run,
            "run_coroutine": self._run,
            "plugin-add": self._plugin_add,
            "plugin-remove": self._worker.plugin_remove,
            "actor_execute": self._actor_execute,
            "actor_attribute": self._actor_attribute,
            "upload_file": self._worker.upload_file,
            "plugin_add": self._nanny.plugin_add,
            "plugin_remove": self._nanny.plugin_remove,
            "call_stack": self._profiler.call_stack,
            "profile": self._profiler.profile,
            "profile_metadata": self._profiler.metadata,
            "get_logs": self._get_logs,
            "oxidask_serialise": self._serialise,
            "benchmark_disk": self._benchmark("benchmark_disk"),
            "benchmark_memory": self._benchmark("benchmark_memory"),
        }
        self._worker.handlers.update(handlers)
        if settings["preload"]:
            self._worker._loops.spawn(lambda: self._preload(settings["preload"], settings["preload_argv"]))

    async def _preload(self, modules: list[str], argv: list[str]) -> None:
        from distributed.preloading import process_preloads

        for preload in process_preloads(
            self._worker, list(modules), [list(argv)] * len(modules), file_dir=self._worker.local_directory
        ):
            try:
                await preload.start()
            except Exception:
                logger.exception("Failed to start preload: %s", preload.name)
        self._control.send({"op": "plugin-added", "name": "--preload"})

    # Requests

    def _rpc(self, document: dict[str, Any], parts: list[Any]) -> None:
        id = document["id"]
        op = document["name"]

        async def answer() -> None:
            with unpickling:
                from distributed import protocol
                from distributed.core import error_message

            try:
                with unpickling:
                    message = protocol.loads(parts)
                serializers = message.get("serializers")
                reply = await self._call(op, message)
                frames = protocol.dumps(reply, serializers=serializers, on_error="message")
            except Exception as error:
                logger.exception("Exception while handling op %s", op)
                frames = protocol.dumps(error_message(error, status="uncaught-error"))
            self._nanny.announce(id)
            self._control.send({"op": "reply", "id": id}, [_flat(frame) for frame in frames])

        self._worker._loops.spawn(answer)

    async def _call(self, op: str, message: dict[str, Any]) -> Any:
        if op.startswith("shuffle_"):
            await self._wake_shuffle()
        handler = self._worker.handlers[op]
        arguments = {key: value for key, value in message.items() if key not in ("op", "reply", "close", "serializers")}
        result = handler(None, **arguments) if _wants_comm(handler) else handler(**arguments)
        return await result if inspect.isawaitable(result) else result

    def _stream(self, document: dict[str, Any], parts: list[Any]) -> None:
        async def handle() -> None:
            from distributed import protocol

            message = protocol.loads(parts)
            op = message.pop("op")
            handler = self._worker.stream_handlers.get(op)
            if handler is None:
                logger.debug("no handler for stream op %s", op)
                return
            try:
                result = handler(**message)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("Exception in handler of stream op %s", op)

        self._worker._loops.spawn(handle)

    # Built-in operations

    async def _run(self, **message: Any) -> Any:
        from distributed.worker import run

        return await run(self._worker, None, **message)

    async def _plugin_add(self, plugin: Any, name: str | None = None) -> Any:
        return await self._worker.plugin_add(plugin=plugin, name=name)

    async def _actor_execute(self, actor: Any, function: str, args: Any = (), kwargs: Any = None) -> Any:
        from distributed.protocol import to_serialize
        from distributed.utils import iscoroutinefunction

        kwargs = dict(kwargs or {})
        separate_thread = kwargs.pop("separate_thread", True)
        try:
            method = getattr(self._instance(actor), function)
            if separate_thread and not iscoroutinefunction(method):
                result = await self._in_actor_thread(actor, function, method, args, kwargs)
            else:
                result = await self._on_loop(method, args, kwargs)
            return {"status": "OK", "result": to_serialize(result)}
        except Exception as error:
            return {"status": "error", "exception": to_serialize(error)}

    def _instance(self, key: Any) -> Any:
        return self._worker.state.actors[key]

    async def _on_loop(self, method: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        from distributed.worker import _worker_cvar

        token = _worker_cvar.set(self._worker)
        try:
            result = method(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result
        finally:
            _worker_cvar.reset(token)

    async def _in_actor_thread(self, key: Any, name: str, method: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        from dask.utils import key_split
        from distributed.worker import _run_actor

        worker = self._worker
        pool = worker.executors.get("actor")
        if pool is None:
            from distributed.threadpoolexecutor import ThreadPoolExecutor

            pool = worker.executors["actor"] = ThreadPoolExecutor(1, thread_name_prefix="Dask-Actor-Threads")
        return await asyncio.get_running_loop().run_in_executor(
            pool,
            _run_actor,
            method,
            args,
            kwargs,
            worker.execution_state,
            f"{key_split(key)}.{name}",
            worker.active_threads,
            worker.active_threads_lock,
        )

    def _actor_attribute(self, actor: Any, attribute: str) -> Any:
        from distributed.protocol import to_serialize

        try:
            return {"status": "OK", "result": to_serialize(getattr(self._instance(actor), attribute))}
        except Exception as error:
            return {"status": "error", "exception": to_serialize(error)}

    def _serialise(self, data: dict[Any, Any]) -> dict[str, Any]:
        """The values once more, by the families that the message allows; an error stands for one that has none."""
        from distributed.protocol import to_serialize

        return {"status": "OK", "data": {key: to_serialize(value) for key, value in data.items()}}

    # Plugins

    def _plugins(self, document: dict[str, Any], parts: list[Any]) -> None:
        """Those that the scheduler sends at registration."""
        for name, pickled in zip(document["names"], parts, strict=True):
            pickled = bytes(pickled)
            if name == "shuffle" and _SHUFFLE in pickled and len(pickled) < 200:
                self._shuffle_later(pickled)
                continue

            async def add(name: str = name, pickled: bytes = pickled) -> None:
                await self._worker.plugin_add(plugin=pickled, name=name)
                self._control.send({"op": "plugin-added", "name": name})

            self._worker._loops.spawn(add)

    def _shuffle_later(self, pickled: bytes) -> None:
        worker = self._worker
        if not worker.is_primary:
            # Other workers send to the one that the address stands for.
            def elsewhere() -> None:
                raise NeedsPrimary

            worker.plugins.set_up_later("shuffle", elsewhere)
            return

        async def set_up() -> None:
            with unpickling:
                plugin = pickle.loads(pickled)
            if "shuffle" not in worker.plugins:
                await worker.plugin_add(plugin=plugin, name="shuffle")
            worker.plugins.is_set_up("shuffle")

        def first_use() -> None:
            if not worker._loops.here():
                worker._loops.wait(self._wake_shuffle)

        self._set_up_shuffle = set_up
        worker.plugins.set_up_later("shuffle", first_use)
        self._control.send({"op": "handlers", "names": [*worker.handlers, "shuffle_receive", "shuffle_inputs_done"]})
        self._control.send({"op": "stream-handlers", "names": ["shuffle-fail"]})

    async def _wake_shuffle(self) -> None:
        """Sets the shuffle plugin up, once, and waits until it is."""
        if self._set_up_shuffle is None:
            return
        if self._shuffle_task is None:
            self._shuffle_task = asyncio.ensure_future(self._set_up_shuffle())
        await asyncio.shield(self._shuffle_task)

    def _nanny_plugins(self, document: dict[str, Any], parts: list[Any]) -> None:
        async def add() -> None:
            for name, pickled in zip(document["names"], parts, strict=True):
                await self._nanny.plugin_add(bytes(pickled), name=name)
            self._nanny.announce()

        self._worker._loops.spawn(add)

    def _transitions(self, document: dict[str, Any], parts: list[Any]) -> None:
        async def notify() -> None:
            for name, plugin in list(self._worker.plugins.items()):
                transition = getattr(plugin, "transition", None)
                if transition is None:
                    continue
                for key, start, finish in document["transitions"]:
                    try:
                        transition(key, start, finish)
                    except Exception:
                        logger.info("Plugin '%s' failed with exception", name, exc_info=True)

        self._worker._loops.spawn(notify)

    # Measurements

    def _heartbeat(self, document: dict[str, Any], parts: list[Any]) -> None:
        digests = self._worker.take_digests()
        extensions = {}
        for name, extension in list(self._worker.extensions.items()):
            if hasattr(extension, "heartbeat"):
                try:
                    extensions[name] = extension.heartbeat()
                except Exception:
                    logger.exception("heartbeat of extension %s failed", name)
        self._control.send({"op": "heartbeat", "digests": pack(digests), "extensions": pack(extensions)})

    def _get_logs(self, start: int = 0, n: int | None = None, timestamps: bool = False) -> list[Any]:
        rows = list(self._logs.rows)[start:]
        rows = rows if n is None else rows[-n:] if n else []
        return [row if timestamps else row[1:] for row in rows]

    def _benchmark(self, name: str) -> Any:
        async def run(**arguments: Any) -> Any:
            import distributed.worker

            function = getattr(distributed.worker, name)
            if name == "benchmark_disk":
                arguments["rootdir"] = self._worker.local_directory
            return await asyncio.to_thread(function, **arguments)

        return run


class _Logs(logging.Handler):
    """The last messages of distributed's loggers, for ``Client.get_worker_logs``."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.rows: deque[tuple[float, str, str]] = deque(maxlen=10_000)
        self.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.rows.append((record.created, record.levelname, self.format(record)))


def _flat(frame: Any) -> memoryview:
    view = memoryview(frame)
    return view.cast("B") if view.nbytes else memoryview(b"")


def _wants_comm(handler: Any) -> bool:
    try:
        return next(iter(inspect.signature(handler).parameters), None) == "comm"
    except (TypeError, ValueError):
        return False
