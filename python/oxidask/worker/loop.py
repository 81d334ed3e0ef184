"""The event loop of the worker: started when something first needs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any


class LoopThread:
    """A tornado loop in a thread of its own: coroutine tasks, handlers, plugins and clients run there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: Any = None
        self._asyncio_loop: asyncio.AbstractEventLoop | None = None
        self.thread_id: int | None = None

    @property
    def loop(self) -> Any:
        """The tornado ``IOLoop``."""
        if self._loop is None:
            with self._lock:
                if self._loop is None:
                    self._start()
        return self._loop

    def _start(self) -> None:
        ready = threading.Event()

        def run() -> None:
            from tornado.ioloop import IOLoop

            async def main() -> None:
                self._asyncio_loop = asyncio.get_running_loop()
                self.thread_id = threading.get_ident()
                self._loop = IOLoop.current()
                ready.set()
                await asyncio.Event().wait()

            asyncio.run(main())

        threading.Thread(target=run, name="IO loop", daemon=True).start()
        ready.wait()

    def spawn(self, function: Callable[[], Awaitable[Any]]) -> None:
        """Runs a coroutine function on the loop, from any thread."""
        _ = self.loop
        assert self._asyncio_loop is not None
        asyncio.run_coroutine_threadsafe(function(), self._asyncio_loop)  # type: ignore[arg-type]

    def wait(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Runs a coroutine function on the loop and waits for its result. Not on the loop itself."""
        _ = self.loop
        assert self._asyncio_loop is not None
        return asyncio.run_coroutine_threadsafe(function(), self._asyncio_loop).result()  # type: ignore[arg-type]

    def here(self) -> bool:
        """True on the loop's own thread."""
        return threading.get_ident() == self.thread_id
