"""Byte strings that several nodes of one graph share, each sent to the parent once."""

from __future__ import annotations

from typing import Any


class Blobs:
    """Numbers the buffers of one graph in the order in which they are first used."""

    def __init__(self) -> None:
        self._number: dict[int, int] = {}
        self._keep: list[Any] = []
        self._count = 0
        self._fresh: list[Any] = []

    def add(self, owner: object, data: Any) -> int:
        """The number of `data`, the same for every call with this `owner`, which is kept alive to keep its id."""
        number = self._number.get(id(owner))
        if number is None:
            number = self._number[id(owner)] = self._count
            self._keep.append(owner)
            self._count += 1
            self._fresh.append(data)
        return number

    def take_fresh(self) -> list[Any]:
        """Buffers that were added since the last call, in the order of their numbers."""
        fresh, self._fresh = self._fresh, []
        return fresh
