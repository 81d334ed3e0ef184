"""Read-only views of the scheduler's tasks and workers, with the names that Dask gives to their attributes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dask.utils import key_split
from distributed.core import Status
from distributed.protocol.serialize import Serialized
from distributed.utils import key_split_group

if TYPE_CHECKING:
    from oxidask.scheduler.questions import Questions

FRESH = 0.02
"""Seconds for which what was learnt about tasks is taken as true; a walk over a graph needs one question."""


class Named(str):
    """A name that also has an attribute ``name``, as prefixes and groups of tasks have."""

    @property
    def name(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple:
        # Clients cannot import this class.
        return str, (str(self),)


class Tasks(Mapping):
    """``scheduler.tasks``: asks the scheduler when it is looked at."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._known: dict[Any, dict[str, Any]] = {}
        self._until = 0.0

    def __len__(self) -> int:
        return self._questions.ask("task_count")[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._questions.ask("task_keys")[0])

    def __contains__(self, key: object) -> bool:
        return bool(self.fetch([key]))

    def __getitem__(self, key: Any) -> TaskView:
        if key not in self:
            raise KeyError(key)
        return TaskView(self, key)

    def fetch(self, keys: Iterable[Any], closure: bool = False) -> dict[Any, dict[str, Any]]:
        """What the scheduler knows of tasks, and with `closure` of all that they depend on."""
        answer, frames = self._questions.ask("tasks", keys=list(keys), closure=closure)
        found = {}
        for task in answer:
            task["exception"] = _serialized(task.get("exception"), frames)
            found[task["key"]] = task
        return found

    def forget(self) -> None:
        """What was learnt before is no longer good enough: a plugin must not miss what happened since."""
        self._until = 0.0

    def info(self, key: Any) -> dict[str, Any]:
        """What is known of a task that exists, fresh or a moment old."""
        now = time.monotonic()
        if now >= self._until:
            self._known.clear()
            self._until = now + FRESH
        info = self._known.get(key)
        if info is None:
            self._known.update(self.fetch([key], closure=True))
            info = self._known.get(key)
        if info is None:
            return {"key": key, "state": "forgotten"}
        # Walking on keeps the picture together, however long the walk takes.
        self._until = now + FRESH
        return info


def _serialized(at: Any, frames: list[bytearray]) -> Serialized | None:
    if at is None:
        return None
    import msgpack

    first, count = at
    header = msgpack.unpackb(frames[first], use_list=False, strict_map_key=False)
    return Serialized(header, frames[first + 1 : first + 1 + count])


class TaskView:
    """A task. Attributes are read when they are used."""

    def __init__(self, tasks: Tasks, key: Any) -> None:
        self._tasks = tasks
        self.key = key
        self.prefix = Named(key_split(key))
        self.group = Named(key_split_group(key))

    def __repr__(self) -> str:
        return f"<TaskState {self.key!r} {self.state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskView) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def _field(self, name: str, default: Any = None) -> Any:
        value = self._tasks.info(self.key).get(name)
        return default if value is None else value

    @property
    def state(self) -> str:
        return self._field("state", "forgotten")

    @property
    def dependencies(self) -> set[TaskView]:
        return {TaskView(self._tasks, key) for key in self._field("dependencies", ())}

    @property
    def dependents(self) -> set[TaskView]:
        return {TaskView(self._tasks, key) for key in self._field("dependents", ())}

    @property
    def who_has(self) -> set[str]:
        return set(self._field("who_has", ()))

    @property
    def who_wants(self) -> set[str]:
        return set(self._field("who_wants", ()))

    @property
    def processing_on(self) -> str | None:
        return self._field("processing_on")

    @property
    def nbytes(self) -> int:
        return self._field("nbytes", -1)

    @property
    def priority(self) -> tuple:
        return self._field("priority", ())

    @property
    def retries(self) -> int:
        return self._field("retries", 0)

    @property
    def annotations(self) -> dict[str, Any]:
        return self._field("annotations", {})

    @property
    def exception(self) -> Serialized | None:
        return self._tasks.info(self.key).get("exception")

    @property
    def exception_text(self) -> str | None:
        return self._field("exception_text")

    @property
    def traceback_text(self) -> str | None:
        return self._field("traceback_text")


class WorkerView:
    """A worker, with what ``identity`` says of it."""

    def __init__(self, address: str, fields: dict[str, Any]) -> None:
        self.address = address
        self._fields = fields

    def __repr__(self) -> str:
        return f"<WorkerState {self.address!r}, name: {self.name}, status: {self._fields.get('status')}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkerView) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __reduce__(self) -> tuple:
        # Clients cannot import this class.
        return SimpleNamespace, (), {"address": self.address, **self._fields}

    @property
    def status(self) -> Status:
        return Status[self._fields.get("status", "undefined")]

    @property
    def host(self) -> str:
        from distributed.comm import get_address_host

        return self._fields.get("host") or get_address_host(self.address)

    @property
    def server_id(self) -> str:
        return self._fields.get("id", self.address)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_fields"][name]
        except KeyError:
            raise AttributeError(f"workers have no attribute {name!r} that is known outside the scheduler") from None
