"""Libraries on top of Dask, each a small real program with a checked result."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from distributed import Client


def labelled(rows: int = 400) -> tuple[da.Array, da.Array]:
    """Points of a square in four chunks, and on which side of its diagonal they lie."""
    random = np.random.default_rng(0)
    points = da.from_array(random.random((rows, 4)), chunks=(rows // 4, 4))
    return points, (points.sum(axis=1) > 2).astype(int)


def test_joblib_backend_runs_nested_parallel_code(client: Client) -> None:
    joblib = pytest.importorskip("joblib")
    ensemble = pytest.importorskip("sklearn.ensemble")
    from sklearn.datasets import make_classification
    from sklearn.model_selection import GridSearchCV

    x, y = make_classification(200, random_state=0)

    def search() -> float:
        forest = ensemble.RandomForestClassifier(n_estimators=5, n_jobs=2, random_state=0)
        return GridSearchCV(forest, {"max_depth": [2, 3]}, cv=2).fit(x, y).best_score_

    with joblib.parallel_config("dask", scatter=[x, y]):
        distributed = search()
    assert distributed == pytest.approx(search())


def test_xgboost_trains_on_all_workers(client: Client) -> None:
    pytest.importorskip("xgboost")
    import xgboost.dask as xgb

    x, y = labelled()
    data = xgb.DaskDMatrix(client, x, y)
    trained = xgb.train(client, {"objective": "binary:logistic", "nthread": 1}, data, num_boost_round=10)
    predicted = xgb.predict(client, trained, data).compute() > 0.5
    assert (predicted == y.compute()).mean() > 0.8


def test_lightgbm_hands_its_sockets_from_task_to_task(client: Client) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    x, y = labelled()
    model = lightgbm.DaskLGBMClassifier(client=client, n_estimators=10, verbose=-1).fit(x, y)
    assert (model.predict(x).compute() == y.compute()).mean() > 0.8


def test_dask_ml_scales_an_array(client: Client) -> None:
    preprocessing = pytest.importorskip("dask_ml.preprocessing")
    x, _ = labelled()
    scaled = preprocessing.StandardScaler().fit_transform(x)
    assert float(scaled.std().compute()) == pytest.approx(1)


def test_xarray_writes_netcdf_and_zarr_under_a_lock(client: Client, tmp_path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("netCDF4")
    pytest.importorskip("zarr")
    x, _ = labelled()
    data = xarray.Dataset({"a": (("t", "x"), x)})
    data.to_netcdf(tmp_path / "a.nc")
    data.to_zarr(tmp_path / "a.zarr")
    expected = float(x.mean().compute())
    assert float(xarray.open_dataset(tmp_path / "a.nc", chunks={}).a.mean().compute()) == pytest.approx(expected)
    assert float(xarray.open_zarr(tmp_path / "a.zarr").a.mean().compute()) == pytest.approx(expected)


def test_p2p_shuffles_merges_and_rechunks(client: Client) -> None:
    dd = pytest.importorskip("dask.dataframe")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": range(2000), "b": np.arange(2000) % 17})
    with dask.config.set({"dataframe.shuffle.method": "p2p", "array.rechunk.method": "p2p"}):
        distributed = dd.from_pandas(frame, npartitions=8)
        shuffled = distributed.shuffle("b").compute().sort_values("a", ignore_index=True)
        pd.testing.assert_frame_equal(shuffled, frame, check_dtype=False)
        assert len(distributed.merge(distributed, on="a").compute()) == 2000
        assert distributed.set_index("b").compute().index.is_monotonic_increasing
        x = np.arange(40_000, dtype=float).reshape(200, 200)
        rechunked = da.from_array(x, chunks=(20, 200)).rechunk((200, 20))
        np.testing.assert_array_equal(rechunked.compute(), x)
