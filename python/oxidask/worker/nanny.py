"""What a nanny plugin gets for its ``Nanny``: it may change the environment of executors, and ask for a new one."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
from typing import Any

from oxidask.worker.control import Control
from oxidask.worker.views import not_provided

logger = logging.getLogger("distributed.nanny")


class Nanny:
    """Stands for ``distributed.Nanny``: the parent process supervises, plugins run here."""

    def __init__(self, worker: Any, control: Control) -> None:
        self._worker = worker
        self._control = control
        self.env: dict[str, str] = dict(os.environ)
        self.plugins: dict[str, Any] = {}
        self._changed: dict[str, str] = {}
        self._restart = False
        self.local_directory = worker.local_directory
        self.worker_address = worker.address
        self.address = worker.address
        self.name = worker.name
        self.id = worker.id

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("scheduler", "rpc", "loop", "security", "scheduler_addr"):
            return getattr(self._worker, name)
        raise not_provided("Nanny", name)

    async def plugin_add(self, plugin: Any, name: str | None = None) -> dict[str, Any]:
        """Sets a plugin up; a plugin with ``restart`` gets a new executor, which has the new environment."""
        from distributed.core import error_message
        from distributed.diagnostics.plugin import _get_plugin_name

        if isinstance(plugin, bytes):
            plugin = pickle.loads(plugin)
        name = name or _get_plugin_name(plugin)
        self.plugins[name] = plugin
        logger.info("Starting Nanny plugin %s", name)
        before = dict(self.env)
        try:
            result = plugin.setup(nanny=self) if hasattr(plugin, "setup") else None
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            logger.exception("Nanny plugin %s failed to setup", name)
            return error_message(error)
        self._changed.update({key: str(value) for key, value in self.env.items() if before.get(key) != value})
        self._restart |= bool(getattr(plugin, "restart", False))
        return {"status": "OK"}

    def announce(self, request: int | None = None) -> None:
        """Tells the parent what plugins have changed. It answers `request`, which asked for it, when that is done."""
        changed, self._changed = self._changed, {}
        restart, self._restart = self._restart, False
        if changed or restart:
            self._control.send({"op": "environ", "environ": changed, "restart": restart, "request": request})

    async def plugin_remove(self, name: str) -> dict[str, Any]:
        from distributed.core import error_message

        try:
            plugin = self.plugins.pop(name)
            result = plugin.teardown(nanny=self) if hasattr(plugin, "teardown") else None
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            logger.exception("Nanny plugin %s failed to teardown", name)
            return error_message(error)
        return {"status": "OK"}

    async def restart(self, timeout: float = 30, reason: str = "") -> str:
        self._control.send({"op": "environ", "environ": {}, "restart": True})
        return "OK"

    kill = restart
