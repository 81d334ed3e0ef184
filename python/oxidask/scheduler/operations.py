"""Operations that take Dask's own code: reports drawn with bokeh, dumps written with fsspec."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oxidask.scheduler.facade import SchedulerFacade


async def performance_report(scheduler: SchedulerFacade, **kwargs: Any) -> str:
    """The page of ``performance_report``, made by the code that stock's scheduler has for it."""
    from distributed.scheduler import Scheduler

    return await Scheduler.performance_report(scheduler, **kwargs)


async def dump_cluster_state_to_url(
    scheduler: SchedulerFacade, url: str, exclude: Any = (), format: str = "msgpack", **storage_options: Any
) -> None:
    """Writes what ``get_cluster_state`` gives to a file or object store."""
    from distributed.cluster_dump import write_state

    async def state() -> dict[str, Any]:
        return await asyncio.to_thread(scheduler.rpc_call, "get_cluster_state", exclude=list(exclude))

    await write_state(state, url, format, **storage_options)


OPERATIONS: dict[str, Callable[..., Awaitable[Any]]] = {
    function.__name__: function for function in (performance_report, dump_cluster_state_to_url)
}
