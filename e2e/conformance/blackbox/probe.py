"""Blocking calls to servers over the wire, from a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from distributed.core import rpc

#: Seconds that a server has for an answer.
TIMEOUT = 5


class Probe:
    """Usable from inside asynchronous tests, whose own loop must not wait for us."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True, name="probe").start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def submit(self, work: Coroutine, timeout: float = TIMEOUT) -> Any:
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self.loop)
        return future.result(timeout + 1)

    def call(self, address: str, op: str, *, timeout: float = TIMEOUT, **arguments: Any) -> Any:
        async def ask() -> Any:
            async with rpc(address, timeout=timeout) as server:
                return await getattr(server, op)(**arguments)

        return self.submit(ask(), timeout)


PROBE = Probe()
