"""Blocked arrays."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
from distributed import futures_of, wait

from .program import Context, check, program


@program("array mean over a slice")
def mean_over_slice(context: Context) -> str:
    side = context.pick(1_000, 10_000)
    x = da.random.default_rng(1).random((side, side), chunks=(side // 10, side // 10)).persist()
    y = x + x.T
    z = y[::2, side // 2 :].mean(axis=1)
    got = z.compute()

    # The same from the input alone, block by block, so that no machine needs it all at once.
    blocks = {future.key: future for future in futures_of(x)}
    total = np.zeros(side)
    for i in range(10):
        for j in range(10):
            rows, columns = slice(i * side // 10, (i + 1) * side // 10), slice(j * side // 10, None)
            block = blocks[x.name, i, j].result()
            if j >= 5:
                total[rows] += block.sum(axis=1)
            if i >= 5:
                total[columns.start : columns.start + block.shape[1]] += block.sum(axis=0)
    expected = (total / (side // 2))[::2]
    check(got.shape == (side // 2,), f"shape {got.shape}")
    check(np.allclose(got, expected, rtol=1e-12), "means differ from NumPy's")
    return f"{side} x {side}, mean of means {got.mean():.6f}"


@program("persist, compute again")
def persist(context: Context) -> str:
    made = context.folder / "made"
    made.mkdir()

    def block(made: Path, block_info: dict | None = None) -> np.ndarray:
        import uuid

        import numpy as np

        (made / uuid.uuid4().hex).touch()
        row, column = block_info[None]["chunk-location"]
        return np.full((100, 100), row * 10 + column, dtype="i8")

    blocks = context.pick(4, 16)
    x = da.map_blocks(
        block,
        made,
        chunks=((100,) * blocks, (100,) * blocks),
        dtype="i8",
        meta=np.empty((0, 0), "i8"),
    )
    x = x.persist()
    wait(x)
    first = x.sum().compute()
    second = (x + 1).sum().compute()
    values = [row * 10 + column for row in range(blocks) for column in range(blocks)]
    check(first == 10_000 * sum(values), f"the first sum is {first}")
    check(second == first + 10_000 * len(values), f"the second sum is {second}")
    count = len(list(made.iterdir()))
    check(count == len(values), f"{count} blocks were made for {len(values)}")
    return f"sums {first} and {second}, each of {count} blocks made once"


@program("x @ x")
def matrix_product(context: Context) -> str:
    side = context.pick(600, 4_000)
    data = np.random.default_rng(2).standard_normal((side, side))
    x = da.from_array(data, chunks=side // 4)
    got = (x @ x).compute()
    check(np.allclose(got, data @ data), "the product differs from NumPy's")
    return f"{side} x {side}, trace {np.trace(got):.3f}"
