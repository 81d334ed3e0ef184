# Prints pickled functions for the process beside the scheduler: a name, and pickles in hex ("-" for none).
import os
import time

import cloudpickle
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps


def show(name, *objects):
    print(name, *("-" + (b"" if thing is None else cloudpickle.dumps(thing)).hex() for thing in objects))


show("add", lambda x, y=0: x + y, (1,), {"y": 2})
show("divide", lambda: 1 / 0, None, None)
show("address", lambda dask_scheduler: dask_scheduler.address, None, None)
show("tasks", lambda dask_scheduler: (len(dask_scheduler.tasks), dask_scheduler.tasks["x"].state), None, None)
show("workers", lambda dask_scheduler: [w.nthreads for w in dask_scheduler.workers.values()], None, None)
show("unknown", lambda dask_scheduler: dask_scheduler.no_such_thing, None, None)
show("dies", lambda: os._exit(5), None, None)
show("sleeps", lambda: time.sleep(3600), None, None)


async def coroutine(dask_scheduler):
    import asyncio

    await asyncio.sleep(0)
    return "awaited"


show("coroutine", coroutine, None, None)


def remember(dask_scheduler):
    dask_scheduler.foo = "bar"


show("remember", remember, None, None)
show("recall", lambda dask_scheduler: dask_scheduler.foo, None, None)


class Counter(SchedulerPlugin):
    name = "counter"

    def start(self, scheduler):
        self.scheduler = scheduler
        scheduler.seen = []

    def transition(self, key, start, finish, *args, **kwargs):
        self.scheduler.seen.append((key, start, finish, kwargs["stimulus_id"]))


show("plugin", Counter())
show("seen", lambda dask_scheduler: dask_scheduler.seen, None, None)

keys = {"x", "y"}


async def setup(scheduler):
    from distributed.diagnostics.progress import Progress

    progress = Progress(keys, scheduler, complete=True)
    await progress.setup()
    return progress


def function(scheduler, progress):
    return {"all": len(progress.all_keys), "remaining": len(progress.keys), "status": progress.status}


show("progress", setup, function, None)
show("by_host", lambda worker: worker.host)

from distributed.shuffle._core import P2PBarrierTask  # noqa: E402
from distributed.shuffle._rechunk import ArrayRechunkSpec  # noqa: E402

spec = ArrayRechunkSpec(id="s", disk=False, new=((1, 1), (2,)), old=((2,), (1, 1)))
barrier = P2PBarrierTask("shuffle-barrier-s", len, (), spec=spec)
print("barrier", "-" + dumps(barrier).hex())
