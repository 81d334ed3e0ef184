"""From a client's pickled expression to a graph of nodes: steps 1 to 4 of what a stock scheduler does."""

from __future__ import annotations

import sys
import textwrap
from array import array
from collections.abc import Mapping
from typing import Any

import msgpack
from dask._expr import LLGExpr
from dask._task_spec import GraphNode, convert_legacy_graph
from distributed.client import _MapExpr
from distributed.protocol import pickle
from distributed.protocol.compression import decompress
from distributed.protocol.serialize import deserialize

from oxidask.scheduler import culling
from oxidask.scheduler.pickling import all_plain

DATA_PRODUCER = 1
BARRIER = 2
"""Bits of a node's flags."""

_FAILED_TO_DESERIALIZE = textwrap.dedent(
    """\
                    Error during deserialization of the task graph. This frequently
                    occurs if the Scheduler and Client have different environments.
                    For more information, see
                    https://docs.dask.org/en/stable/deployment-considerations.html#consistent-software-environments
                """
)
"""Word for word stock's, since users search for it."""


class PlainMap:
    """A ``Client.map`` whose arguments are all plain: its nodes need no `Task` objects."""

    def __init__(self, func: Any, keys: list[str], args: list[tuple]) -> None:
        self.func = func
        self.keys = keys
        self.args = args


def unpickle(header: dict[str, Any], frames: list[bytearray]) -> Any:
    """The expression that a client has sent, or stock's RuntimeError with the cause."""
    try:
        return deserialize(header, frames)
    except MemoryError:
        raise
    except Exception as error:
        text = _FAILED_TO_DESERIALIZE
        if isinstance(error, ModuleNotFoundError):
            text += f"\nThe scheduler's interpreter {sys.executable} has no module {error.name!r}.\n"
        else:
            text += f"\nIn the scheduler's interpreter {sys.executable} it raised {error!r:.2000}.\n"
        raise RuntimeError(text) from error


def unpickle_payload(header: bytes, frames: list[bytearray]) -> Any:
    """The object in a payload that Dask has pickled for a message."""
    fields = msgpack.unpackb(header)
    if "compression" in fields:
        frames = decompress(fields, frames)
    return pickle.loads(fields["pickled-obj"], buffers=frames)


def materialise(expr: Any, wanted: tuple) -> tuple[dict[Any, GraphNode], dict[str, dict[Any, Any]]]:
    """The graph of an expression, and its annotations as ``{annotation: {key: value}}``.

    The graph first: its optimisation is cached on the expression, and annotations depend on it.
    """
    culling.install()
    dsk = expr.__dask_graph__()
    annotations = {name: dict(values) for name, values in expr.__dask_annotations__().items()}
    dsk = convert_legacy_graph(dsk)
    if isinstance(expr, LLGExpr):
        # All other expressions leave out what is not wanted by themselves.
        dsk = cull(dsk, wanted)
    return dsk, annotations


def cull(dsk: Mapping[Any, GraphNode], wanted: tuple) -> dict[Any, GraphNode]:
    """The part of a graph that the wanted keys need, in the order of the graph."""
    needed = set()
    stack = [key for key in wanted if key in dsk]
    while stack:
        key = stack.pop()
        if key not in needed:
            needed.add(key)
            stack.extend(dep for dep in dsk[key].dependencies if dep in dsk)
    return dict(dsk) if len(needed) == len(dsk) else {key: node for key, node in dsk.items() if key in needed}


def plain_map(expr: Any) -> PlainMap | None:
    """The expression as a `PlainMap`, if it is one."""
    if type(expr) is not _MapExpr or expr.kwargs or _annotated(expr):
        return None
    keys = expr.keys
    args = list(zip(*expr.iterables))
    if not all(map(all_plain, args)):
        return None
    keys = list(keys)[: len(args)]
    if len(set(keys)) != len(keys) or not all(type(key) is str for key in keys):
        return None
    return PlainMap(expr.func, keys, args[: len(keys)])


def _annotated(expr: Any) -> bool:
    return bool(expr.__dask_annotations__())


class Structure:
    """Keys, dependencies and flags of a graph in the form in which they go to the parent.

    `keys` are the nodes' in the graph's order and then those of dependencies outside the graph. A
    dependency is an index into `keys`: `degrees[i]` of them for node i, one node after the other.
    """

    def __init__(self, dsk: Mapping[Any, GraphNode]) -> None:
        keys = list(dsk)
        index = dict(zip(keys, range(len(keys))))
        degrees, dependencies = array("I"), array("I")
        flags = bytearray(len(keys))
        for i, node in enumerate(dsk.values()):
            needs = node.dependencies
            degrees.append(len(needs))
            for key in needs:
                at = index.get(key)
                if at is None:
                    at = index[key] = len(keys)
                    keys.append(key)
                dependencies.append(at)
            if node.data_producer:
                flags[i] = DATA_PRODUCER
            if type(node).__name__ == "P2PBarrierTask":
                flags[i] |= BARRIER
        self.keys = keys
        self.degrees = degrees
        self.dependencies = dependencies
        self.flags = flags

    @classmethod
    def without_dependencies(cls, keys: list[Any]) -> Structure:
        """The structure of tasks that all stand alone."""
        self = cls({})
        self.keys = keys
        self.degrees = array("I", bytes(4 * len(keys)))
        self.flags = bytearray(len(keys))
        return self
