"""What a stock worker unpickles is what stock Dask would have sent."""

from __future__ import annotations

import functools
import operator
import pickle

import cloudpickle
import numpy as np
import pytest
from dask._task_spec import Alias, DataNode, Dict, List, Task, TaskRef
from distributed.client import _MapExpr
from distributed.protocol import pickle as stock
from graphs import Answered
from oxidask.scheduler.blobs import Blobs
from oxidask.scheduler.pickling import MapTemplate, NodePickler

offset = 10


def by_reference(x):
    return x


def by_value(name="by_value", body="return (x, offset)"):
    """A function of ``__main__``, as a notebook has it."""
    scope = {"__name__": "__main__", "offset": offset}
    exec(f"def {name}(x=0, *rest):\n    '''{'long ' * 100}'''\n    {body}", scope)
    return scope[name]


def reload(node):
    """The node as a worker gets it, and how many buffers came along."""
    blobs = Blobs()
    data, numbers = NodePickler(blobs).dump(node)
    buffers = blobs.take_fresh()
    return pickle.loads(data, buffers=[buffers[number] for number in numbers]), len(numbers)


NODES = {
    "plain": Task("a", operator.add, 1, 2.5),
    "refs": Task("a", operator.add, TaskRef("b"), TaskRef(("c", 0))),
    "kwargs": Task("a", by_reference, x={"deep": [1, (2, None)]}),
    "nested": Task("a", by_reference, List(TaskRef("b"), Dict({"k": TaskRef("c")}))),
    "data": DataNode("a", [1, "2", {3}]),
    "alias": Alias("a", "b"),
    "producer": Task("a", by_reference, 1, _data_producer=True),
    "partial": Task("a", functools.partial(operator.add, 1), 2),
    "fused": Task.fuse(Task("b", operator.neg, TaskRef("x")), Task("a", operator.neg, TaskRef("b"))),
    "by_value": Task("a", by_value(), 3),
    "lambda": Task("a", lambda x: x + offset, 3),
    "array": Task("a", by_reference, np.arange(1000).reshape(10, 100)),
    "empty_array": Task("a", by_reference, np.empty((0, 3))),
    "array_by_value": Task("a", by_value(), np.arange(1000)),
    "tuple_key": Task(("a", 1, 2.0), operator.neg, 1),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes_come_back_whole(name):
    node = NODES[name]
    found, _ = reload(node)
    expected = pickle.loads(stock.dumps(node))
    assert type(found) is type(node)
    assert found.key == node.key and found.dependencies == node.dependencies
    assert found.data_producer == node.data_producer
    for slot in type(node).get_all_slots():
        left, right = (getattr(n, slot, None) for n in (found, expected))
        assert type(left) is type(right)
    values = {key: 2 for key in node.dependencies}
    assert repr(found(values)) == repr(node(values))


def test_buffers_of_arrays_are_out_of_band_and_sent_once():
    array = np.arange(10_000)
    blobs = Blobs()
    pickler = NodePickler(blobs)
    first = pickler.dump(Task("a", by_reference, array))
    second = pickler.dump(Task("b", by_reference, array))
    assert first[1] == second[1] == [0]
    assert len(blobs.take_fresh()) == 1
    assert len(first[0]) < 1000


def test_views_of_one_array_are_not_mixed_up():
    array = np.arange(10_000)
    blobs = Blobs()
    pickler = NodePickler(blobs)
    parts = [array[:5000], array[5000:], np.asfortranarray(array.reshape(100, 100))]
    nodes = [pickler.dump(Task(str(i), by_reference, part)) for i, part in enumerate(parts)]
    buffers = blobs.take_fresh()
    for part, (data, numbers) in zip(parts, nodes):
        loaded = pickle.loads(data, buffers=[buffers[number] for number in numbers])
        np.testing.assert_array_equal(loaded.args[0], part)


def test_memoryviews_of_one_object_are_not_mixed_up():
    class Piece:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return bytes, (pickle.PickleBuffer(self.data),)

    memory = memoryview(bytes(range(200)))
    blobs = Blobs()
    pickler = NodePickler(blobs)
    nodes = [pickler.dump(Task("a", by_reference, Piece(memory[at : at + 100]))) for at in (0, 100)]
    buffers = blobs.take_fresh()
    first, second = (pickle.loads(data, buffers=[buffers[n] for n in numbers]) for data, numbers in nodes)
    assert first.args[0] == bytes(range(100))
    assert second.args[0] == bytes(range(100, 200))


def test_function_by_value_is_pickled_once_for_all_nodes():
    function = by_value()
    blobs = Blobs()
    pickler = NodePickler(blobs)
    nodes = [pickler.dump(Task(f"k-{i}", function, i)) for i in range(10)]
    buffers = blobs.take_fresh()
    assert len(buffers) == 1
    for i, (data, numbers) in enumerate(nodes):
        assert len(data) < 250
        task = pickle.loads(data, buffers=[buffers[number] for number in numbers])
        assert task(()) == (i, offset)


def test_error_of_a_users_object_is_what_comes_out():
    class Stubborn:
        def __reduce__(self):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        NodePickler(Blobs()).dump(Task("a", by_reference, Stubborn()))
    # The pickler goes on to serve others.
    assert reload(Task("a", by_reference, 1))[0](()) == 1


class Model:
    def __init__(self):
        self.weights = [float(i) for i in range(5000)]


def test_large_value_that_many_nodes_hold_is_sent_once():
    model, text = Model(), "x" * 10_000
    blobs = Blobs()
    pickler = NodePickler(blobs)
    nodes = [Task(f"k-{i}", by_reference, List(model, i), text=text, many=model) for i in range(5)]
    nodes += [
        Task.fuse(Task("inner", by_reference, model), Task(f"f-{i}", by_reference, TaskRef("inner"))) for i in (0, 1)
    ]
    pickled = [pickler.dump(node) for node in nodes]
    buffers = blobs.take_fresh()
    assert len(buffers) == 2, "the model and the text"
    assert len(pickled[0][0]) > 45_000, "nobody knows yet that the model comes again"
    assert all(len(data) < 1500 for data, _ in pickled[1:])
    for node, (data, numbers) in zip(nodes, pickled):
        found = pickle.loads(data, buffers=[buffers[number] for number in numbers])
        assert found.dependencies == node.dependencies and found.key == node.key
        if node.key.startswith("k-"):
            assert found.kwargs["many"] is found.args[0](())[0], "once in a node is once in the task"
            assert found.kwargs["text"] == text and found.kwargs["many"].weights == model.weights
            assert found.args[0](())[0].weights == model.weights
        else:
            assert found(()).weights == model.weights


def test_large_values_of_one_node_each_stay_where_they_are():
    blobs = Blobs()
    pickler = NodePickler(blobs)
    for i in range(3):
        data, numbers = pickler.dump(Task(f"k-{i}", by_reference, Model()))
        assert len(data) > 45_000 and not numbers


MAPS = {
    "reference": (by_reference, [range(20)]),
    "builtin": (operator.neg, [range(20)]),
    "method": (str.upper, [["a", "é", "\udc80x"]]),
    "value": (by_value(), [range(20)]),
    "lambda": (lambda *args: args, [range(20), "abcdefghijklmnopqrst"]),
    "bound": ("text {}".format, [[1, 2.5, None, True, b"bytes", 1j]]),
    "partial": (functools.partial(operator.add, 1), [range(5)]),
    "same_twice": (lambda *args: args, [["x" * 50] * 3, ["x" * 50] * 3]),
    "long_string": (len, [["x" * 100_000, "y" * 70_000] * 3]),
    "mixed": (repr, [[1, "a", [1], {"k": 2}, (3, 4)]]),
    "class": (complex, [range(5)]),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_give_what_stock_gives(name):
    function, iterables = MAPS[name]
    count = min(map(len, iterables))
    keys = [f"{'k' * 300 if name == 'builtin' else 'k'}-{i}" for i in range(count)]
    expr = _MapExpr(function, iterables, "k", True, {}, {}, keys)
    dsk = expr.__dask_graph__()
    answered = Answered(expr, tuple(keys), priority=True)
    assert answered.keys == keys == list(dsk)
    for key in keys:
        node, expected = answered.node(key), dsk[key]
        assert type(node) is Task and node.key == key
        assert node.args == expected.args and node.kwargs == expected.kwargs
        assert node.dependencies == expected.dependencies and node.data_producer == expected.data_producer
        assert node(()) == expected(())
        # As a worker would send it on.
        assert pickle.loads(cloudpickle.dumps(node))(()) == expected(())


def test_template_of_a_reference_needs_no_buffer():
    blobs = Blobs()
    template = MapTemplate(NodePickler(blobs), blobs, operator.neg)
    assert template.blobs == []
    assert len(template.dump("k-1", (5,))) < 120


def test_map_with_futures_or_keyword_arguments_is_left_to_dask():
    expr = _MapExpr(by_reference, [[TaskRef("x"), 1]], "k", True, {}, {}, ["k-0", "k-1"])
    answered = Answered(expr, ("k-0", "k-1"), priority=True)
    assert answered.dependencies["k-0"] == {"x"}
    expr = _MapExpr(operator.add, [[1, 2]], "k", True, {}, {"b": TaskRef("y")}, ["k-0", "k-1"])
    answered = Answered(expr, ("k-0", "k-1"), priority=True)
    assert answered.dependencies["k-1"] == {"y"}
