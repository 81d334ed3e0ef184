"""What tests get for the scheduler's own view of tasks and workers."""

from __future__ import annotations

from typing import Any

from distributed.core import Status

from .cluster import Cluster
from .now import NotBlackBox


def unknown(kind: str):
    """A `__getattr__` for what cannot be asked over the wire."""

    def __getattr__(self: object, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotBlackBox(f"{kind}.{name}")

    return __getattr__


class Frozen:
    """Attributes are set once, by us; a test that assigns one is not black-box."""

    #: Public attributes that we set.
    OWN: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__ or not (name.startswith("_") or name in self.OWN):
            raise NotBlackBox(f"assigns {type(self).__name__}.{name}")
        self.__dict__[name] = value


class TaskView:
    """`TaskState`."""

    def __init__(self, cluster: Cluster, key: object):
        self._cluster, self.key = cluster, key

    __getattr__ = unknown("TaskState")

    @property
    def state(self) -> str:
        return self._cluster.call("get_task_status", keys=[self.key])[self.key]

    @property
    def who_has(self) -> set[WorkerView]:
        addresses = self._cluster.call("who_has", keys=[self.key]).get(self.key, ())
        return {WorkerView(self._cluster, address, {}) for address in addresses}


class Tasks:
    """`Scheduler.tasks`, as far as a key can be asked for; it cannot be enumerated."""

    def __init__(self, cluster: Cluster, seen: set):
        self._cluster, self._seen = cluster, seen

    __getattr__ = unknown("s.tasks")

    def _status(self, keys) -> dict:
        return self._cluster.call("get_task_status", keys=list(keys))

    def __contains__(self, key: object) -> bool:
        return self._status([key])[key] is not None

    def __getitem__(self, key: object) -> TaskView:
        if key not in self:
            raise KeyError(key)
        return TaskView(self._cluster, key)

    def get(self, key: object, default: object = None) -> object:
        try:
            return self[key]
        except KeyError:
            return default

    def __bool__(self) -> bool:
        # Of the keys that this test is known to have used.
        known = self._status(self._seen).values()
        return any(state is not None for state in known) or any(self._cluster.call("processing").values())

    def _enumerate(self, *_: object):
        raise NotBlackBox("enumerating s.tasks")

    __iter__ = __len__ = __eq__ = _enumerate
    __hash__ = None


class WorkerView:
    """`WorkerState`."""

    def __init__(self, cluster: Cluster, address: str, info: dict):
        self._cluster, self.address, self._info = cluster, address, info

    def __getattr__(self, name: str) -> Any:
        if name in ("nthreads", "name", "host", "resources") and self._info:
            return self._info[name]
        return unknown("WorkerState")(self, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkerView) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    @property
    def status(self) -> Status:
        return Status[self._info.get("status", "running")]

    @property
    def processing(self) -> set:
        return set(self._cluster.call("processing", workers=[self.address])[self.address])

    @property
    def has_what(self) -> set:
        return set(self._cluster.call("has_what", workers=[self.address])[self.address])
