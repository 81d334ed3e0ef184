"""Pickling by value of what is defined in test modules, which workers cannot import."""

from __future__ import annotations

import sys
from types import ModuleType

import cloudpickle
import distributed.protocol.pickle

_original = distributed.protocol.pickle.dumps

#: Names of the modules, as they stand in a pickle.
_names: set[bytes] = set()


def register(module: ModuleType) -> None:
    cloudpickle.register_pickle_by_value(module)
    _names.add(module.__name__.encode())


def dumps(x, *, buffer_callback=None, protocol=5):
    """As distributed's, but by value also where such an object is inside of another."""
    buffers: list = []
    collect = buffer_callback and buffers.append
    pickled = _original(x, buffer_callback=collect, protocol=protocol)
    if any(name in pickled for name in _names):
        buffers.clear()
        pickled = cloudpickle.dumps(x, protocol=protocol, buffer_callback=collect)
    for buffer in buffers:
        buffer_callback(buffer)
    return pickled


def install() -> None:
    """Replaces the function wherever distributed has imported it."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "distributed":
            for attribute, value in list(vars(module).items()):
                if value is _original:
                    setattr(module, attribute, dumps)
