"""Small programs on arrays, dataframes, bags and graphs: what a user waits for, all sides ours against all stock."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pandas as pd

from .. import workloads
from ..metric import Metric
from ..side import Side, cluster, connected

SENTENCE = "Small programs, two workers of one thread: time until the result is there"

WORKERS = 2
REPEAT = 3


def numpy() -> object:
    x = da.random.default_rng(0).random((2000, 2000), chunks=(250, 250))
    return (x + x.T).mean(axis=0).sum()


def frame(npartitions: int):
    import dask.dataframe as dd

    rows = 40_000
    keys = np.arange(rows)
    return dd.from_pandas(pd.DataFrame({"k": keys % 97, "v": keys * 1.0}), npartitions=npartitions)


def groupby() -> object:
    return frame(40).groupby("k").v.sum().sum()


def join() -> object:
    left, right = frame(8), frame(8)
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        return left.merge(right.groupby("k").v.sum().reset_index(), on="k", how="inner").v_x.count()


def xarray() -> object:
    import xarray as xr

    data = da.random.default_rng(0).random((360, 90, 60), chunks=(30, 90, 30))
    values = xr.DataArray(data, dims=("t", "y", "x"), coords={"t": np.arange(360) % 12})
    return values.groupby("t").mean().sum().data


def bag() -> object:
    return db.from_sequence(range(20_000), npartitions=100).map(operator.neg).filter(lambda x: x % 3 == 0).sum()


def graph(make: Callable, count: int) -> Callable:
    def run(client) -> None:
        client.gather(make(client, count)[0])

    return run


def collection(make: Callable) -> Callable:
    def run(client) -> None:
        make().compute()

    return run


PROGRAMS: dict[str, Callable] = {
    "numpy": collection(numpy),
    "groupby": collection(groupby),
    "join": collection(join),
    "xarray": collection(xarray),
    "tree": graph(workloads.tree, 2_000),
    "merge": graph(workloads.merge, 2_000),
    "bag": collection(bag),
}


def mean_of_ratios(ours: float, stock: float) -> bool:
    return ours * 3 <= stock


METRICS = [
    *(Metric(name, "s", "≥ 0.95 × as fast", lambda ours, stock: ours * 0.95 <= stock) for name in PROGRAMS),
    Metric("geometric mean", "s", "≥ 3 × better", mean_of_ratios),
]


def measure(side: Side) -> dict[str, float]:
    with cluster(side) as started:
        for _ in range(WORKERS):
            started.start_worker()
        with connected(started, WORKERS) as client:
            values = {name: best(client, run) for name, run in PROGRAMS.items()}
    values["geometric mean"] = math.exp(sum(map(math.log, values.values())) / len(values))
    return values


def best(client, run: Callable) -> float:
    """Seconds of the quickest of a few runs after one that imports what it needs."""
    run(client)
    times = []
    for _ in range(REPEAT):
        start = time.perf_counter()
        run(client)
        times.append(time.perf_counter() - start)
    return min(times)
