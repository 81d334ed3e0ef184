"""The process beside the scheduler: user code that is to run "on the scheduler", in one long-lived interpreter.

Requests (``op``):

* ``call``: ``id``, ``what`` (a function of `CALLS`), ``args`` (a map). Parts: as the call says. Each call that may
  block runs in a thread of its own, and coroutines on the event loop, so that none holds up another.
* ``answer``: ``id`` of a question, ``value``. Parts: frames of a Dask message, if the question was for one.
* ``event``: ``hook``, ``args``, ``kwargs``: something happened that a plugin asked for.
* ``cancel``: ``id`` of a feed that nobody reads any more.

What is sent: ``ask`` (a question: ``id``, ``what``), ``feed`` (``id``; parts:
frames of a message) and ``reply`` (``id``, ``value``; parts: frames of a message, or what the call says; for a failed
call ``failed``, ``exception_text``, ``traceback_text``, ``traceback``; parts: pickled exception and traceback).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from oxidask.errors import describe
from oxidask.scheduler.calls import CALLS, Reply
from oxidask.scheduler.facade import SchedulerFacade
from oxidask.scheduler.questions import Questions
from oxidask.wire import Channel

logger = logging.getLogger("oxidask.aside")

LOOP_TURN = 1.0
"""Seconds that a call waits for the event loop before it goes ahead without it."""


def serve(channel: Channel) -> None:
    """Serves until the parent closes the socket."""
    asyncio.run(Aside(channel).run())


class Aside:
    """Hands out calls; the event loop of user code runs in the main thread, reading in another."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.questions = Questions(channel)
        self.feeds: dict[int, asyncio.Event] = {}
        self.loop: asyncio.AbstractEventLoop
        self.facade: SchedulerFacade

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.facade = SchedulerFacade(self)
        threading.Thread(target=self._read, name="oxidask-reader", daemon=True).start()
        await asyncio.Event().wait()

    def send(self, document: dict[str, Any], parts: list[Any] | tuple = ()) -> None:
        """Sends a message; from any thread."""
        self._channel.send(document, parts)

    def _read(self) -> None:
        try:
            while (message := self._channel.read()) is not None:
                self._handle(*message)
        except Exception:
            logger.exception("the scheduler's message was not understood")
        # Threads of user code may go on for ever, but not without a scheduler.
        os._exit(0)

    def _handle(self, document: dict[str, Any], parts: list[bytearray]) -> None:
        op = document["op"]
        if op == "answer":
            self.questions.answer(document["id"], document["value"], parts)
        elif op == "call":
            self._call(document["id"], CALLS[document["what"]], document["args"], parts)
        elif op == "event" and document["hook"] == "amm":
            self.loop.call_soon_threadsafe(self.facade.extensions["amm"].told, *document["args"])
        elif op == "event":
            self.loop.call_soon_threadsafe(
                self.facade.plugins.tell, document["hook"], document["args"], document["kwargs"]
            )
        elif op == "cancel":
            self.loop.call_soon_threadsafe(self._cancel, document["id"])

    def _cancel(self, call: int) -> None:
        stop = self.feeds.get(call)
        if stop is not None:
            stop.set()

    def _call(self, call: int, function: Callable[..., Any], args: dict[str, Any], parts: list[bytearray]) -> None:
        if inspect.iscoroutinefunction(function):
            asyncio.run_coroutine_threadsafe(self._run_on_loop(call, function, args, parts), self.loop)
        else:
            name = f"oxidask-{function.__name__}-{call}"
            threading.Thread(
                target=self._run_in_thread, name=name, args=(call, function, args, parts), daemon=True
            ).start()

    def _run_in_thread(self, call: int, function: Callable[..., Reply], args: dict, parts: list[bytearray]) -> None:
        self._after_events()
        try:
            self._reply(call, function(self, call, args, parts))
        except BaseException as error:
            self._fail(call, error)

    def _after_events(self) -> None:
        """Waits until plugins have heard of all that came before, unless a coroutine holds the loop up."""
        turn = threading.Event()
        self.loop.call_soon_threadsafe(turn.set)
        turn.wait(LOOP_TURN)

    async def _run_on_loop(
        self, call: int, function: Callable[..., Coroutine[Any, Any, Reply]], args: dict, parts: list[bytearray]
    ) -> None:
        try:
            self._reply(call, await function(self, call, args, parts))
        except BaseException as error:
            self._fail(call, error)
            if not isinstance(error, (Exception, SystemExit)):
                raise

    def _reply(self, call: int, reply: Reply) -> None:
        self.send({"op": "reply", "id": call, "value": reply.value}, reply.parts)

    def _fail(self, call: int, error: BaseException) -> None:
        fields, pickles = describe(error)
        self.send({"op": "reply", "id": call, "value": None, "failed": True, **fields}, pickles)
