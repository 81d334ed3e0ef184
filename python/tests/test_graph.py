"""The graph service against what a stock scheduler makes of the same expression."""

from __future__ import annotations

import operator
from array import array

import dask
import dask.array as da
import dask.bag as db
import msgpack
import pytest
from dask import delayed
from dask._expr import LLGExpr
from dask._task_spec import DataNode, Task, TaskRef, convert_legacy_graph
from dask.base import collections_to_expr
from distributed.protocol.core import dumps
from distributed.protocol.serialize import ToPickle
from graphs import Answered
from oxidask.scheduler.annotations import AnnotationTable
from oxidask.scheduler.blobs import Blobs
from oxidask.scheduler.graph import BATCH_BYTES, answer, batches
from oxidask.scheduler.materialise import DATA_PRODUCER, unpickle, unpickle_payload


def tree(leaves):
    row = [delayed(operator.neg)(i) for i in range(leaves)]
    while len(row) > 1:
        row = [delayed(operator.add)(a, b) for a, b in zip(row[::2], row[1::2])]
    return row[0]


COLLECTIONS = {
    "array": lambda: (da.ones((100, 100), chunks=20) + 1).T.mean(axis=0),
    "bag": lambda: db.from_sequence(range(100), npartitions=10).map(lambda x: x % 3).frequencies(),
    "tree": lambda: tree(16),
    "large_tree": lambda: tree(256),
}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_collections_give_the_nodes_of_stock(name):
    collection = COLLECTIONS[name]()
    expr = collections_to_expr([collection])
    expected = convert_legacy_graph(expr.__dask_graph__())
    answered = Answered(expr)
    assert set(answered.keys) == set(expected)
    assert answered.dependencies == {key: set(node.dependencies) for key, node in expected.items()}
    for position, (key, node) in enumerate(expected.items()):
        assert bool(answered.flags[position] & DATA_PRODUCER) == node.data_producer
        found = answered.node(key)
        assert type(found) is type(node)
    result = dask.get({key: answered.node(key) for key in answered.keys}, collection.__dask_keys__())
    assert dask.get(expected, collection.__dask_keys__())[0].__repr__() == result[0].__repr__()


def test_low_level_graphs_are_culled_to_what_is_wanted():
    dsk = {
        "a": DataNode("a", 1),
        "b": Task("b", operator.neg, TaskRef("a")),
        "c": Task("c", operator.neg, TaskRef("elsewhere")),
        "unwanted": Task("unwanted", operator.neg, TaskRef("a")),
    }
    answered = Answered(LLGExpr(dsk), ("b", "c", "not in the graph"))
    assert answered.keys == ["a", "b", "c", "elsewhere"]
    assert answered.size == 3
    assert answered.dependencies == {"a": set(), "b": {"a"}, "c": {"elsewhere"}}


def test_legacy_tuples_are_tasks():
    answered = Answered(LLGExpr(convert_legacy_graph({"a": 1, "b": (operator.add, "a", 2)})), ("b",))
    assert answered.node("b")({"a": 1}) == 3


def test_annotations_of_layers_reach_their_keys():
    with dask.annotate(retries=2, mine={"deep": (1, 2)}):
        a = delayed(operator.neg)(1)
    b = delayed(operator.neg)(a)
    answered = Answered(collections_to_expr([b], optimize_graph=False))
    of = {
        key: msgpack.unpackb(answered.annotations[answered.numbers[i]], use_list=False)
        for i, key in enumerate(answered.keys)
    }
    assert of[a.key] == {"retries": 2, "mine": {"deep": (1, 2)}}
    assert of[b.key] == {}


def test_annotations_of_all_tasks_are_resolved_and_give_way():
    table = AnnotationTable(
        {"priority": lambda key: len(key), "retries": 1, "odd": object()}, {"retries": {"long-key": 5}}
    )
    sets = [msgpack.unpackb(table.sets[number]) for number in table.numbers(["k", "long-key", "j"])]
    assert sets == [{"retries": 1, "priority": 1}, {"retries": 5, "priority": 8}, {"retries": 1, "priority": 1}]
    assert not table.is_uniform
    assert AnnotationTable({"retries": 1}, {"x": {}}).is_uniform


def test_annotations_come_as_dask_pickles_them():
    frames = dumps(ToPickle({"workers": ["a"], "data": bytearray(b"x")}))
    value = unpickle_payload(bytes(frames[1]), [bytearray(frame) for frame in frames[2:]])
    assert value["workers"] == ["a"]


def test_missing_module_is_said_with_the_interpreter():
    with pytest.raises(RuntimeError, match="deserialization of the task graph") as error:
        unpickle({"serializer": "pickle", "writeable": ()}, [bytearray(b"cno_such_module\nf\n.")])
    assert "has no module 'no_such_module'" in str(error.value)
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


def test_large_graphs_ask_for_an_order_and_follow_it():
    expr = collections_to_expr([tree(256)])
    answered = Answered(expr)
    documents = [document for document, _ in answered.messages]
    assert documents[0]["asks_order"] and "nodes" not in documents[0]
    assert [document["op"] for document in documents[1:]] == ["nodes"] * (len(documents) - 1)
    assert [document["last"] for document in documents[1:]] == [False] * (len(documents) - 2) + [True]


def test_order_may_leave_nodes_out():
    expr = collections_to_expr([tree(256)])
    expected = len(expr.__dask_graph__())
    from distributed.protocol import serialize

    header, frames = serialize(expr, serializers=["pickle"])
    request = {"id": 1, "header": header, "keys": (), "priority": False, "annotations": None}
    messages = list(answer(request, [bytearray(f) for f in frames], lambda _: array("I", [3, 1])))
    pickles = [data for document, _ in messages[1:] for data in document["pickles"]]
    assert len(pickles) == 2 < expected


def test_batches_are_bounded_in_number_and_bytes():
    big = bytes(BATCH_BYTES // 2)
    found = [len(document["pickles"]) for document, _ in batches(iter([(big, [])] * 5), Blobs())]
    assert found == [3, 2]
    assert [len(document["pickles"]) for document, _ in batches(iter([]), Blobs())] == [0]
