"""Hand a worker's results over before it ends: the hook of a worker's pod that is evicted.

Asks the scheduler in Dask's own protocol, so it works with every image that a worker can run in. Ends at once where the
scheduler does not know the worker any more. The pod's grace period bounds it.
"""

import asyncio
import os
import time

from distributed.core import rpc
from distributed.security import Security


def executing(about: dict) -> int:
    """How many tasks a worker executed at its last heartbeat, those that seceded included."""
    counts = about["metrics"].get("task_counts", {})
    return counts.get("executing", 0) + counts.get("long-running", 0)


async def main() -> None:
    """Retire this pod's workers, and wait until a heartbeat since then says that they execute nothing."""
    address = os.environ["DASK_SCHEDULER_ADDRESS"]
    name = os.environ["DASK_WORKER_NAME"]
    arguments = Security().get_connection_args("worker")
    retired_at = None
    async with rpc(address, connection_args=arguments, timeout=3) as scheduler:
        while True:
            known = (await scheduler.identity(n_workers=-1))["workers"]
            # With several workers in a pod each has a number behind the name.
            own = {worker: about for worker, about in known.items() if str(about["name"]).startswith(name)}
            if not own:
                return
            if retired_at is None:
                await scheduler.retire_workers(workers=list(own), close_workers=False, remove=False)
                retired_at = time.time()
            # Tasks that have not begun will not: others take them when this one is gone.
            elif all(about["last_seen"] > retired_at and not executing(about) for about in own.values()):
                # What the last ones left behind.
                await scheduler.retire_workers(workers=list(own), close_workers=False, remove=False)
                return
            await asyncio.sleep(0.5)


asyncio.run(main())
