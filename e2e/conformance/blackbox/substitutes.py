"""What stands in for `gen_cluster`, `cluster` and `wait_for_state` of `distributed.utils_test`."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import functools
import inspect
from collections.abc import Iterator

import dask
import distributed
import distributed.utils_test as utils_test
import pytest
from distributed import Client
from distributed.worker import Worker as RealWorker

from .cluster import Cluster, Spec, WorkerSpec
from .now import NOW, NotBlackBox
from .pool import POOL
from .servers import ACTIVE, TEST_TIMEOUT, SchedulerProxy, WorkerProxy


def config_env(config: dict) -> tuple:
    """Configuration that a test asks for, as environment variables of the processes."""
    variables: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict):
            variables += config_env({f"{key}.{k}": v for k, v in value.items()})
            continue
        try:
            same = ast.literal_eval(repr(value)) == value
        except (SyntaxError, ValueError):
            same = False
        if not same:
            raise NotBlackBox(f"configuration {key}={value!r}")
        name = "DASK_" + "__".join(part.upper().replace("-", "_") for part in key.split("."))
        variables.append((name, value if isinstance(value, str) else repr(value)))
    return tuple(sorted(variables))


def worker_spec(number: int, wanted: tuple, common: dict) -> WorkerSpec:
    """Of one entry of `nthreads=[(host, threads, {options}), …]`."""
    host, nthreads, *own = wanted
    options = {**common, **(own[0] if own else {})}
    resources = options.pop("resources", None) or {}
    name = str(options.pop("name", number))
    if options:
        raise NotBlackBox(f"worker_kwargs {sorted(options)}")
    return WorkerSpec(host, nthreads, name, tuple(resources.items()))


@contextlib.contextmanager
def external(spec: Spec) -> Iterator[Cluster]:
    cluster = POOL.get(spec, NOW.fresh)
    NOW.clusters += 1
    ACTIVE.append(cluster)
    passed = False
    try:
        yield cluster
        passed = True
    except BaseException as error:
        if not isinstance(error, pytest.skip.Exception):
            print(cluster.logs())
        raise
    finally:
        ACTIVE.remove(cluster)
        POOL.put(cluster, passed and not NOW.dirty and not NOW.internal)


@contextlib.contextmanager
def client_config(config: dict | None) -> Iterator[None]:
    """The same configuration on the test's own side."""
    timeouts = {"distributed.comm.timeouts.connect": "5s"}
    with utils_test.config_for_cluster_tests(**timeouts), dask.config.set(config or {}):
        yield


def gen_cluster(
    nthreads=None,
    scheduler="127.0.0.1",
    timeout=30,
    security=None,
    Worker=RealWorker,
    client=False,
    scheduler_kwargs=None,
    worker_kwargs=None,
    client_kwargs=None,
    active_rpc_timeout=1,
    config=None,
    clean_kwargs=None,
    allow_unclosed=True,
):
    if nthreads is None:
        nthreads = [("127.0.0.1", 1), ("127.0.0.1", 2)]

    def spec() -> Spec:
        if Worker not in (RealWorker, WorkerProxy):
            raise NotBlackBox(f"Worker={Worker.__name__}")
        if scheduler_kwargs:
            raise NotBlackBox(f"scheduler_kwargs {sorted(scheduler_kwargs)}")
        if security:
            raise NotBlackBox("TLS cluster")
        common = worker_kwargs or {}
        workers = tuple(worker_spec(i, wanted, common) for i, wanted in enumerate(nthreads))
        return Spec(workers, scheduler, config_env(config or {}))

    def decorate(test):
        @functools.wraps(test)
        def run(*outer, **keywords):
            async def body(cluster: Cluster) -> None:
                proxy = SchedulerProxy(cluster)
                arguments = [proxy]
                pairs = zip(cluster.workers, cluster.spec.workers, strict=True)
                for (address, process), wanted in pairs:
                    arguments.append(WorkerProxy.of(cluster, address, process, wanted))
                async with contextlib.AsyncExitStack() as stack:
                    if client:
                        connected = Client(proxy.address, asynchronous=True, **(client_kwargs or {}))
                        await stack.enter_async_context(connected)
                        note_keys(connected, proxy._seen)
                        arguments.insert(0, connected)
                    try:
                        work = test(*arguments, *outer, **keywords)
                        await asyncio.wait_for(work, min(timeout, TEST_TIMEOUT))
                    finally:
                        await close_others(arguments)

            with client_config(config), external(spec()) as cluster:
                try:
                    utils_test._run_and_close_tornado(body, cluster)
                finally:
                    distributed.client._global_clients.clear()

        run.uses_cluster = True
        signature = inspect.signature(test)
        given = 1 + len(nthreads) + bool(client)
        bound = signature.bind_partial(*[None] * given).arguments
        run.__signature__ = signature.replace(
            parameters=[p for name, p in signature.parameters.items() if name not in bound]
        )
        return run

    return decorate


async def close_others(arguments: list) -> None:
    """Closes the clients that a test opened itself."""
    for client in list(Client._instances):
        if client.asynchronous and client not in arguments and client.status == "running":
            await client._close(fast=True)


@contextlib.contextmanager
def cluster(
    nworkers=2,
    nanny=False,
    worker_kwargs=None,
    active_rpc_timeout=10,
    scheduler_kwargs=None,
    config=None,
):
    """The blocking form: a scheduler's address, and those of its workers with their processes."""
    if nanny:
        raise NotBlackBox("nanny=True")
    if scheduler_kwargs:
        raise NotBlackBox(f"scheduler_kwargs {sorted(scheduler_kwargs)}")
    common = dict(worker_kwargs or {})
    wanted = ("127.0.0.1", common.pop("nthreads", 1))
    workers = tuple(worker_spec(i, wanted, common) for i in range(nworkers))
    with external(Spec(workers, env=config_env(config or {}))) as started:
        yield (
            {"address": started.address},
            [{"address": a, "proc": lambda p=p: p} for a, p in started.workers],
        )
        for client in list(Client._instances):
            if not client.asynchronous and client.status not in ("closed", "closing"):
                with contextlib.suppress(Exception):
                    client.close(timeout=2)


def note_keys(client: Client, seen: set) -> None:
    """Remembers the keys of a client's futures, for the truth value of `s.tasks`."""
    original = client._inc_ref

    def inc_ref(key: object) -> object:
        seen.add(key)
        return original(key)

    client._inc_ref = inc_ref


async def wait_for_state(key, state, server, *, interval=0.02):
    states = {state} if isinstance(state, str) else set(state)
    if isinstance(server, SchedulerProxy):
        while server.get_task_status([key])[key] not in states:
            await asyncio.sleep(interval)
    elif isinstance(server, WorkerProxy) and states <= {"executing", "memory"}:
        call, address = server._cluster.call, server.address

        def reached() -> bool:
            if "memory" in states and key in server.data:
                return True
            processing = call("processing", workers=[address]).get(address, ())
            return "executing" in states and key in processing

        while not reached():
            await asyncio.sleep(interval)
        if "executing" in states:
            await asyncio.sleep(0.1)  # what was sent to the worker has not begun there yet
    else:
        raise NotBlackBox(f"wait_for_state({states}) on {type(server).__name__}")
