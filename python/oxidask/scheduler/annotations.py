"""Annotations of a graph, merged per task and put into a form that the parent can read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import msgpack
from distributed.protocol.serialize import msgpack_encode_default

logger = logging.getLogger("oxidask.graph")


class AnnotationTable:
    """The different sets of annotations of one graph; most graphs have one, for all tasks.

    A set is the raw msgpack map ``{annotation: value}`` as it also goes to the worker with the task.
    What applies to a single task replaces what applies to all.
    """

    def __init__(self, for_all: dict[str, Any], by_key: dict[str, dict[Any, Any]]) -> None:
        self._by_key = {name: values for name, values in by_key.items() if values}
        self._constant = {name: value for name, value in for_all.items() if not callable(value)}
        self._computed = {name: value for name, value in for_all.items() if callable(value)}
        self._numbers: dict[bytes, int] = {}
        self.sets: list[bytes] = []
        self._everywhere = self._number(self._constant)

    @property
    def is_uniform(self) -> bool:
        """All tasks have set 0."""
        return not self._by_key and not self._computed

    def numbers(self, keys: Iterable[Any]) -> list[int]:
        """For each key the position of its set in `sets`."""
        return [self._of(key) for key in keys]

    def _of(self, key: Any) -> int:
        own = {name: value(key) for name, value in self._computed.items()}
        for name, values in self._by_key.items():
            value = values.get(key)
            if value is not None:
                own[name] = value
        return self._number({**self._constant, **own}) if own else self._everywhere

    def _number(self, annotations: dict[str, Any]) -> int:
        packed = pack(annotations)
        number = self._numbers.get(packed)
        if number is None:
            number = self._numbers[packed] = len(self.sets)
            self.sets.append(packed)
        return number


def pack(annotations: dict[str, Any]) -> bytes:
    """Annotations as msgpack, without those whose values msgpack does not know."""
    try:
        return _packb(annotations)
    except Exception:
        good = {}
        for name, value in annotations.items():
            try:
                _packb({name: value})
            except Exception as error:
                logger.warning("annotation %r left out: %s", name, error)
            else:
                good[name] = value
        return _packb(good)


def _packb(value: Any) -> bytes:
    return msgpack.packb(value, default=msgpack_encode_default, use_bin_type=True)
