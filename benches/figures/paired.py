"""Rounds of both sides in alternating order, so that a slow drift of the machine cancels."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from .metric import Comparison, Metric
from .side import Side

#: Seconds that one measurement of one side may take. Stock clusters hang now and then; then it is tried again.
LIMIT = 240
TRIES = 3


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block, wherever it waits, when its time is over."""

    def over(*_: object) -> None:
        raise TimeoutError(f"a measurement has not ended within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measured(measure: Callable[[Side], dict[str, float]], side: Side) -> dict[str, float]:
    for _ in range(TRIES - 1):
        try:
            with limited(LIMIT):
                return measure(side)
        except TimeoutError as error:
            print(f"{side.label}: {error}; it is tried again", flush=True)
    with limited(LIMIT):
        return measure(side)


def compare(
    ours: Side,
    stock: Side,
    metrics: list[Metric],
    measure: Callable[[Side], dict[str, float]],
    rounds: int,
    part: Path | None = None,
) -> list[Comparison]:
    """Measures A B B A A B …; each measurement has processes of its own.

    Whole rounds are kept in `part`, if it is given, and those that stand there count.
    """
    done: list[dict[str, dict[str, float]]] = []
    if part and part.exists():
        done = json.loads(part.read_text())
    series = {is_ours: [one["ours" if is_ours else "stock"] for one in done] for is_ours in (True, False)}
    for number in range(len(done), rounds):
        order = (True, False) if number % 2 == 0 else (False, True)
        for is_ours in order:
            side = ours if is_ours else stock
            values = measured(measure, side)
            series[is_ours].append(values)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"round {number + 1} {side.label:>6}: {shown}", flush=True)
        if part:
            done.append({"ours": series[True][-1], "stock": series[False][-1]})
            part.write_text(json.dumps(done))
    return [
        Comparison(
            metric,
            [values[metric.name] for values in series[True] if metric.name in values],
            [values[metric.name] for values in series[False] if metric.name in values],
        )
        for metric in metrics
        if any(metric.name in values for values in series[True])
    ]


def alone(
    ours: Side, metrics: list[Metric], measure: Callable[[Side], dict[str, float]], rounds: int
) -> list[Comparison]:
    """Rounds of ours, where there is nothing to compare it with."""
    done = []
    for number in range(rounds):
        done.append(measure(ours))
        shown = "  ".join(f"{name} {value:.4g}" for name, value in done[-1].items())
        print(f"round {number + 1}: {shown}", flush=True)
    return [Comparison(metric, [values[metric.name] for values in done], []) for metric in metrics]
