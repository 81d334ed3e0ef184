"""dask's own tests: one cluster for many, its client as the default scheduler."""

from __future__ import annotations

import contextlib
import types

from distributed import Client

from .cluster import Spec, WorkerSpec
from .pool import POOL

#: Tests that one cluster serves.
MAX_USES = 200


class Shared:
    def __init__(self):
        self.client: Client | None = None

    def open(self) -> None:
        if self.client is None:
            workers = (WorkerSpec(nthreads=1, name="0"), WorkerSpec(nthreads=2, name="1"))
            self.cluster = POOL.get(Spec(workers), True)
            self.client = Client(self.cluster.address, set_as_default=True)
            self.uses = 0
        self.uses += 1

    def give_back(self, *, failed: bool) -> None:
        if failed or self.uses > MAX_USES or not self.cluster.is_clean():
            self.close()

    def close(self) -> None:
        if self.client is not None:
            with contextlib.suppress(Exception):
                self.client.close(timeout=2)
            self.cluster.stop()
            self.client = None


SHARED = Shared()


def compare_through_the_client() -> None:
    """dask's `assert_eq` helpers compute with scheduler="sync"; let them use the client."""
    import dask.array.utils
    import dask.bag.utils
    import dask.dataframe.utils

    for module in (dask.array.utils, dask.bag.utils, dask.dataframe.utils):
        for function in vars(module).values():
            if isinstance(function, types.FunctionType) and function.__defaults__:
                function.__defaults__ = tuple(
                    "distributed" if default == "sync" else default for default in function.__defaults__
                )
