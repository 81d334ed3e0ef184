# Prints expressions as a client would send them: a name, "given" or "none" for the priority, the wanted keys, and
# the header and frames of the pickle in hex.
import operator
import os
import sys
import time

import dask
import msgpack
from dask import delayed
from dask._expr import LLGExpr
from dask._task_spec import DataNode, Task, TaskRef
from dask.base import collections_to_expr
from distributed.client import _MapExpr
from distributed.protocol import serialize


class Raises:
    def __dask_graph__(self):
        raise ZeroDivisionError("mine")


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def show(name, priority, keys, expr):
    header, frames = serialize(expr, serializers=["pickle"])
    header["num-sub-frames"] = len(frames)
    words = [name, priority, ",".join(keys), msgpack.packb(header).hex()]
    print(*words, *("-" + bytes(frame).hex() for frame in frames))


show("submit", "given", ["x"], LLGExpr({"x": Task("x", operator.neg, 1)}))
show(
    "chain",
    "none",
    ["c"],
    LLGExpr(
        {
            "c": Task("c", operator.add, TaskRef("b"), TaskRef("elsewhere")),
            "b": Task("b", operator.neg, TaskRef("a")),
            "a": DataNode("a", 1),
            "unwanted": DataNode("unwanted", 2),
        }
    ),
)
keys = [f"f-{i}" for i in range(1000)]
by_value = _MapExpr(lambda x: x + 1 if x else operator.neg(x) * 2 - 3 + x**2, [range(1000)], "f", True, {}, {}, keys)
show("map_by_value", "given", keys, by_value)

add = delayed(operator.add)
row = [delayed(operator.neg)(i) for i in range(512)]
while len(row) > 1:
    row = [add(a, b) for a, b in zip(row[::2], row[1::2])]
show("tree", "none", [row[0].key], collections_to_expr(row))

with dask.annotate(retries=3):
    a = delayed(operator.neg)(1)
b = delayed(operator.neg)(a)
show("annotated", "none", [b.key], collections_to_expr([b], optimize_graph=False))

with dask.annotate(retries=0.5):
    c = delayed(operator.neg)(1)
show("wrong_annotation", "none", [c.key], collections_to_expr([c], optimize_graph=False))

cycle = {"a": Task("a", operator.neg, TaskRef("b")), "b": Task("b", operator.neg, TaskRef("a"))}
rest = {f"n-{i}": Task(f"n-{i}", operator.add, TaskRef("a"), i) for i in range(500)}
show("small_cycle", "none", ["a"], LLGExpr(cycle))
show("large_cycle", "none", ["all"], LLGExpr({**cycle, **rest, "all": Task("all", sum, *map(TaskRef, rest))}))

show("raises_when_materialised", "none", ["x"], Raises())
show("exits", "none", ["x"], Call(os._exit, 7))
show("sleeps", "none", ["x"], Call(time.sleep, 3600))


def allocate():
    kept = []
    while True:
        kept.append(bytearray(50 << 20))


show("allocates", "none", ["x"], Call(allocate))

module = type(sys)("no_such_module")
exec("def f(x): return x", module.__dict__)
sys.modules["no_such_module"] = module
show("missing_module", "given", ["x"], LLGExpr({"x": Task("x", module.f, 1)}))
