"""What a program of the tutorial is and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distributed import Client


@dataclass(frozen=True)
class Context:
    """What a program is given."""

    client: Client
    #: "small" for CI, "full" as the tutorial has it.
    size: str
    #: A folder of its own, seen by the workers too.
    folder: Path

    def pick(self, small: int, full: int) -> int:
        return small if self.size == "small" else full


@dataclass(frozen=True)
class Program:
    """`run` computes with Dask and without, compares, and returns the result in a few words."""

    name: str
    run: Callable[[Context], str]


def program(name: str) -> Callable[[Callable[[Context], str]], Program]:
    """Makes the decorated function a program of the tutorial.

    Functions that run as tasks are defined inside it: so they travel by value, as from a
    notebook, and the workers need nothing of this package.
    """
    return lambda run: Program(name, run)


def check(condition: object, what: str) -> None:
    """Like assert, but also under `python -O`, and with a sentence."""
    if not condition:
        raise AssertionError(what)
