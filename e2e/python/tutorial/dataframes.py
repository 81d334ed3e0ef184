"""Partitioned data frames."""

from __future__ import annotations

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

from .program import Context, program


@program("timeseries groupby std")
def timeseries(context: Context) -> str:
    days = context.pick(4, 30)
    df = dask.datasets.timeseries(start="2000-01-01", end=pd.Timestamp("2000-01-01") + pd.Timedelta(days=days), seed=3)
    got = df[df.y > 0].groupby("name").x.std().compute()
    data = df.compute()
    expected = data[data.y > 0].groupby("name").x.std()
    got = got.sort_index()
    pd.testing.assert_series_equal(got, expected.sort_index(), check_dtype=False)
    return f"{len(data)} rows, {len(got)} names, std of {got.index[0]} {got.iloc[0]:.6f}"


@program("merge (P2P)")
def merge(context: Context) -> str:
    rows, partitions = context.pick(4_000, 400_000), context.pick(6, 20)
    rng = np.random.default_rng(4)
    left = pd.DataFrame({"key": rng.integers(0, rows // 4, rows), "a": np.arange(rows)})
    right = pd.DataFrame({"key": rng.integers(0, rows // 4, rows), "b": rng.random(rows)})
    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        got = (
            dd.from_pandas(left, npartitions=partitions)
            .merge(dd.from_pandas(right, npartitions=partitions - 1), on="key", shuffle_method="p2p")
            .compute()
        )
    expected = left.merge(right, on="key")
    by = ["key", "a", "b"]
    pd.testing.assert_frame_equal(
        got.sort_values(by).reset_index(drop=True),
        expected.sort_values(by).reset_index(drop=True),
    )
    return f"{rows} x {rows} rows joined to {len(got)}"


@program("set_index (P2P)")
def set_index(context: Context) -> str:
    rows, partitions = context.pick(5_000, 1_000_000), context.pick(5, 20)
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"when": rng.permutation(rows), "value": rng.random(rows)})
    with dask.config.set({"dataframe.shuffle.method": "p2p"}):
        df = dd.from_pandas(data, npartitions=partitions).set_index("when").persist()
        got = df.compute()
        window = df.loc[100:199].compute()
    expected = data.set_index("when").sort_index()
    pd.testing.assert_frame_equal(got, expected)
    pd.testing.assert_frame_equal(window, expected.loc[100:199])
    return f"{rows} rows sorted into {df.npartitions} partitions"
