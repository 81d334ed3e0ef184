"""Rounds of both sides in alternating order, so that a slow drift of the machine cancels."""

from __future__ import annotations

from collections.abc import Callable

from .metric import Comparison, Metric
from .side import Side


def compare(
    ours: Side,
    stock: Side,
    metrics: list[Metric],
    measure: Callable[[Side], dict[str, float]],
    rounds: int,
) -> list[Comparison]:
    """Measures A B B A A B …; each measurement has processes of its own."""
    series: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for number in range(rounds):
        order = (True, False) if number % 2 == 0 else (False, True)
        for is_ours in order:
            side = ours if is_ours else stock
            values = measure(side)
            series[is_ours].append(values)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"round {number + 1} {side.label:>6}: {shown}", flush=True)
    return [
        Comparison(
            metric,
            [values[metric.name] for values in series[True] if metric.name in values],
            [values[metric.name] for values in series[False] if metric.name in values],
        )
        for metric in metrics
        if any(metric.name in values for values in series[True])
    ]
