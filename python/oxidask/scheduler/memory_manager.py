"""``scheduler.extensions["amm"]``: policies of the active memory manager that users write.

The scheduler itself drops superfluous copies (`ReduceReplicas`) and moves the data of workers that retire
(`RetireWorker`). Policies of other classes run here, in Dask's own manager over the stand-in of the scheduler; what
they suggest is sent to the scheduler, which never drops the last copy of a result.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import dask
from dask.utils import parse_timedelta
from distributed.active_memory_manager import ActiveMemoryManagerExtension, ReduceReplicas
from distributed.utils import import_term

if TYPE_CHECKING:
    from oxidask.scheduler.aside import Aside
    from oxidask.scheduler.facade import SchedulerFacade

logger = logging.getLogger("oxidask.memory_manager")

CONFIG = "distributed.scheduler.active-memory-manager"


class MemoryManager(ActiveMemoryManagerExtension):
    """The manager as policies and users see it. Its own state is `policies`; whether it runs, the scheduler knows."""

    def __init__(self, aside: Aside, scheduler: SchedulerFacade) -> None:
        # Not that of the base class, which would start policies and timers of its own.
        self.scheduler = scheduler
        self.policies: set[Any] = set()
        self.measure: str = dask.config.get(f"{CONFIG}.measure")
        self.interval = parse_timedelta(dask.config.get(f"{CONFIG}.interval"))
        self._aside = aside
        self._turn = threading.Lock()
        self._timer: asyncio.Task | None = None

    def start(self) -> None:
        """Has it look at the copies from time to time."""
        self._aside.questions.rpc("amm_handler", method="start")

    def stop(self) -> None:
        """Has it no longer look from time to time."""
        self._aside.questions.rpc("amm_handler", method="stop")

    def run_once(self) -> None:
        """Has it look once; policies of this process follow at once, in a thread of their own."""
        self._aside.questions.rpc("amm_handler", method="run_once")

    @property
    def running(self) -> bool:
        """Whether it looks from time to time."""
        return self._aside.questions.rpc("amm_handler", method="running")

    def add_policy(self, policy: Any) -> None:
        """Has a policy run with every look from now on."""
        super().add_policy(policy)
        self._aside.facade.plugins.want("amm", True)
        if self.running:
            self._aside.loop.call_soon_threadsafe(self._set_timer, True)

    def add_configured(self) -> None:
        """Adds the policies of the configuration beside the one that the scheduler has."""
        for fields in dask.config.get(f"{CONFIG}.policies"):
            arguments = dict(fields)
            policy = import_term(arguments.pop("class"))
            if policy is not ReduceReplicas:
                self.add_policy(policy(**arguments))

    def told(self, method: str) -> None:
        """The scheduler was asked to start, to stop or to look once. Runs on the event loop."""
        if method == "run_once":
            threading.Thread(target=self._look, name="oxidask-amm", daemon=True).start()
        else:
            self._set_timer(method == "start")

    def _set_timer(self, on: bool) -> None:
        if on and self._timer is None:
            self._timer = asyncio.ensure_future(self._look_regularly())
        elif not on and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _look_regularly(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            # Policies ask the scheduler, which blocks, and the loop belongs to all user code.
            await asyncio.to_thread(self._look)

    def _look(self) -> None:
        with self._turn:
            self.scheduler.tasks.forget()
            try:
                super().run_once()
            except Exception:
                logger.exception("a policy of the active memory manager failed")
        if not self.policies:
            self._aside.facade.plugins.want("amm", False)

    def _enact_suggestions(self) -> None:
        acquire = [(ts.key, ws.address) for ts, (more, _) in self.pending.items() for ws in more]
        drop = [(ts.key, ws.address) for ts, (_, fewer) in self.pending.items() for ws in fewer]
        if acquire or drop:
            keys, workers = zip(*acquire, *drop)
            self._aside.questions.ask("replicas", keys=keys, workers=workers, acquire=len(acquire))
