# Prints real graphs of Dask: a name, the number of tasks, the peak of live results and the seconds with
# `dask.order`, and per task its dependencies by position. Wanted tasks are those that nothing depends on.
import sys
import time

import dask
import dask.array as da
import dask.bag as db
from dask import delayed
from dask._task_spec import Task, TaskRef, convert_legacy_graph
from dask.base import collections_to_expr
from dask.order import order


def peak(dependencies, priorities):
    users = dict.fromkeys(dependencies, 0)
    for needs in dependencies.values():
        for key in needs:
            users[key] += 1
    live = most = 0
    for key in sorted(dependencies, key=priorities.__getitem__):
        live += 1
        most = max(most, live)
        for need in dependencies[key]:
            users[need] -= 1
            live -= users[need] == 0
    return most


def show(name, *collections):
    show_graph(name, convert_legacy_graph(collections_to_expr(collections).optimize().__dask_graph__()))


def show_graph(name, dsk):
    begin = time.process_time()
    priorities = order(dsk)
    seconds = time.process_time() - begin
    dependencies = {key: [d for d in node.dependencies if d in dsk] for key, node in dsk.items()}
    position = {key: i for i, key in enumerate(dsk)}
    words = (",".join(str(position[d]) for d in needs) for needs in dependencies.values())
    print(name, len(dsk), peak(dependencies, priorities), seconds, ";".join(words))


def run(key, *needs):
    return Task(key, sum, *map(TaskRef, needs))


x = da.random.random((10000, 10000), chunks=(500, 500))
show("mean_over_slice", (x + x.T)[::2, 5000:].mean(axis=1))
show("mean", (x + x.T).mean())
show("two_sums", x.sum(axis=0), x.sum(axis=1))
show("matmul", x[:4000, :4000] @ x[:4000, :4000])
show("standardise", (x - x.mean(axis=0)) / x.std(axis=0))
show("rechunk", da.random.random((2000, 2000), chunks=(100, 2000)).rechunk((2000, 100)).sum(axis=1))
show("overlap", da.random.random((4000, 4000), chunks=(400, 400)).map_overlap(lambda block: block, depth=1).sum())
show("svd", *da.linalg.svd(da.random.random((20000, 100), chunks=(1000, 100))))

row = [delayed(int)(i) for i in range(4096)]
while len(row) > 1:
    row = [delayed(sum)([a, b]) for a, b in zip(row[::2], row[1::2])]
show("tree", *row)

show("bag", db.from_sequence(range(1000), npartitions=100).map(lambda i: i % 7).frequencies().topk(3, key=1))
show("groupby", db.from_sequence(range(1000), npartitions=20).groupby(lambda i: i % 7).map(len))

df = dask.datasets.timeseries(end="2000-06-30")
with dask.config.set({"dataframe.shuffle.method": "tasks"}):
    show("dataframe_std", df[df.y > 0].groupby("name").x.std())
    show("shuffle", df.shuffle("name").map_partitions(len))
    show("merge", df.merge(df[["name", "x"]], on="name", how="inner").x_x.sum())
    show("rolling", df[["x", "y"]].rolling("1h").mean().x.max())

n = 60
maps = {("map", i): run(("map", i)) for i in range(n)}
splits = {("split", i, j): run(("split", i, j), ("map", i)) for i in range(n) for j in range(n)}
reduces = {("reduce", j): run(("reduce", j), *(("split", i, j) for i in range(n))) for j in range(n)}
show_graph("map_reduce", {**maps, **splits, **reduces})

chains = {(i, j): run((i, j), *([(i, j - 1)] if j else [])) for j in range(20) for i in range(200)}
show_graph("chains", {**chains, "end": run("end", *((i, 19) for i in range(200)))})

loads = {("load", i): run(("load", i)) for i in range(1000)}
models = {("fit", i): run(("fit", i), ("load", i), *([("fit", i - 1)] if i else [])) for i in range(1000)}
show_graph("fold", {**loads, **models})

grid = {}
for i in range(60):
    for j in range(60):
        needs = [(a, b) for a, b in ((i - 1, j), (i, j - 1)) if a >= 0 and b >= 0]
        grid[i, j] = run((i, j), *needs)
show_graph("stencil", grid)
sys.stdout.flush()
