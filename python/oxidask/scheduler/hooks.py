"""Plugins that watch the scheduler, and the events that they need."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

from oxidask.scheduler.views import TaskView

if TYPE_CHECKING:
    from oxidask.scheduler.aside import Aside
    from oxidask.scheduler.facade import SchedulerFacade

logger = logging.getLogger("oxidask.plugins")

HOOKS = (
    "transition",
    "update_graph",
    "add_worker",
    "remove_worker",
    "add_client",
    "remove_client",
    "restart",
    "log_event",
    "valid_workers_downscaling",
)
"""Methods of plugins that are called when something happens."""

WITH_SCHEDULER = frozenset({"update_graph", "add_worker", "remove_worker", "add_client", "remove_client", "restart"})
"""Those whose first argument is the scheduler."""


class Plugins:
    """``scheduler.plugins``: plugins by name. Events come only for methods that some plugin has."""

    def __init__(self, aside: Aside, facade: SchedulerFacade) -> None:
        self._aside = aside
        self._facade = facade
        self._plugins: dict[str, Any] = {}
        self._hooks: set[str] = set()
        # Wanted whatever plugins there are.
        self._more: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._plugins

    def __getitem__(self, name: str) -> Any:
        return self._plugins[name]

    def __iter__(self):
        return iter(self._plugins)

    def __len__(self) -> int:
        return len(self._plugins)

    def get(self, name: str, default: Any = None) -> Any:
        return self._plugins.get(name, default)

    def keys(self):
        return self._plugins.keys()

    def values(self):
        return self._plugins.values()

    def items(self):
        return self._plugins.items()

    def all(self) -> list[Any]:
        """The plugins, safe to walk over while they come and go."""
        return list(self._plugins.values())

    def add(self, name: str, plugin: Any) -> None:
        """Adds a plugin or replaces the one of this name; it misses nothing that happens after this call."""
        self._plugins[name] = plugin
        self._subscribe()
        self._facade.tasks.forget()

    def remove(self, name: str | None) -> None:
        """Removes a plugin; ValueError if there is none of this name, as stock."""
        try:
            del self._plugins[name]
        except KeyError:
            raise ValueError(f"Could not find plugin {name!r} among the current scheduler plugins") from None
        self._subscribe()

    def want(self, hook: str, wanted: bool) -> None:
        """Has events of this kind come, or not, for what is no plugin."""
        more = self._more | {hook} if wanted else self._more - {hook}
        if more != self._more:
            self._more = more
            self._subscribe()

    def _subscribe(self) -> None:
        hooks = {hook for plugin in self._plugins.values() for hook in HOOKS if _overrides(plugin, hook)}
        hooks |= self._more
        if hooks != self._hooks:
            self._hooks = hooks
            # Asked, not told: the answer means that events flow from here on.
            self._aside.questions.ask("hooks", hooks=sorted(hooks))

    def tell(self, hook: str, args: tuple, kwargs: dict[str, Any]) -> None:
        """Tells all plugins of an event. Runs on the event loop."""
        if hook in WITH_SCHEDULER:
            args = (self._facade, *args)
        if hook == "update_graph":
            kwargs["keys"] = set(kwargs["keys"])
            kwargs["tasks"] = list(kwargs["tasks"])
        if hook == "transition" and args[2] == "erred":
            # Plugins count on finding it here; the event comes without frames.
            kwargs.setdefault("exception", TaskView(self._facade.tasks, args[0]).exception or True)
        for name, plugin in list(self._plugins.items()):
            if not _overrides(plugin, hook):
                continue
            try:
                result = getattr(plugin, hook)(*args, **kwargs)
                if inspect.isawaitable(result):
                    task = asyncio.ensure_future(result)
                    task.add_done_callback(_log_failure)
            except Exception:
                logger.exception("plugin %r failed in %s", name, hook)


def _overrides(plugin: Any, hook: str) -> bool:
    method = getattr(type(plugin), hook, None)
    return method is not None and method is not getattr(SchedulerPlugin, hook, None)


def _log_failure(task: asyncio.Future) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("plugin failed", exc_info=task.exception())
