"""From submit to result of a trivial task, with the scheduler and the worker of one side."""

from __future__ import annotations

from ..metric import Metric, times_better
from ..side import Side
from .latency import latency

SENTENCE = "Submit to result of one task, scheduler and worker of one side, submits 50 ms apart, p50"

METRICS = [
    Metric("server part", "ms", **times_better(6)),
    Metric("total", "ms"),
    Metric("back to back", "ms"),
]


def measure(side: Side) -> dict[str, float]:
    return latency(side)
