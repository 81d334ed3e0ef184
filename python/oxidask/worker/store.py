"""Values that this executor holds: results of its tasks and dependencies that the parent sent."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from oxidask.worker import values

logger = logging.getLogger("distributed.worker")

EAGER_PACKAGES = frozenset({"numpy", "pandas", "pyarrow"})
"""Results of these packages, and bytes, are copied into the parent's hands as soon as a thread has time."""

EAGER_BYTES = 1 << 30
"""Results above this are copied only when somebody asks: the copy would double the memory. Unit: bytes."""


class Absent(Exception):
    """The value is not here (any more)."""


class Raw:
    """A value as the parent sent it, opened when a task first needs it."""

    __slots__ = ("error", "frames", "header", "lock", "path", "places")

    def __init__(
        self,
        header: bytes,
        frames: list[Any] | None,
        path: str | None = None,
        places: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.header = header
        self.frames = frames
        self.path = path
        self.places = places
        self.lock = threading.Lock()

    def open(self) -> Any:
        frames = self.frames
        if frames is None:
            frames = values.map_memory_file(self.path, self.places)  # type: ignore[arg-type]
        return values.deserialise(self.header, frames)


class Lease:
    """A segment of the parent that is mapped here, or will be: the parent keeps it until this is gone."""

    __slots__ = ("_returned", "id")

    def __init__(self, id: int, returned: deque[int]) -> None:
        self.id = id
        self._returned = returned

    def __del__(self) -> None:
        # Anywhere, perhaps while a lock is held: the parent is told later.
        self._returned.append(self.id)


class Leased(Raw):
    """A value whose frames lie in segments of the parent, or were sent along.

    `places`: for each frame (path, offset, length, lease), or None for the next one of `frames`.
    """

    __slots__ = ()

    def open(self) -> Any:
        return values.deserialise(self.header, values.map_segments(self.places, self.frames))


class Store:
    """Values by the parent's number, and the numbers by key for code that asks by key."""

    def __init__(self) -> None:
        self._values: dict[int, Any] = {}
        self._ids: dict[Any, int] = {}
        self._keys: dict[int, Any] = {}
        self.actors: dict[Any, Any] = {}
        """Instances by key, of actors created here."""
        self._actor_ids: dict[int, Any] = {}
        self.proxy: Callable[[Any, Any], Any] | None = None
        """Makes what a task gets for an actor: ``proxy(instance, key)``."""
        self._sealing: deque[tuple[int, Any]] = deque()
        self._sealer: threading.Thread | None = None
        self._seal_wanted = threading.Semaphore(0)
        self._returned: deque[int] = deque()
        self.on_sealed: Callable[[int, bytes, list[Any]], None] | None = None

    def put(self, id: int, key: Any, value: Any, actor: bool = False) -> None:
        self._name(id, key)
        if actor:
            self.actors[key] = value
            self._actor_ids[id] = key
            value = _ActorSlot(key)
        self._values[id] = value

    def put_leased(self, id: int, key: Any, header: bytes, places: Sequence[Any], frames: list[Any], proc: str) -> None:
        """As `put_raw`; `places` as the parent sends them: (segment, descriptor, offset, length) or None."""
        leases: dict[int, Lease] = {}
        for place in places:
            if place is not None and place[0] not in leases:
                leases[place[0]] = Lease(place[0], self._returned)
        located = [place and (f"{proc}{place[1]}", place[2], place[3], leases[place[0]]) for place in places]
        self.put_raw(id, key, Leased(header, frames, places=located))

    def has_returned(self) -> bool:
        return bool(self._returned)

    def returned(self) -> list[int]:
        """Segments that nothing here needs any more, since the last call."""
        ids = []
        while self._returned:
            ids.append(self._returned.popleft())
        return ids

    def put_raw(self, id: int, key: Any, raw: Raw) -> None:
        self._name(id, key)
        self._values[id] = raw

    def _name(self, id: int, key: Any) -> None:
        self._ids[key] = id
        self._keys[id] = key

    def load(self, id: int) -> Any:
        """The value; raises `Absent`, or what opening it raises."""
        try:
            value = self._values[id]
        except KeyError:
            raise Absent(id) from None
        kind = type(value)
        if kind is Raw or kind is Leased:
            with value.lock:
                current = self._values.get(id, value)
                if isinstance(current, Raw):
                    opened = current.open()
                    if id in self._values:
                        self._values[id] = opened
                    return opened
                return current
        if kind is _ActorSlot:
            assert self.proxy is not None
            return self.proxy(self.actors[value.key], value.key)
        return value

    def id_of(self, key: Any) -> int | None:
        return self._ids.get(key)

    def keys(self) -> list[Any]:
        return list(self._ids)

    def drop(self, ids: Sequence[int]) -> None:
        """Forgets values. Numbers are never used twice, so a late message does no harm."""
        # What is dropped may run code of users when it dies; nothing here is locked then.
        dropped = []
        for id in ids:
            dropped.append(self._values.pop(id, None))
            key = self._keys.pop(id, None)
            if self._ids.get(key) == id:
                del self._ids[key]
            key = self._actor_ids.pop(id, None)
            if key is not None:
                dropped.append(self.actors.pop(key, None))

    def seal(self, id: int) -> tuple[bytes, list[Any]]:
        """Header and frames of a value, ready for the wire. Raises `Absent` or `values.Unserialisable`."""
        value = self.load(id)
        header, frames = values.serialise(value)
        return values.finish(header, frames)

    def seal_later(self, id: int, value: Any, nbytes: int) -> None:
        """Copies a value to the parent in the background, if it is of a kind that is plain data."""
        kind = type(value)
        if kind is not bytes and kind.__module__.partition(".")[0] not in EAGER_PACKAGES:
            return
        if nbytes > EAGER_BYTES or self.on_sealed is None:
            return
        if self._sealer is None:
            self._sealer = threading.Thread(target=self._seal_in_background, name="sealer", daemon=True)
            self._sealer.start()
        self._sealing.append((id, value))
        self._seal_wanted.release()

    def _seal_in_background(self) -> None:
        while True:
            self._seal_wanted.acquire()
            id, value = self._sealing.popleft()
            if id not in self._values:
                continue
            try:
                header, frames = values.finish(*values.serialise(value))
                assert self.on_sealed is not None
                self.on_sealed(id, header, frames)
            except Exception:
                # It stays resident; who asks for it gets the error.
                logger.debug("value %s stays in its executor", id, exc_info=sys.exc_info())
            del value


class _ActorSlot:
    """Stands for an actor among the values: tasks get a proxy for it."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key
