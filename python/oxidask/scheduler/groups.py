"""Groups and prefixes of tasks, with the attributes that Dask gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

DONE = frozenset({"memory", "erred", "released", "forgotten"})
"""States of a task that nothing is to be done for."""


class GroupView:
    """``TaskGroup``: the tasks of one layer, as they were when it was asked for."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.name: str = fields["name"]
        self.prefix_name: str = fields["prefix"]
        self.states: dict[str, int] = fields["states"]
        self.nbytes_total: int = fields["nbytes_total"]
        self.start: float = fields["start"] or 0.0
        self.stop: float = fields["stop"] or 0.0
        self.all_durations: dict[str, float] = fields["durations"]
        self.types: set[str] = set(fields["types"])
        self.span_id: str | None = fields["span_id"]
        self.prefix: PrefixView | None = None
        self._dependencies: tuple[str, ...] = fields["dependencies"]
        self.dependencies: set[GroupView] = set()

    def link(self, groups: Mapping[str, GroupView], prefixes: Mapping[str, PrefixView]) -> None:
        """Points to the others of the same picture."""
        self.prefix = prefixes.get(self.prefix_name)
        self.dependencies = {groups[name] for name in self._dependencies if name in groups}

    def __repr__(self) -> str:
        counts = " ".join(f"{state}: {count}" for state, count in self.states.items() if count)
        return f"<{self.name}: {counts or 'no tasks'}>"

    def __len__(self) -> int:
        return sum(self.states.values())

    @property
    def done(self) -> bool:
        """Nothing is to be done for any of its tasks."""
        return all(not count or state in DONE for state, count in self.states.items())

    @property
    def duration(self) -> float:
        """Seconds spent on its tasks."""
        return sum(self.all_durations.values())

    def __reduce__(self) -> tuple:
        # Clients cannot import this class.
        return SimpleNamespace, (), {"name": self.name, "states": self.states, "span_id": self.span_id}


class PrefixView:
    """``TaskPrefix``: the tasks of one function."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.name: str = fields["name"]
        self.state_counts: dict[str, int] = fields["states"]
        self.duration_average: float = -1.0 if fields["duration"] is None else fields["duration"]
        self.suspicious: int = fields["suspicious"]
        self.nbytes_total: int = fields["output_bytes"]
        self.all_durations = {"compute": fields["compute"], "transfer": fields["transfer"]}
        self.groups: set[GroupView] = set()

    def __repr__(self) -> str:
        counts = " ".join(f"{state}: {count}" for state, count in self.states.items() if count)
        return f"<{self.name}: {counts or 'no tasks'}>"

    @property
    def states(self) -> dict[str, int]:
        """Tasks that are known now, by state."""
        return dict(self.state_counts)

    @property
    def active(self) -> list[GroupView]:
        """Groups that have tasks in any state but forgotten."""
        return [group for group in self.groups if any(n for s, n in group.states.items() if s != "forgotten")]

    @property
    def duration(self) -> float:
        """Seconds spent on its tasks."""
        return sum(self.all_durations.values())

    def __reduce__(self) -> tuple:
        return SimpleNamespace, (), {"name": self.name, "states": self.states}


def picture(state: dict[str, Any]) -> tuple[dict[str, GroupView], dict[str, PrefixView]]:
    """Groups and prefixes by name, pointing to each other."""
    prefixes = {fields["name"]: PrefixView(fields) for fields in state["prefixes"]}
    groups = {fields["name"]: GroupView(fields) for fields in state["groups"]}
    for group in groups.values():
        group.link(groups, prefixes)
        if group.prefix is not None:
            group.prefix.groups.add(group)
    return groups, prefixes
