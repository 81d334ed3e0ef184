"""One pickle per node, as a stock worker expects it, at the least cost.

Three ways, from cheap to general, all with results that ``pickle.loads`` of a stock worker turns into the
object that stock Dask would have sent:

* `MapTemplate`: nodes that differ in key and plain arguments only; one splice of bytes per node.
* `NodePickler.dump`, plain: the C pickler, kept between nodes, with reducers for graph nodes that need no
  Python-level ``__reduce_ex__``.
* by value: what lives in ``__main__`` or cannot be imported goes through cloudpickle, as in
  ``distributed.protocol.pickle.dumps``. A function or class so pickled is made once per graph, and nodes refer
  to its bytes: they hold ``pickle.loads(<out-of-band buffer>)`` where the function would stand.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import pickletools
from collections.abc import Callable, Iterable
from operator import attrgetter
from types import FunctionType
from typing import Any

import cloudpickle
from dask._task_spec import GraphNode, Task, TaskRef
from distributed.protocol import pickle as dask_pickle
from distributed.utils import ensure_memoryview

from oxidask.scheduler.blobs import Blobs

PROTOCOL = 5

SHARE_FROM = 256
"""Bytes from which a function pickled by value is shared; below, the reference would cost as much."""

LARGE = 4096
"""Bytes of a pickled node from which it is looked through for values that other nodes hold too."""

_MAIN = b"__main__"
_loads = pickle.loads


class NodePickler:
    """Pickles the nodes of one graph, each alone."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._file = io.BytesIO()
        self._buffers: list[pickle.PickleBuffer] = []
        self._plain = self._pickler()
        self._shared: dict[int, tuple[object, pickle.PickleBuffer | None]] = {}
        self._repeated = RepeatedValues()
        self._prefer_value = False

    def _pickler(self) -> pickle.Pickler:
        pickler = pickle.Pickler(self._file, PROTOCOL, buffer_callback=self._buffers.append)
        pickler.dispatch_table = _DISPATCH_TABLE
        return pickler

    def dump(self, node: GraphNode) -> tuple[bytes, list[int]]:
        """The node's pickle and the numbers of its out-of-band buffers.

        Raises whatever the user's objects raise when they are pickled.
        """
        data, buffers = self._dump(node)
        if len(data) > LARGE:
            slim = self._repeated.replaced(node)
            if slim is not node:
                return self._dump(slim)
        return data, buffers

    def _dump(self, node: Any) -> tuple[bytes, list[int]]:
        if not self._prefer_value:
            try:
                data = self._dump_plain(node)
            except Exception:
                # Tried first for the other nodes too: graphs with one lambda have many.
                self._prefer_value = True
            else:
                if _MAIN not in data:
                    return data, self._take_buffers() if self._buffers else _NONE
        return self._dump_by_value(node)

    def _dump_plain(self, node: object) -> bytes:
        file = self._file
        file.seek(0)
        file.truncate()
        self._buffers.clear()
        self._plain.clear_memo()
        self._plain.dump(node)
        data = file.getvalue()
        if len(data) > LARGE:
            # Its memo keeps the size that the largest node needed, and is cleared at that cost for each node to come.
            self._plain = self._pickler()
        return data

    def _dump_by_value(self, node: object) -> tuple[bytes, list[int]]:
        self._buffers.clear()
        try:
            file = io.BytesIO()
            _ByValue(file, self._buffers.append, self.share).dump(node)
            data = file.getvalue()
        except Exception:
            # Objects that only Dask's own serialisers know, and the error that the user is to see.
            self._buffers.clear()
            data = dask_pickle.dumps(node, buffer_callback=self._buffers.append)
        return data, self._take_buffers()

    def _take_buffers(self) -> list[int]:
        numbers = []
        for buffer in self._buffers:
            view = ensure_memoryview(buffer)
            numbers.append(self._blobs.add(_owner(buffer, view), view))
        self._buffers.clear()
        return numbers

    def share(self, obj: object) -> pickle.PickleBuffer | None:
        """The bytes of a function or class that is pickled by value, or None if it is better pickled in place."""
        known = self._shared.get(id(obj))
        if known is None:
            data = cloudpickle.dumps(obj, protocol=PROTOCOL)
            buffer = pickle.PickleBuffer(data) if len(data) >= SHARE_FROM else None
            known = self._shared[id(obj)] = (obj, buffer)
        return known[1]


_NONE: list[int] = []


def _owner(buffer: pickle.PickleBuffer, view: memoryview) -> object:
    """The object all of whose memory an out-of-band buffer is, so that equal owners have equal bytes."""
    with memoryview(buffer) as raw:
        owner = raw.obj
    # Of other exporters, two buffers may be different parts of the memory of one object.
    whole = type(owner) is bytes and len(owner) == view.nbytes
    if not whole and type(owner).__module__ == "numpy":
        whole = getattr(owner, "nbytes", None) == view.nbytes
    return owner if whole else view


class _ByValue(cloudpickle.Pickler):
    def __init__(
        self,
        file: io.BytesIO,
        buffer_callback: Callable[[pickle.PickleBuffer], Any],
        share: Callable[[object], pickle.PickleBuffer | None],
    ) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=buffer_callback)
        self._share = share

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType or isinstance(obj, type):
            buffer = self._share(obj)
            if buffer is not None:
                return _loads, (buffer,)
        return super().reducer_override(obj)


# Values that several nodes hold


class Shared:
    """Stands in a node for a value whose pickle is sent once; a worker unpickles the value in its place."""

    def __init__(self, buffer: pickle.PickleBuffer) -> None:
        self.buffer = buffer

    def __reduce__(self) -> tuple:
        return _loads, (self.buffer,)


class RepeatedValues:
    """Finds large values that come again in the nodes of one graph, such as a model given to every task.

    A stock scheduler holds such a value once and pickles it into each message; here it would be pickled into each
    node as soon as the graph comes in, and held as often.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[object, int, Shared | None]] = {}
        self._nodes = 0

    def replaced(self, node: GraphNode) -> GraphNode:
        """The node with large values that have been seen before replaced by references, or itself if there are none.

        Values are told apart by identity. The graph keeps them alive, and so does this. A value that comes twice in
        one node only is left alone, since its pickle holds it once.
        """
        self._nodes += 1
        return self._replaced(node)

    def _replaced(self, node: Any) -> Any:
        if isinstance(node, Task):
            args = [self._replaced(value) for value in node.args]
            kwargs = {name: self._replaced(value) for name, value in node.kwargs.items()}
            same = all(a is b for a, b in zip(args, node.args)) and all(kwargs[k] is v for k, v in node.kwargs.items())
            return node if same else _with_arguments(node, tuple(args), kwargs)
        if isinstance(node, (GraphNode, TaskRef)):
            return node
        if type(node) is dict and any(isinstance(value, GraphNode) for value in node.values()):
            # The tasks of a fused task.
            inner = {key: self._replaced(value) for key, value in node.items()}
            return node if all(inner[key] is value for key, value in node.items()) else inner
        return self._value(node)

    def _value(self, value: Any) -> Any:
        if type(value) in PLAIN and not (isinstance(value, (str, bytes)) and len(value) >= LARGE):
            return value
        _, first, shared = self._seen.setdefault(id(value), (value, self._nodes, None))
        if first == self._nodes:
            return value
        if shared is None:
            shared = Shared(pickle.PickleBuffer(dask_pickle.dumps(value)))
            self._seen[id(value)] = (value, first, shared)
        return shared if memoryview(shared.buffer).nbytes >= LARGE else value


def _with_arguments(task: Task, args: tuple, kwargs: dict[str, Any]) -> Task:
    copy = object.__new__(type(task))
    for slot in task.get_all_slots():
        if hasattr(task, slot):
            setattr(copy, slot, getattr(task, slot))
    copy.args, copy.kwargs = args, kwargs
    return copy


# Reducers for graph nodes


def _state_of(cls: type) -> Callable[[Any], Any]:
    """What ``__getstate__`` of a task class returns, without its loop in Python where it is the plain one."""
    if cls.__getstate__ is Task.__getstate__:
        return attrgetter(*cls.get_all_slots())
    return cls.__getstate__


def _reducer(cls: type) -> Callable[[Any], tuple]:
    state, new, args = _state_of(cls), copyreg.__newobj__, (cls,)
    return lambda node: (new, args, state(node))


class _DispatchTable(dict):
    """Reducers by type: those registered with `copyreg`, and ours for subclasses of `Task`, made on demand."""

    def __missing__(self, cls: type) -> Callable[[Any], Any]:
        if cls in copyreg.dispatch_table:
            return copyreg.dispatch_table[cls]
        if issubclass(cls, Task) and cls.__reduce__ is object.__reduce__ and cls.__reduce_ex__ is object.__reduce_ex__:
            reducer = self[cls] = _reducer(cls)
            return reducer
        raise KeyError(cls)


_DISPATCH_TABLE = _DispatchTable()


# Nodes that differ in key and plain arguments only

PLAIN = frozenset({int, float, str, bytes, bool, type(None), complex})
"""Types of arguments that a template may splice: immutable, and never a reference to another task."""


class MapTemplate:
    """The pickle of ``Task(key, func, *args)`` with holes for a str key and for plain arguments."""

    def __init__(self, pickler: NodePickler, blobs: Blobs, func: Any) -> None:
        sample = Task("", func)
        self.blobs: list[int] = []
        pieces: list[bytes] = [b"\x80\x05", _element(Task), b")\x81("]
        holes: list[int] = []
        for slot in Task.get_all_slots():
            if slot in ("args", "key"):
                holes.append(len(pieces))
                pieces.append(slot.encode())
                continue
            value = getattr(sample, slot)
            element = _element(value)
            if element is None:
                element = self._shared(pickler, blobs, value)
            pieces.append(element)
        pieces.append(b"tb.")
        if [pieces[hole] for hole in holes] != [b"args", b"key"]:
            raise ValueError("slots of Task are not in the order that the template needs")
        first, second = holes
        self._before = b"".join(pieces[:first])
        self._between = b"".join(pieces[first + 1 : second])
        self._after = b"".join(pieces[second + 1 :])

    def _shared(self, pickler: NodePickler, blobs: Blobs, value: Any) -> bytes:
        # distributed's own rules decide whether by reference or by value.
        data = dask_pickle.dumps(value)
        self.blobs.append(blobs.add(data, data))
        # pickle.loads(<next buffer, read-only>)
        return _element(_loads) + b"\x97\x98\x85R"

    def dump(self, key: str, args: tuple) -> bytes:
        """The pickle of one node. `args` must hold values of `PLAIN` types only."""
        return b"".join((self._before, _body(pickle.dumps(args, PROTOCOL)), self._between, _text(key), self._after))


def all_plain(args: Iterable[Any]) -> bool:
    """Whether a template may splice these arguments."""
    return PLAIN.issuperset(map(type, args))


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    if len(data) < 256:
        return b"\x8c" + bytes((len(data),)) + data
    return b"X" + len(data).to_bytes(4, "little") + data


def _body(data: bytes) -> bytes:
    """A pickle without its header, frame and STOP, to stand inside another that has put nothing into the memo."""
    if data[2:3] == b"\x95":
        if int.from_bytes(data[3:11], "little") != len(data) - 11:
            raise ValueError("pickle of several frames")
        return data[11:-1]
    return data[2:-1]


def _element(value: Any) -> bytes | None:
    """The opcodes that push `value` without touching the memo, or None if it has to be shared instead."""
    try:
        data = pickle.dumps(value, PROTOCOL)
        if len(data) > 1024 or _MAIN in data:
            return None
        body = _body(pickletools.optimize(data))
    except Exception:
        return None
    for opcode, _, _ in pickletools.genops(data[:2] + body + b"."):
        if "PUT" in opcode.name or "GET" in opcode.name or opcode.name == "MEMOIZE":
            return None
    return body
