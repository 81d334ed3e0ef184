"""Where the task threads spend their time: samples for ``Client.profile`` and ``Client.call_stack``."""

from __future__ import annotations

import sys
import threading
from collections import deque
from time import sleep, time
from typing import Any

import dask.config
from dask.utils import key_split, parse_timedelta


class Profiler:
    """Samples the threads that run tasks. Starts when ``distributed`` has been imported, whose trees it makes."""

    def __init__(self, active: dict[int, Any]) -> None:
        self._active = active
        self._recent: dict[Any, Any] = {}
        self._history: deque[tuple[float, dict[Any, Any]]] = deque(maxlen=3600)
        self._lock = threading.Lock()
        self._started = False

    def start(self) -> None:
        if self._started or not dask.config.get("distributed.worker.profile.enabled", True):
            return
        self._started = True
        threading.Thread(target=self._run, name="Profile", daemon=True).start()

    def _run(self) -> None:
        interval = parse_timedelta(dask.config.get("distributed.worker.profile.interval", "10ms"))
        cycle = parse_timedelta(dask.config.get("distributed.worker.profile.cycle", "1000ms"))
        end = time() + cycle
        while True:
            sleep(interval)
            if self._active:
                self._sample()
            if time() > end:
                end = time() + cycle
                with self._lock:
                    recent, self._recent = self._recent, {}
                    if recent:
                        self._history.append((time(), recent))

    def _sample(self) -> None:
        from distributed import profile

        frames = sys._current_frames()
        with self._lock:
            for ident, key in list(self._active.items()):
                frame = frames.get(ident)
                if frame is None:
                    continue
                for name in (None, key_split(key)):
                    tree = self._recent.setdefault(name, profile.create())
                    profile.process(frame, None, tree, stop="oxidask/worker/tasks.py")

    def trees(self, start: float | None, stop: float | None) -> list[tuple[float, dict[Any, Any]]]:
        with self._lock:
            rows = [*self._history, (time(), self._recent)]
        return [row for row in rows if (start is None or row[0] >= start) and (stop is None or row[0] <= stop)]

    def profile(self, start: Any = None, stop: Any = None, key: Any = None, server: bool = False) -> Any:
        from distributed import profile

        found = [trees[key] for _, trees in self.trees(start, stop) if key in trees]
        return profile.merge(*found) if found else profile.create()

    def metadata(self, start: Any = 0, stop: Any = None) -> Any:
        rows = self.trees(start or None, stop)
        counts = [(when, trees[None]["count"]) for when, trees in rows if None in trees]
        keys = [
            (when, [(key, tree["count"]) for key, tree in trees.items() if key is not None]) for when, trees in rows
        ]
        return {"counts": counts, "keys": keys}

    def call_stack(self, keys: Any = None) -> dict[Any, Any]:
        from distributed import profile

        frames = sys._current_frames()
        running = list(self._active.items())
        return {
            key: profile.call_stack(frames[ident])
            for ident, key in running
            if ident in frames and (keys is None or key in keys)
        }
