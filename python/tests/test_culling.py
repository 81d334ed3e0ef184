"""Culling in a helper: what stock culls, at a cost that grows with the graph."""

from __future__ import annotations

import operator

import dask
import dask._task_spec
import dask.array as da
import dask.bag as db
import pytest
from dask.highlevelgraph import MaterializedLayer
from oxidask.scheduler import culling
from oxidask.scheduler.blobs import Blobs
from oxidask.scheduler.pickling import LARGE, NodePickler


def merge(leaves):
    negate = dask.delayed(operator.neg, pure=True)
    return dask.delayed(sum, pure=True)([negate(i) for i in range(leaves)])


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MaterializedLayer, "cull", culling.of_own_keys(MaterializedLayer.cull))


COLLECTIONS = {
    "merge": lambda: merge(50),
    "array": lambda: (da.ones((40, 40), chunks=10) + 1)[:15].sum(),
    "bag": lambda: db.from_sequence(range(20), npartitions=5).map(str).frequencies(),
}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_the_same_is_left_as_by_stock(name: str, request: pytest.FixtureRequest):
    collection = COLLECTIONS[name]()
    graph, keys = collection.__dask_graph__(), collection.__dask_keys__()
    stock = dict(graph.cull(keys))
    request.getfixturevalue("installed")
    assert dict(graph.cull(keys)).keys() == stock.keys()


def test_each_key_is_looked_at_a_few_times_only(installed, monkeypatch: pytest.MonkeyPatch):
    looked_at = []
    cull = dask._task_spec.cull

    def counted(dsk, keys):
        looked_at.append(len(keys))
        return cull(dsk, keys)

    monkeypatch.setattr(dask._task_spec, "cull", counted)
    collection = merge(500)
    assert len(dict(collection.__dask_graph__().cull(collection.__dask_keys__()))) == 501
    assert sum(looked_at) < 10 * 501, "not 500 for each of 500 layers"


def test_a_large_node_does_not_make_those_after_it_dear():
    pickler = NodePickler(Blobs())
    pickler.dump(dask._task_spec.Task("small", operator.neg, 1))
    small = pickler._plain
    pickler.dump(dask._task_spec.Task("large", sum, [str(i) for i in range(LARGE)]))
    assert pickler._plain is not small, "the memo of the large one is gone with its pickler"
    large = pickler._plain
    pickler.dump(dask._task_spec.Task("small", operator.neg, 1))
    assert pickler._plain is large
