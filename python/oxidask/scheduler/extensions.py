"""``scheduler.extensions``: those that have something to offer to code that runs beside the scheduler."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from oxidask.scheduler.spans import Spans

if TYPE_CHECKING:
    import asyncio

    from oxidask.scheduler.questions import Questions

RPC_ONLY = frozenset(
    {"events", "locks", "memory_sampler", "multi_locks", "publish", "queues", "replay-tasks", "semaphores", "shuffle"}
    | {"stealing", "variables"}
)
"""Extensions of the stock scheduler that are part of the scheduler itself here."""


class MemoryManager:
    """``extensions["amm"]``."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    def start(self) -> None:
        """Has it look for superfluous copies from time to time."""
        self._questions.rpc("amm_handler", method="start")

    def stop(self) -> None:
        """Has it no longer look from time to time."""
        self._questions.rpc("amm_handler", method="stop")

    def run_once(self) -> None:
        """Has it look once."""
        self._questions.rpc("amm_handler", method="run_once")

    @property
    def running(self) -> bool:
        """Whether it looks from time to time."""
        return self._questions.rpc("amm_handler", method="running")

    def add_policy(self, policy: Any) -> None:
        """Policies are Python, and the copies are the scheduler's, which is none."""
        raise NotImplementedError(
            f"{policy!r} cannot run here: the scheduler runs outside Python and has the policy ReduceReplicas alone; "
            "use client.replicate and client.rebalance, or dask's own scheduler"
        )


class Extensions(Mapping):
    """Extensions by name."""

    def __init__(self, questions: Questions) -> None:
        self._extensions: dict[str, Any] = {"spans": Spans(questions), "amm": MemoryManager(questions)}

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
