"""What the scheduler has done in this process. Each function is one ``what`` of a call."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol import dumps, pickle, to_serialize
from distributed.utils import ensure_memoryview, has_arg, iscoroutinefunction

from oxidask.errors import describe

if TYPE_CHECKING:
    from oxidask.scheduler.aside import Aside


@dataclass
class Reply:
    """What a call gives: a msgpack value, or frames of a Dask message that goes to the client as it is."""

    value: Any = None
    parts: list[Any] = field(default_factory=list)

    @classmethod
    def message(cls, message: Any, serializers: list[str] | None = None) -> Reply:
        return cls(parts=dumps(message, serializers=serializers))


def run_function(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """``run_on_scheduler``. Parts: the pickled function, arguments and keyword arguments, empty for none."""
    serializers = args.get("serializers")
    try:
        function, values, keywords = (pickle.loads(part) if part else None for part in parts)
        values, keywords = values or (), dict(keywords or {})
        if not args["wait"] and not iscoroutinefunction(function):
            raise AssertionError("Combination not supported")
        if has_arg(function, "dask_worker"):
            keywords["dask_worker"] = aside.facade
        if has_arg(function, "dask_scheduler"):
            keywords["dask_scheduler"] = aside.facade
        if iscoroutinefunction(function):
            future = asyncio.run_coroutine_threadsafe(function(*values, **keywords), aside.loop)
            result = future.result() if args["wait"] else None
        else:
            result = function(*values, **keywords)
        return Reply.message({"status": "OK", "result": to_serialize(result)}, serializers)
    except Exception as error:
        return Reply.message(error_map(error), serializers)


def error_map(error: BaseException, status: str = "error") -> dict[str, Any]:
    """An error as a reply says it."""
    fields, pickles = describe(error)
    return {
        "status": status,
        "exception": to_serialize(pickles[0]),
        "traceback": to_serialize(pickles[1]) if fields["traceback"] else None,
        "exception_text": fields["exception_text"],
        "traceback_text": fields["traceback_text"],
    }


async def register_plugin(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """Starts a scheduler plugin. Part: its pickle. Value: the name under which it is known, and its class's."""
    plugin = pickle.loads(parts[0])
    if not isinstance(plugin, SchedulerPlugin):
        raise TypeError(f"{type(plugin).__name__} is not a SchedulerPlugin")
    name = args["name"] or plugin_name(plugin)
    plugins = aside.facade.plugins
    if not (name in plugins and args["idempotent"]):
        # As stock: start first, so that a plugin which fails to start is not registered.
        started = plugin.start(aside.facade)
        if inspect.isawaitable(started):
            await started
        plugins.add(name, plugin)
    return Reply(value=name)


def plugin_name(plugin: SchedulerPlugin) -> str:
    """The name that stock gives to a plugin that is registered without one."""
    from distributed.diagnostics.plugin import _get_plugin_name

    return _get_plugin_name(plugin)


async def unregister_plugin(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """Takes a plugin away; raises ValueError if there is none of this name, as stock."""
    aside.facade.plugins.remove(args["name"])
    return Reply()


async def preload(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """Imports modules named on the command line and runs their ``dask_setup``."""
    from distributed.preloading import process_preloads

    preloads = process_preloads(
        aside.facade,
        list(args["modules"]),
        [list(argv) for argv in args["argv"]],
        file_dir=aside.facade.local_directory,
    )
    aside.facade.preloads.append(preloads)
    await preloads.start()
    return Reply()


def memory_policies(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """Starts the policies of the active memory manager that the configuration names, as far as they are Python."""
    aside.facade.extensions["amm"].add_configured()
    return Reply()


async def close(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """Runs what plugins and preloads want to do at the end."""
    for plugin in aside.facade.plugins.all():
        await _quietly(plugin.before_close)
    for preloads in aside.facade.preloads:
        await _quietly(preloads.teardown)
    for plugin in aside.facade.plugins.all():
        await _quietly(plugin.close)
    aside.facade.remove_local_directory()
    return Reply()


async def _quietly(function: Callable[[], Any]) -> None:
    import logging

    try:
        result = function()
        if inspect.isawaitable(result):
            await result
    except Exception:
        logging.getLogger("oxidask.aside").exception("error at the scheduler's end")


async def feed(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """Sends ``function(scheduler, state)`` to the client again and again. Parts: setup, function, teardown."""
    from dask.utils import parse_timedelta

    setup, function, teardown = (pickle.loads(part) if part else None for part in parts)
    interval = parse_timedelta(args["interval"])
    stop = aside.feeds[call] = asyncio.Event()
    scheduler = aside.facade
    try:
        state = setup(scheduler) if setup else None
        if inspect.isawaitable(state):
            state = await state
        try:
            while not stop.is_set():
                message = function(scheduler) if state is None else function(scheduler, state)
                aside.send({"op": "feed", "id": call}, dumps(message))
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), interval)
        finally:
            if teardown:
                teardown(scheduler, state)
    finally:
        del aside.feeds[call]
    return Reply()


def p2p_spec(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """What workers need to know of a new run of a P2P shuffle.

    Parts: the header of the barrier task's node and its buffers. Value: ``[[partition, worker], ...]``; parts: the
    pickled ``ShuffleRunSpec`` and its buffers.
    """
    from distributed.shuffle._core import ShuffleRunSpec

    from oxidask.scheduler.materialise import unpickle_payload

    spec = unpickle_payload(bytes(parts[0]), parts[1:]).spec
    workers, existing = list(args["workers"]), dict(args["existing"])
    worker_for = {
        partition: existing.get(partition) or spec.pick_worker(partition, workers)
        for partition in spec.output_partitions
    }
    run = ShuffleRunSpec(spec=spec, worker_for=worker_for, span_id=args["span_id"])
    # Its own count starts again with every process, but workers refuse numbers that they have seen.
    object.__setattr__(run, "run_id", args["run_id"])
    buffers: list[Any] = []
    data = pickle.dumps(run, buffer_callback=lambda buffer: buffers.append(ensure_memoryview(buffer)))
    return Reply(value=list(worker_for.items()), parts=[data, *buffers])


def worker_groups(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """For each worker, a number that is equal for workers to which a user's ``key`` function gives equal values.

    Parts: the pickled function; with ``args["payload"]``, the header and the buffers of one that Dask has pickled for
    a message. ``args["workers"]``: their addresses.
    """
    from oxidask.scheduler.materialise import unpickle_payload

    key = unpickle_payload(bytes(parts[0]), parts[1:]) if args["payload"] else pickle.loads(parts[0])
    views = aside.facade.workers
    numbers: dict[Any, int] = {}
    groups = []
    for address in args["workers"]:
        value = key(views[address])
        groups.append(numbers.setdefault(value, len(numbers)))
    return Reply(value=groups)


def versions(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """Versions of this environment, as the ``versions`` operation gives them."""
    from distributed.versions import get_versions

    return Reply.message(get_versions(packages=args.get("packages")))


def workers_downscaling(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """Addresses of the workers that all plugins would let go."""
    workers = list(aside.facade.workers.values())
    for plugin in aside.facade.plugins.all():
        workers = list(plugin.valid_workers_downscaling(aside.facade, workers))
    return Reply(value=[worker.address for worker in workers])


async def operation(aside: Aside, call: int, args: dict[str, Any], parts: list[bytearray]) -> Reply:
    """Carries out an operation of `OPERATIONS`; the reply is for the client."""
    from oxidask.scheduler.operations import OPERATIONS

    return Reply.message(await OPERATIONS[args["name"]](aside.facade, **args["kwargs"]))


CALLS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        run_function,
        register_plugin,
        unregister_plugin,
        preload,
        memory_policies,
        close,
        feed,
        p2p_spec,
        worker_groups,
        versions,
        operation,
        workers_downscaling,
    )
}
