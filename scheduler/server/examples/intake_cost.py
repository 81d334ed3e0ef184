# Prints expressions: a name, "given" or "none" for the priority, the microseconds of CPU time per task that a stock
# scheduler spends on taking it in and on pickling its nodes, the wanted keys, and the pickle's header and frames.
import operator
import time

import dask.array as da
import dask.order
import msgpack
from dask import delayed
from dask._expr import LLGExpr
from dask._task_spec import Task
from dask.base import collections_to_expr
from distributed.client import _MapExpr
from distributed.protocol import deserialize, pickle, serialize
from distributed.scheduler import _materialize_graph
from distributed.utils import ensure_memoryview


def stock(header, frames, ordered):
    best = [1e9, 1e9]
    for _ in range(3):
        begin = time.process_time()
        expr = deserialize(header, [bytearray(frame) for frame in frames])
        dsk, _ = _materialize_graph(expr, validate=False)
        if not ordered:
            dask.order.order(dsk)
        middle = time.process_time()
        for node in dsk.values():
            pickle.dumps(node, buffer_callback=ensure_memoryview)
        end = time.process_time()
        best = [min(best[0], middle - begin), min(best[1], end - middle)]
    return [f"{seconds / len(dsk) * 1e6:.2f}" for seconds in best]


def show(name, priority, keys, expr):
    header, frames = serialize(expr, serializers=["pickle"])
    costs = stock(header, frames, priority == "given")
    header["num-sub-frames"] = len(frames)
    words = [name, priority, *costs, ",".join(keys), msgpack.packb(header).hex()]
    print(*words, *("-" + bytes(frame).hex() for frame in frames), flush=True)


def inc(x):
    return x + 1


def merge(leaves):
    row = [delayed(inc)(i) for i in range(leaves)]
    while len(row) > 1:
        row = [delayed(operator.add)(a, b) for a, b in zip(row[::2], row[1::2])]
    return row[0]


keys = [f"inc-{i:032x}" for i in range(10_000)]
show("map_by_reference", "given", keys, _MapExpr(operator.neg, [range(10_000)], "inc", True, {}, {}, keys))
show("map_by_value", "given", keys, _MapExpr(inc, [range(10_000)], "inc", True, {}, {}, keys))
for leaves in (512, 4096):
    last = merge(leaves)
    show(f"merge_{2 * leaves}", "none", [last.key], collections_to_expr([last]))
x = da.random.random((20_000, 20_000), chunks=(500, 500))
total = (x + x.T).mean()
show("array", "none", [total.name], collections_to_expr([total]))
show("submit", "given", ["x"], LLGExpr({"x": Task("x", operator.neg, 1)}))
