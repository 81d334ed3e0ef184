"""Oxidask: Dask with a Rust scheduler and Rust workers.

For users: `LocalCluster`, `experiment`. All else here is what the Rust processes run in child interpreters: it is
packed into the binaries as a zip and needs dask and distributed of the user's environment. ``boot`` is where a child
starts, ``wire`` how it talks to its parent.
"""

from __future__ import annotations

from typing import Any

_FOR_USERS = {"LocalCluster": "cluster", "experiment": "experiments", "Experiment": "experiments"}


def __getattr__(name: str) -> Any:
    """Imports what users ask for when they do, since a child interpreter needs none of it."""
    if name in _FOR_USERS:
        from importlib import import_module

        return getattr(import_module(f"oxidask.local.{_FOR_USERS[name]}"), name)
    raise AttributeError(f"module 'oxidask' has no attribute {name!r}")
