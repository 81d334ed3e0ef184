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
    from oxidask.scheduler.facade import SchedulerFacade
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

    def __init__(self, questions: Questions, scheduler: SchedulerFacade | None = None) -> None:
        self._questions = questions
        self.scheduler = scheduler
        self._known: dict[Any, dict[str, Any]] = {}
        self._until = 0.0

    def __len__(self) -> int:
        return self._questions.ask("task_count")[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._questions.ask("task_keys")[0])

    def __contains__(self, key: object) -> bool:
        return bool(self.fetch([key]))

    def items(self) -> list[tuple[Any, TaskView]]:
        """All tasks, asked for together."""
        infos = self.fetch(self)
        self._known.update(infos)
        self._until = time.monotonic() + FRESH
        return [(key, TaskView(self, key)) for key in infos]

    def values(self) -> list[TaskView]:
        """All tasks, asked for together."""
        return [task for _, task in self.items()]

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
    def waiters(self) -> set[TaskView]:
        """Dependents that are to run."""
        return {task for task in self.dependents if task.state in ("waiting", "queued", "no-worker", "processing")}

    @property
    def who_has(self) -> set[WorkerView]:
        return {WorkerView(address, None, self._tasks.scheduler) for address in self._field("who_has", ())}

    @property
    def who_wants(self) -> set[ClientView]:
        return {ClientView(name, self._tasks.scheduler) for name in self._field("who_wants", ())}

    @property
    def processing_on(self) -> WorkerView | None:
        address = self._field("processing_on")
        return None if address is None else WorkerView(address, None, self._tasks.scheduler)

    @property
    def group(self) -> Any:
        """Its group, with all its attributes; only the name is left once all tasks of the group are forgotten."""
        name = key_split_group(self.key)
        groups = self._tasks.scheduler.task_groups if self._tasks.scheduler is not None else {}
        return groups.get(name) or Named(name)

    @property
    def group_key(self) -> str:
        return key_split_group(self.key)

    @property
    def prefix(self) -> Any:
        name = key_split(self.key)
        prefixes = self._tasks.scheduler.task_prefixes if self._tasks.scheduler is not None else {}
        return prefixes.get(name) or Named(name)

    @property
    def span_id(self) -> str | None:
        return self._field("span_id")

    @property
    def type(self) -> str | None:
        return self._field("type")

    @property
    def actor(self) -> bool:
        return self._field("actor", False)

    @property
    def suspicious(self) -> int:
        return self._field("suspicious", 0)

    @property
    def exception_blame(self) -> TaskView | None:
        key = self._field("exception_blame")
        return None if key is None else TaskView(self._tasks, key)

    @property
    def worker_restrictions(self) -> set[str]:
        return set(self._field("worker_restrictions", ()))

    @property
    def resource_restrictions(self) -> dict[str, float]:
        return self._field("resource_restrictions", {})

    def get_nbytes(self) -> int:
        """Bytes of the result; what is assumed of results while it is unknown."""
        return self.nbytes if self.nbytes >= 0 else 1024

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


class ClientView:
    """``ClientState``."""

    def __init__(self, client_key: str, scheduler: SchedulerFacade | None) -> None:
        self.client_key = client_key
        self._scheduler = scheduler

    def __repr__(self) -> str:
        return f"<Client {self.client_key!r}>"

    def __str__(self) -> str:
        return self.client_key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientView) and self.client_key == other.client_key

    def __hash__(self) -> int:
        return hash(self.client_key)

    def __reduce__(self) -> tuple:
        # Clients cannot import this class.
        return SimpleNamespace, (), {"client_key": self.client_key}

    def _fields(self) -> dict[str, Any]:
        return self._scheduler.attribute("clients_state").get(self.client_key, {})

    @property
    def wants_what(self) -> set[TaskView]:
        return {TaskView(self._scheduler.tasks, key) for key in self._fields().get("wants_what", ())}

    @property
    def last_seen(self) -> float:
        return self._fields().get("last_seen", 0.0)

    @property
    def versions(self) -> dict[str, Any]:
        return self._fields().get("versions") or {}


class WorkerView:
    """A worker, with what ``identity`` says of it; asked for when it is first looked at where it is not given."""

    def __init__(
        self, address: str, fields: dict[str, Any] | None = None, scheduler: SchedulerFacade | None = None
    ) -> None:
        self.address = address
        self._known = fields
        self._scheduler = scheduler

    @property
    def _fields(self) -> dict[str, Any]:
        if self._known is None:
            found = self._scheduler.workers.get(self.address) if self._scheduler is not None else None
            self._known = found._fields if found is not None else {"status": "closed"}
        return self._known

    @property
    def processing(self) -> set[TaskView]:
        keys = self._scheduler.get_processing(workers=[self.address]).get(self.address, ())
        return {TaskView(self._scheduler.tasks, key) for key in keys}

    @property
    def has_what(self) -> set[TaskView]:
        keys = self._scheduler.get_has_what(workers=[self.address]).get(self.address, ())
        return {TaskView(self._scheduler.tasks, key) for key in keys}

    @property
    def memory(self) -> SimpleNamespace:
        """Measures of its memory, by Dask's names. Unit: bytes."""
        return SimpleNamespace(**self._fields.get("memory", {}))

    @property
    def executing(self) -> dict[TaskView, float]:
        return {TaskView(self._scheduler.tasks, key): s for key, s in self._fields.get("executing", ())}

    def identity(self) -> dict[str, Any]:
        return dict(self._fields)

    def __repr__(self) -> str:
        return f"<WorkerState {self.address!r}, name: {self._fields.get('name')}, status: {self._fields.get('status')}>"

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
            if name.startswith("_"):
                raise KeyError(name)
            return self._fields[name]
        except KeyError:
            raise AttributeError(f"workers have no attribute {name!r} that is known outside the scheduler") from None
