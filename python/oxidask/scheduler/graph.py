"""The graph service: expressions in, nodes out, one request after the other.

Requests (``op``):

* ``materialise``: ``id``, ``header`` of the expression, ``keys`` wanted, ``priority`` (true if the client gave
  one), ``annotations`` (null, or the header of the pickled annotations of all tasks and the number of its
  buffers). Parts: the expression's frames, then those buffers.
* ``order``: ``id``; part: positions of nodes, ``u32`` each. Answers a ``structure`` that asked for it: what is to
  be pickled, in this order.
* ``plugin``: ``name`` and, to start one, part: the pickled scheduler plugin; without a part it is taken away.

Answers to ``materialise``, in this order:

* ``structure``: ``id``, ``keys``, ``annotations`` (list of packed msgpack maps), ``asks_order`` (send ``order``
  before anything else), and else the fields of the first ``nodes`` under that name. Parts: degrees, dependencies
  (``u32`` arrays), flags (a byte each), annotation numbers (``u32`` array, empty if all tasks have set 0), then
  the blobs of ``nodes``.
* ``nodes``: ``id``, ``pickles``, ``buffers`` ({position in ``pickles``: [blob numbers]}), ``last``. Parts: blobs
  not yet sent, in the order of their numbers.
* or, at any point, ``failed``: ``id``, ``traceback`` (whether there is one), ``exception_text``,
  ``traceback_text``, ``ends`` (this process takes no more requests). Parts: pickled exception, pickled traceback.
"""

from __future__ import annotations

import gc
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from dask._task_spec import Task

from oxidask.errors import describe
from oxidask.scheduler.annotations import AnnotationTable
from oxidask.scheduler.blobs import Blobs
from oxidask.scheduler.materialise import PlainMap, Structure, materialise, plain_map, unpickle, unpickle_payload
from oxidask.scheduler.pickling import LARGE, MapTemplate, NodePickler
from oxidask.wire import Channel

SMALL = 256
"""Nodes up to which a graph is sent in the dependencies-unsorted order of Dask, in one message."""

FIRST_BATCH = 64
BATCH = 512
"""Nodes per message; the first is smaller so that roots can start early."""

BATCH_BYTES = 1 << 20
"""Bytes of pickles after which a message is sent however few nodes it holds."""

FLUSH_AFTER = 0.002
"""Seconds for which an answer may wait for the next one while requests are queued."""


def serve(channel: Channel) -> None:
    """Answers requests until the parent closes the socket."""
    GraphService(channel).run()


class GraphService:
    """Serves one parent. Requests that have arrived together are answered together."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._queue: deque[tuple[dict[str, Any], list[bytearray]]] = deque()
        self._flushed = time.monotonic()
        self._site: Any = None

    def run(self) -> None:
        # What start-up has made stays; walking over it in every collection is a third of the work.
        gc.collect()
        gc.freeze()
        while (message := self._next()) is not None:
            document, parts = message
            op = document["op"]
            if op == "materialise":
                self._materialise(document, parts)
            elif op == "plugin":
                self._plugin(document["name"], parts)

    def _next(self) -> tuple[dict[str, Any], list[bytearray]] | None:
        if self._queue:
            return self._queue.popleft()
        if not self._channel.pending() or time.monotonic() - self._flushed > FLUSH_AFTER:
            self._flush()
        return self._channel.read()

    def _flush(self) -> None:
        if self._channel.buffered():
            self._channel.flush()
        self._flushed = time.monotonic()

    def _materialise(self, request: dict[str, Any], parts: list[bytearray]) -> None:
        gc.disable()
        try:
            for document, blobs in answer(request, parts, self._order):
                self._channel.write(document, blobs)
                if not document.get("last"):
                    self._flush()
        except (Exception, SystemExit) as error:
            fields, pickles = describe(error)
            # After a MemoryError the heap is full of holes; the parent starts a fresh process.
            ends = isinstance(error, MemoryError)
            self._channel.write({"op": "failed", "id": request["id"], "ends": ends, **fields}, pickles)
            if ends:
                self._flush()
                sys.exit(0)
        finally:
            gc.enable()

    def _order(self, request_id: int) -> array:
        """Waits for the order of a graph whose structure has been sent."""
        self._flush()
        while (message := self._channel.read()) is not None:
            document, parts = message
            if document["op"] == "order":
                if document["id"] != request_id:
                    raise AssertionError(f"order for graph {document['id']} while at {request_id}")
                order = array("I")
                order.frombytes(parts[0])
                return order
            self._queue.append(message)
        sys.exit(0)

    def _plugin(self, name: str, parts: list[bytearray]) -> None:
        # What a plugin has imported cannot be taken back, so one that is taken away is only not started again.
        if parts:
            if self._site is None:
                from oxidask.scheduler.plugins import ModuleSite

                self._site = ModuleSite()
            self._site.start(name, bytes(parts[0]))


Message = tuple[dict[str, Any], list[Any]]


def answer(request: dict[str, Any], parts: list[bytearray], order_of) -> Iterator[Message]:
    """The messages that answer a ``materialise`` request."""
    request_id = request["id"]
    of_all: dict[str, Any] = {}
    if request["annotations"]:
        header, count = request["annotations"]
        at = len(parts) - count
        of_all = unpickle_payload(header, parts[at:]) or {}
        del parts[at:]
    expr = unpickle(request["header"], parts)
    del parts
    blobs = Blobs()
    pickler = NodePickler(blobs)
    simple = plain_map(expr) if request["priority"] else None
    if simple is not None:
        table = AnnotationTable(of_all, {})
        structure = Structure.without_dependencies(simple.keys)
        nodes = batches(_map_pickles(simple, pickler, blobs), blobs)
        ordered = True
    else:
        dsk, by_key = materialise(expr, request["keys"])
        table = AnnotationTable(of_all, by_key)
        structure = Structure(dsk)
        ordered = bool(request["priority"]) or len(dsk) <= SMALL
        nodes = None
    del expr
    numbers = array("I") if table.is_uniform else array("I", table.numbers(structure.keys[: len(structure.flags)]))
    document = {
        "op": "structure",
        "id": request_id,
        "keys": structure.keys,
        "annotations": table.sets,
        "asks_order": not ordered,
    }
    arrays = [structure.degrees, structure.dependencies, structure.flags, numbers]
    columns = [memoryview(column).cast("B") for column in arrays]
    if nodes is None:
        if ordered:
            nodes = batches(map(pickler.dump, dsk.values()), blobs)
        else:
            yield document, columns
            order = order_of(request_id)
            of_position = list(dsk.values())
            nodes = batches((pickler.dump(of_position[i]) for i in order), blobs)
            for batch, fresh in nodes:
                yield {"op": "nodes", "id": request_id, **batch}, fresh
            return
    batch, fresh = next(nodes)
    yield {**document, "nodes": batch, "last": batch["last"]}, columns + fresh
    for batch, fresh in nodes:
        yield {"op": "nodes", "id": request_id, **batch}, fresh


def _map_pickles(simple: PlainMap, pickler: NodePickler, blobs: Blobs) -> Iterator[tuple[bytes, list[int]]]:
    template = MapTemplate(pickler, blobs, simple.func)
    shared, dump = template.blobs, template.dump
    for key, args in zip(simple.keys, simple.args):
        data = dump(key, args)
        if len(data) > LARGE:
            # The same long text may be an argument of every task.
            yield pickler.dump(Task(key, simple.func, *args))
        else:
            yield data, shared


def batches(nodes: Iterable[tuple[bytes, list[int]]], blobs: Blobs) -> Iterator[Message]:
    """Groups pickled nodes into messages, of which at least one is made and the last says so."""
    limit = FIRST_BATCH
    pickles: list[bytes] = []
    buffers: dict[int, list[int]] = {}
    nbytes = 0
    for data, numbers in nodes:
        if len(pickles) >= limit or nbytes > BATCH_BYTES:
            yield {"pickles": pickles, "buffers": buffers, "last": False}, blobs.take_fresh()
            pickles, buffers, nbytes, limit = [], {}, 0, BATCH
        if numbers:
            buffers[len(pickles)] = numbers
        pickles.append(data)
        nbytes += len(data)
    yield {"pickles": pickles, "buffers": buffers, "last": True}, blobs.take_fresh()
