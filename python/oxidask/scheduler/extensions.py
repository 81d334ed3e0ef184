"""``scheduler.extensions``: those that have something to offer to code that runs beside the scheduler."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from oxidask.scheduler.memory_manager import MemoryManager
from oxidask.scheduler.spans import Spans

if TYPE_CHECKING:
    import asyncio

    from oxidask.scheduler.aside import Aside
    from oxidask.scheduler.facade import SchedulerFacade

RPC_ONLY = frozenset(
    {"events", "locks", "memory_sampler", "multi_locks", "publish", "queues", "replay-tasks", "semaphores", "shuffle"}
    | {"stealing", "variables"}
)
"""Extensions of the stock scheduler that are part of the scheduler itself here."""


class Extensions(Mapping):
    """Extensions by name."""

    def __init__(self, aside: Aside, scheduler: SchedulerFacade) -> None:
        self._extensions: dict[str, Any] = {"spans": Spans(aside.questions), "amm": MemoryManager(aside, scheduler)}

    def __getitem__(self, name: str) -> Any:
        try:
            return self._extensions[name]
        except KeyError:
            pass
        if name in RPC_ONLY:
            raise KeyError(
                f"the extension {name!r} is part of the scheduler, which runs outside Python: use it through a client"
            )
        raise KeyError(name)

    def __setitem__(self, name: str, extension: Any) -> None:
        # Preloads register their own here.
        self._extensions[name] = extension

    def __contains__(self, name: object) -> bool:
        return name in self._extensions

    def __iter__(self):
        return iter(self._extensions)

    def __len__(self) -> int:
        return len(self._extensions)


def monitor_of_parent(loop: asyncio.AbstractEventLoop) -> Any:
    """Dask's system monitor, looking at the scheduler's process every half second."""
    import psutil
    from distributed.system_monitor import SystemMonitor

    monitor = SystemMonitor()
    monitor.proc = psutil.Process(os.getppid())

    def update() -> None:
        monitor.update()
        loop.call_later(0.5, update)

    loop.call_soon_threadsafe(update)
    return monitor
