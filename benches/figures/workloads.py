"""Graphs that several rows submit. Their functions are imported by name on the workers."""

from __future__ import annotations

import operator
from collections.abc import Callable

import dask
from distributed import Client, Future


def by_value() -> Callable[[int], int]:
    """A function that travels with its tasks, as one typed into a notebook."""

    def inc(x: int) -> int:
        return x + 1

    return inc


def map_by_value(client: Client, count: int) -> tuple[list[Future], int]:
    return client.map(by_value(), range(count), pure=False), count


def map_by_reference(client: Client, count: int) -> tuple[list[Future], int]:
    return client.map(operator.neg, range(count), pure=False), count


def tree(client: Client, leaves: int) -> tuple[list[Future], int]:
    """Sums `leaves` numbers two by two."""
    add = dask.delayed(operator.add, pure=False)
    level: list = list(range(leaves))
    tasks = 0
    while len(level) > 1:
        level = [add(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        tasks += len(level)
    return [client.compute(level[0])], tasks


def merge(client: Client, count: int) -> tuple[list[Future], int]:
    """One task of many, made with delayed: the graph travels node by node."""
    negate = dask.delayed(operator.neg, pure=False)
    total = dask.delayed(sum, pure=False)
    return [client.compute(total([negate(i) for i in range(count)]))], count + 1
