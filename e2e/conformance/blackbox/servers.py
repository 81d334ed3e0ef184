"""What tests get for `Scheduler` and `Worker`."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Mapping

from distributed.core import Status
from distributed.protocol import Serialized, deserialize

from clusters import Process

from .cluster import Cluster, WorkerSpec
from .now import NotBlackBox
from .probe import PROBE
from .views import Frozen, Tasks, WorkerView, unknown

#: Seconds that an asynchronous test has; pytest's own limit is behind it.
TEST_TIMEOUT = 25

#: Clusters that the running test was given.
ACTIVE: list[Cluster] = []


def remote(op: str, *, wait: bool):
    """A method that is an RPC of clients, or of Adaptive: awaitable, or answered at once."""

    def method(self: SchedulerProxy, *positional: object, **arguments: object):
        if positional:
            raise NotBlackBox(f"Scheduler.{op} with positional arguments")
        if wait:
            return self._cluster.call(op, **arguments)
        call = functools.partial(self._cluster.call, op, timeout=TEST_TIMEOUT, **arguments)
        return asyncio.get_running_loop().run_in_executor(None, call)

    return method


class SchedulerProxy(Frozen):
    OWN = frozenset({"address", "ip", "port"})

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._seen: set = set()
        self.address = cluster.address
        self.ip = cluster.spec.host
        self.port = cluster.port

    __getattr__ = unknown("Scheduler")

    @property
    def id(self) -> str:
        return self._cluster.identity()["id"]

    @property
    def workers(self) -> Mapping:
        workers = self._cluster.identity()["workers"]
        return {address: WorkerView(self._cluster, address, i) for address, i in workers.items()}

    @property
    def total_nthreads(self) -> int:
        return sum(worker.nthreads for worker in self.workers.values())

    @property
    def tasks(self) -> Tasks:
        return Tasks(self._cluster, self._seen)

    def get_task_status(self, keys) -> dict:
        return self._cluster.call("get_task_status", keys=list(keys))

    retire_workers = remote("retire_workers", wait=False)
    rebalance = remote("rebalance", wait=False)
    replicate = remote("replicate", wait=False)
    broadcast = remote("broadcast", wait=False)
    workers_to_close = remote("workers_to_close", wait=True)
    adaptive_target = remote("adaptive_target", wait=True)

    async def close(self, *_: object, **__: object) -> None:
        self._cluster.scheduler.terminate()
        self._cluster.scheduler.join(10)

    def __getitem__(self, name: str) -> str:
        # The fixtures of blocking tests hand out dictionaries.
        return {"address": self.address}[name]


class Data(Mapping):
    """`Worker.data`: the keys that the scheduler knows it to hold."""

    def __init__(self, cluster: Cluster, address: str):
        self._cluster, self._address = cluster, address

    __getattr__ = unknown("Worker.data")
    __hash__ = None

    def _keys(self) -> list:
        return list(self._cluster.call("has_what", workers=[self._address]).get(self._address, ()))

    def __iter__(self):
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def __contains__(self, key: object) -> bool:
        return key in self._keys()

    def __eq__(self, other: object) -> bool:
        return dict(self) == other

    def __getitem__(self, key: object) -> object:
        if key not in self:
            raise KeyError(key)
        reply = self._cluster.call("gather", keys=[key])  # as Client.gather(direct=False)
        if reply["status"] != "OK":
            raise KeyError(key)
        value = reply["data"][key]
        if isinstance(value, Serialized):
            return deserialize(value.header, value.frames)
        return value


class WorkerStateProxy:
    """`Worker.state`."""

    __getattr__ = unknown("Worker.state")

    def __init__(self, nthreads: int):
        self.nthreads = nthreads


class WorkerProxy(Frozen):
    """One worker process; `Worker(s.address, nthreads=, name=, resources=)` starts one more."""

    OWN = frozenset({"address", "worker_address", "proc", "name", "ip", "port", "state", "data"})

    def __init__(self, scheduler=None, *positional, nthreads=1, name=None, resources=None, **others):
        others.pop("loop", None)
        if positional or others or not isinstance(scheduler, str):
            raise NotBlackBox(f"Worker(..., {', '.join(map(str, others)) or positional})")
        self._cluster = next((c for c in ACTIVE if c.address == scheduler), None)
        if self._cluster is None:
            raise NotBlackBox("Worker of another scheduler")
        self._name = name
        self._spec = WorkerSpec(
            nthreads=nthreads,
            name="" if name is None else str(name),
            resources=tuple((resources or {}).items()),
        )

    @classmethod
    def of(cls, cluster: Cluster, address: str, process: Process, spec: WorkerSpec) -> WorkerProxy:
        self = cls.__new__(cls)
        self._cluster = cluster
        name = int(spec.name) if spec.name.isdigit() else spec.name
        self._bind(address, process, name, spec.nthreads)
        return self

    def _bind(self, address: str, process: Process, name: object, nthreads: int) -> None:
        self.address = self.worker_address = address
        self.proc = process
        self.name = name
        self.ip, port = address.split("://")[-1].rsplit(":", 1)
        self.port = int(port)
        self.state = WorkerStateProxy(nthreads)
        self.data = Data(self._cluster, address)

    __getattr__ = unknown("Worker")

    def __await__(self):
        return self._start().__await__()

    async def _start(self) -> WorkerProxy:
        if "proc" not in self.__dict__:
            loop = asyncio.get_running_loop()
            add = functools.partial(self._cluster.add_workers, (self._spec,))
            ((address, process),) = await loop.run_in_executor(None, add)
            name = address if self._name is None else self._name
            self._bind(address, process, name, self._spec.nthreads)
        return self

    @property
    def id(self) -> str:
        return PROBE.call(self.address, "identity")["id"]

    @property
    def status(self) -> Status:
        try:
            info = self._cluster.identity()["workers"].get(self.address)
        except OSError:
            info = None
        return Status[info.get("status", "running") if info else "closed"]

    async def __aenter__(self) -> WorkerProxy:
        return await self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, *_: object, **arguments: object) -> None:
        if arguments.keys() - {"timeout", "executor_wait"}:
            raise NotBlackBox(f"Worker.close({arguments})")
        self.proc.terminate()  # SIGTERM stops a worker gracefully
        deadline = time.monotonic() + 10
        while self.proc.is_alive() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        self.proc.kill()
