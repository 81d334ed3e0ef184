"""Culling of graphs of many small layers in time that grows with the graph, not with its square.

A graph made with `dask.delayed` has a layer for each call. `HighLevelGraph.cull` asks each layer to keep what is
wanted, and gives it the wanted keys of the whole graph; a layer looks through all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def install() -> None:
    """Has layers look through their own keys where these are fewer. For a process of ours, not of the user."""
    from dask.highlevelgraph import MaterializedLayer

    MaterializedLayer.cull = of_own_keys(MaterializedLayer.cull)


def of_own_keys(cull: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """`cull` of a layer, given only those of the wanted keys that the layer has."""

    def cull_own(layer: Any, keys: set, all_hlg_keys: Any) -> tuple[Any, Any]:
        if len(layer) < len(keys):
            keys = {key for key in layer if key in keys}
        return cull(layer, keys, all_hlg_keys)

    return cull_own
