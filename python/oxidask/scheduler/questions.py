"""Questions to the scheduler, asked from any thread."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from distributed.core import clean_exception
from distributed.protocol import dumps, loads

from oxidask.wire import Channel


class Questions:
    """Sends questions and wakes up who waits for the answer.

    Asking blocks the thread; the thread that reads from the scheduler never asks, so answers always come in.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._open: dict[int, _Question] = {}

    def ask(self, what: str, parts: list[Any] | tuple = (), **fields: Any) -> tuple[Any, list[bytearray]]:
        """The scheduler's answer: a value and raw parts."""
        question = _Question()
        with self._lock:
            number = next(self._numbers)
            self._open[number] = question
        self._channel.send({"op": "ask", "id": number, "what": what, **fields}, parts)
        question.done.wait()
        return question.value, question.parts

    def rpc(self, op: str, **kwargs: Any) -> Any:
        """The scheduler's answer to an operation that clients may call too; raises what it raises there."""
        _, frames = self.ask("rpc", parts=dumps({"op": op, "reply": True, **kwargs}))
        answer = loads(frames)
        if isinstance(answer, dict) and answer.get("status") == "uncaught-error":
            _, error, tb = clean_exception(**answer)
            raise error.with_traceback(tb)
        return answer

    def answer(self, number: int, value: Any, parts: list[bytearray]) -> None:
        """Hands an answer to who has asked."""
        with self._lock:
            question = self._open.pop(number, None)
        if question is not None:
            question.value, question.parts = value, parts
            question.done.set()


class _Question:
    __slots__ = ("done", "parts", "value")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: Any = None
        self.parts: list[bytearray] = []
