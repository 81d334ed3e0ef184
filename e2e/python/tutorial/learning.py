"""Machine learning: scikit-learn through joblib, dask-ml, XGBoost."""

from __future__ import annotations

import dask.array as da
import numpy as np

from .program import Context, check, program


@program("joblib GridSearchCV(SVC)")
def grid_search(context: Context) -> str:
    import joblib
    from sklearn.datasets import make_classification
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    X, y = make_classification(n_samples=context.pick(150, 1_000), random_state=0)
    grid = {"C": [0.1, 1.0, 10.0], "kernel": ["rbf", "poly"], "shrinking": [True, False]}
    search = GridSearchCV(SVC(gamma="auto", random_state=0), grid, cv=3)
    with joblib.parallel_backend("dask"):
        search.fit(X, y)
    got = search.cv_results_["mean_test_score"]
    with joblib.parallel_backend("sequential"):
        search.fit(X, y)
    check(np.array_equal(got, search.cv_results_["mean_test_score"]), "scores differ")
    return f"{len(got)} candidates, best score {got.max():.4f}"


@program("dask-ml KMeans")
def kmeans(context: Context) -> str:
    import dask_ml.cluster
    import sklearn.cluster
    from sklearn.datasets import make_blobs

    X, _ = make_blobs(n_samples=context.pick(2_000, 100_000), centers=3, random_state=1)
    model = dask_ml.cluster.KMeans(n_clusters=3, init_max_iter=2, oversampling_factor=10, random_state=0)
    model.fit(da.from_array(X, chunks=(len(X) // 4, X.shape[1])))
    local = sklearn.cluster.KMeans(n_clusters=3, n_init=5, random_state=0).fit(X)

    def ordered(centers: np.ndarray) -> np.ndarray:
        return centers[np.argsort(centers[:, 0])]

    got, expected = ordered(model.cluster_centers_), ordered(local.cluster_centers_)
    check(np.allclose(got, expected, atol=0.05), f"centers {got} instead of {expected}")
    check(model.labels_.compute().shape == (len(X),), "one label for each point")
    return f"{len(X)} points, centers agree to {np.abs(got - expected).max():.1e}"


@program("dask-ml LogisticRegression")
def logistic_regression(context: Context) -> str:
    import dask_ml.linear_model
    import sklearn.linear_model
    from sklearn.datasets import make_classification

    samples = context.pick(1_000, 20_000)
    X, y = make_classification(n_samples=samples, n_features=10, class_sep=2.0, random_state=2)
    dX = da.from_array(X, chunks=(samples // 4, 10))
    model = dask_ml.linear_model.LogisticRegression(solver="lbfgs", max_iter=100)
    model.fit(dX, da.from_array(y, chunks=samples // 4))
    got = model.predict(dX).compute()
    expected = sklearn.linear_model.LogisticRegression().fit(X, y).predict(X)
    agreement = (got == expected).mean()
    check(agreement > 0.98, f"only {agreement:.1%} of the predictions agree")
    return f"{samples} samples, {agreement:.2%} predicted as by scikit-learn"


@program("xgboost.dask")
def boosting(context: Context) -> str:
    import xgboost
    import xgboost.dask
    from sklearn.datasets import make_regression

    samples, rounds = context.pick(1_000, 50_000), context.pick(10, 50)
    X, y = make_regression(n_samples=samples, n_features=8, noise=1.0, random_state=3)
    parameters = {"tree_method": "hist", "max_depth": 4, "objective": "reg:squarederror"}
    dX = da.from_array(X, chunks=(samples // 4, 8))
    dy = da.from_array(y, chunks=samples // 4)
    data = xgboost.dask.DaskDMatrix(context.client, dX, dy)
    output = xgboost.dask.train(context.client, parameters, data, num_boost_round=rounds)
    got = xgboost.dask.predict(context.client, output, dX).compute()

    local = xgboost.train(parameters, xgboost.DMatrix(X, y), num_boost_round=rounds)
    expected = local.predict(xgboost.DMatrix(X))

    def error(prediction: np.ndarray) -> float:
        return float(np.sqrt(np.mean((prediction - y) ** 2)))

    check(
        abs(error(got) - error(expected)) < 0.1 * error(expected) + 1.0,
        f"error {error(got):.3f}, {error(expected):.3f} without Dask",
    )
    agreement = np.corrcoef(got, expected)[0, 1]
    check(
        agreement > 0.98,
        f"correlation {agreement:.4f} with the local model, error {error(got):.3f}",
    )
    return f"{rounds} rounds, error {error(got):.3f} ({error(expected):.3f} without Dask)"
