"""The second socket: what the parent asks beside tasks, and what this executor asks of the parent."""

from __future__ import annotations

import itertools
import logging
import os
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from oxidask.wire import Channel
from oxidask.worker import values
from oxidask.worker.store import Absent, Store

logger = logging.getLogger("distributed.worker")

MEMORY_FILE_BYTES = 256 << 10
"""Sealed values from this size on are passed as a memory file, smaller ones through the socket. Unit: bytes."""


class Control:
    """Reads the second socket in a thread of its own, so that it is answered while all threads run tasks."""

    def __init__(self, channel: Channel, store: Store) -> None:
        self._channel = channel
        self._store = store
        self._ids = itertools.count(1)
        self._calls: dict[int, Future[Any]] = {}
        self.ops: dict[str, Callable[[dict[str, Any], list[Any]], None]] = {
            "drop": self._drop,
            "seal": self._seal,
            "took": self._took,
            "answer": self._answer,
        }
        store.on_sealed = lambda id, header, frames: self._send_sealed(None, id, header, frames)

    def run(self) -> None:
        """Serves until the parent closes the socket."""
        while True:
            message = self._channel.read()
            if message is None:
                return
            document, parts = message
            handler = self.ops.get(document["op"])
            try:
                if handler is None:
                    raise ValueError(f"unknown op {document['op']!r}")
                handler(document, parts)
            except Exception:
                logger.exception("Message %r of the parent failed", document.get("op"))

    # To the parent

    def send(self, document: dict[str, Any], parts: list[Any] | tuple[()] = ()) -> None:
        """Tells the parent something that needs no answer."""
        self._channel.send(document, parts)

    def call(self, what: str, timeout: float | None = None, parts: list[Any] | tuple[()] = (), **fields: Any) -> Any:
        """Asks the parent and waits. Gives the answer's map and raw parts."""
        id = next(self._ids)
        future: Future[Any] = Future()
        self._calls[id] = future
        try:
            self._channel.send({"op": "call", "id": id, "what": what, **fields}, parts)
            return future.result(timeout)
        finally:
            self._calls.pop(id, None)

    def _answer(self, document: dict[str, Any], parts: list[Any]) -> None:
        future = self._calls.get(document["id"])
        if future is not None:
            future.set_result((document, parts))

    # From the parent

    def _drop(self, document: dict[str, Any], parts: list[Any]) -> None:
        self._store.drop(document["ids"])
        self.return_segments()

    def return_segments(self) -> None:
        """Tells the parent which of its segments it may use again."""
        ids = self._store.returned()
        if ids:
            self.send({"op": "unmapped", "ids": ids})

    def _took(self, document: dict[str, Any], parts: list[Any]) -> None:
        for fd in document["fds"]:
            os.close(fd)

    def _seal(self, document: dict[str, Any], parts: list[Any]) -> None:
        for id in document["ids"]:
            try:
                header, frames = self._store.seal(id)
            except Absent:
                self.send({"op": "sealed", "id": id, "absent": True})
            except BaseException as error:
                text = str(error)
                logger.warning("A value stays in its executor: %s", text[:300])
                text = f"{text}\n{''.join(traceback.format_exception(error))[-10_000:]}"
                header, frames = values.error_payload(text)
                self.send({"op": "sealed", "id": id, "header": header, "pinned": True}, frames)
            else:
                self._send_sealed(document.get("request"), id, header, frames)

    def _send_sealed(self, request: Any, id: int, header: bytes, frames: list[Any]) -> None:
        total = sum(len(frame) for frame in frames)
        if total >= MEMORY_FILE_BYTES:
            try:
                fd, places = values.write_memory_file(frames)
            except OSError as error:
                logger.warning("no memory file of %s bytes: %s", total, error)
            else:
                # The parent opens it through /proc and says "took"; then ours is closed.
                self.send({"op": "sealed", "id": id, "header": header, "fd": fd, "places": places})
                return
        self.send({"op": "sealed", "id": id, "header": header}, frames)
