"""What a row measures, and the comparison of two series of it."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number of a row. `target` says what ours should reach, given ours and stock's median."""

    name: str
    unit: str
    target: str = ""
    reached: Callable[[float, float], bool] | None = None


def at_most(limit: float, unit: str) -> dict:
    return {"target": f"≤ {limit:g} {unit}", "reached": lambda ours, _: ours <= limit}


def times_better(factor: float, *, higher_is_better: bool = False) -> dict:
    def reached(ours: float, stock: float) -> bool:
        return ours >= factor * stock if higher_is_better else ours * factor <= stock

    return {"target": f"≥ {factor:g} × better", "reached": reached}


@dataclass(frozen=True)
class Comparison:
    """Two series; stock's is empty where only ours was measured."""

    metric: Metric
    ours: list[float]
    stock: list[float]

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.ours), statistics.median(self.stock or [float("nan")])

    @property
    def ratio(self) -> float:
        """Ours over stock, of the medians."""
        ours, stock = self.medians
        return ours / stock if stock else float("nan")

    def interval(self, draws: int = 2000) -> tuple[float, float]:
        """The middle 90 % of the ratio over samples drawn with replacement (bootstrap)."""
        if not self.stock:
            return float("nan"), float("nan")
        rng = random.Random(0)
        ratios = []
        for _ in range(draws):
            ours = statistics.median(rng.choices(self.ours, k=len(self.ours)))
            stock = statistics.median(rng.choices(self.stock, k=len(self.stock)))
            ratios.append(ours / stock if stock else float("nan"))
        ratios.sort()
        return ratios[draws // 20], ratios[-draws // 20]

    @property
    def verdict(self) -> str:
        if self.metric.reached is None:
            return ""
        return "reached" if self.metric.reached(*self.medians) else "missed"
