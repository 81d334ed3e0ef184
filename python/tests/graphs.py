"""Requests to the graph service and what comes of them, without a process."""

from __future__ import annotations

import pickle
from array import array
from typing import Any

from dask._task_spec import GraphNode
from distributed.protocol import serialize
from oxidask.scheduler.graph import answer


class Answered:
    """The nodes that the service gives for an expression."""

    def __init__(self, expr: Any, wanted: tuple = (), priority: bool = False) -> None:
        header, frames = serialize(expr, serializers=["pickle"])
        request = {"id": 7, "header": header, "keys": wanted, "priority": priority, "annotations": None}
        self.messages: list[tuple[dict[str, Any], list[Any]]] = []
        for message in answer(request, [bytearray(frame) for frame in frames], self._order):
            self.messages.append(message)
        structure, parts = self.messages[0]
        columns, blobs = parts[:4], list(parts[4:])
        self.flags = bytes(columns[2])
        self.annotations = structure["annotations"]
        self.numbers = array("I", bytes(columns[3])) or array("I", [0] * len(self.flags))
        self.keys = structure["keys"]
        self.size = len(self.flags)
        degrees, flat = array("I", bytes(columns[0])), iter(array("I", bytes(columns[1])))
        self.dependencies = {
            self.keys[i]: {self.keys[next(flat)] for _ in range(degree)} for i, degree in enumerate(degrees)
        }
        self.pickles: dict[Any, bytes] = {}
        self.buffers: dict[Any, list[Any]] = {}
        keys = iter(self.keys[: self.size] if not structure["asks_order"] else reversed(self.keys[: self.size]))
        for document, parts in self.messages:
            batch = document.get("nodes") if document["op"] == "structure" else document
            if batch is None:
                continue
            if document["op"] == "nodes":
                blobs.extend(parts)
            for place, data in enumerate(batch["pickles"]):
                key = next(keys)
                self.pickles[key] = data
                self.buffers[key] = [blobs[number] for number in batch["buffers"].get(place, ())]
        self.blobs = blobs

    def _order(self, request: int) -> array:
        assert request == 7
        _, columns = self.messages[0]
        return array("I", reversed(range(len(bytes(columns[2])))))

    def node(self, key: Any) -> GraphNode:
        """A node as a stock worker unpickles it."""
        return pickle.loads(self.pickles[key], buffers=self.buffers[key])
