"""What a worker's collections look like from inside: values, state, handlers and plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import msgpack

from oxidask.worker import values
from oxidask.worker.control import Control
from oxidask.worker.store import Absent, Raw, Store


class DataView(Mapping[Any, Any]):
    """``worker.data``: all values of this worker by key; what is not in this process is fetched from the parent."""

    def __init__(self, control: Control, store: Store) -> None:
        self._control = control
        self._store = store

    def __getitem__(self, key: Any) -> Any:
        id = self._store.id_of(key)
        if id is not None:
            try:
                return self._store.load(id)
            except Absent:
                pass
        document, parts = self._control.call("data", key=key)
        if document.get("absent"):
            raise KeyError(key)
        raw = (
            Raw(document["header"], parts)
            if "path" not in document
            else Raw(document["header"], None, document["path"], document["places"])
        )
        self._store.put_raw(document["value"], key, raw)
        return self._store.load(document["value"])

    def _keys(self) -> list[Any]:
        return list(self._control.call("keys")[0]["keys"])

    def __contains__(self, key: object) -> bool:
        return self._store.id_of(key) is not None or key in self._keys()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())


class TaskView:
    """A task of ``worker.state.tasks``: what it was when it was asked for."""

    def __init__(self, key: Any, state: str, nbytes: int) -> None:
        self.key = key
        self.state = state
        self.nbytes = nbytes

    def __repr__(self) -> str:
        return f"<TaskState {self.key!r} {self.state}>"


class StateView:
    """``worker.state`` as far as code in tasks and plugins reads it."""

    def __init__(self, control: Control, store: Store, settings: dict[str, Any]) -> None:
        self._control = control
        self.nthreads: int = settings["nthreads"]
        self.total_resources: dict[str, float] = dict(settings["resources"])
        self.available_resources: dict[str, float] = dict(settings["resources"])
        self.actors = store.actors
        self.address: str = settings["address"]
        self.validate = False

    @property
    def tasks(self) -> dict[Any, TaskView]:
        tasks = self._control.call("tasks")[0]["tasks"]
        return {key: TaskView(key, state, nbytes) for key, state, nbytes in tasks}

    def __getattr__(self, name: str) -> Any:
        raise not_provided("Worker.state", name)


class Announced(dict[str, Any]):
    """``worker.handlers`` and its like: the parent is told which operations to pass on."""

    def __init__(self, announce: Callable[[list[str]], None], initial: Mapping[str, Any] = {}) -> None:
        super().__init__(initial)
        self._announce = announce

    def __setitem__(self, name: str, handler: Any) -> None:
        super().__setitem__(name, handler)
        self._announce(list(self))

    def update(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        super().update(*args, **kwargs)
        self._announce(list(self))


class Plugins(MutableMapping[str, Any]):
    """``worker.plugins``. A plugin of Dask's own may be set up when it is first asked for."""

    def __init__(self) -> None:
        self._plugins: dict[str, Any] = {}
        self._later: dict[str, Callable[[], None]] = {}

    def set_up_later(self, name: str, set_up: Callable[[], None]) -> None:
        """`set_up` puts the plugin `name` here; it is called, and waited for, by whoever asks for it first."""
        self._later[name] = set_up

    def __getitem__(self, name: str) -> Any:
        # Also while it is being set up: it is among the plugins before it is ready.
        set_up = self._later.get(name)
        if set_up is not None:
            set_up()
        return self._plugins[name]

    def is_set_up(self, name: str) -> None:
        """The plugin `name` can be used."""
        self._later.pop(name, None)

    def __setitem__(self, name: str, plugin: Any) -> None:
        self._plugins[name] = plugin

    def __delitem__(self, name: str) -> None:
        if self._later.pop(name, None) is None or name in self._plugins:
            del self._plugins[name]

    def __contains__(self, name: object) -> bool:
        return name in self._plugins

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._plugins))

    def __len__(self) -> int:
        return len(self._plugins)


class NotProvided(NotImplementedError, AttributeError):
    """An attribute that this worker does not have: an error that says so, and `hasattr` is false."""


def not_provided(what: str, name: str) -> NotProvided:
    return NotProvided(f"{what}.{name} is not provided by oxidask; use `dask worker` for tasks that need it")


def pack(value: Any) -> bytes:
    return msgpack.packb(value, use_bin_type=True)


def payload(value: Any) -> tuple[bytes, list[Any]]:
    """Header and frames of a value, or of the error that takes its place."""
    return values.finish(*values.serialise(value))
