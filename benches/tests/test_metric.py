"""How two series become a ratio, an interval and a verdict."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "e2e" / "python")]

from figures.metric import Comparison, Metric, at_most, times_better
from figures.paired import compare
from figures.side import Side
from figures.usage import process_cpu


def test_equal_series_have_ratio_one_within_the_interval():
    series = [3.0, 4.0, 5.0, 4.0, 4.5]
    comparison = Comparison(Metric("x", "ms"), series, series)
    low, high = comparison.interval()
    assert comparison.ratio == 1
    assert low <= 1 <= high


def test_targets_are_judged_by_medians():
    lower = Metric("cpu", "µs", **at_most(6, "µs"))
    assert Comparison(lower, [5, 6, 100], [200, 200, 200]).verdict == "reached"
    assert Comparison(lower, [7, 7, 1], [200, 200, 200]).verdict == "missed"
    higher = Metric("rate", "1/s", **times_better(3, higher_is_better=True))
    assert Comparison(higher, [901], [300]).verdict == "reached"
    assert Comparison(higher, [899], [300]).verdict == "missed"


def test_rounds_alternate_in_the_order_abba():
    seen: list[str] = []

    def measure(side: Side) -> dict[str, float]:
        seen.append(side.label)
        return {"x": 1.0}

    compare(Side("a", "", ""), Side("b", "", ""), [Metric("x", "")], measure, rounds=4)
    assert seen == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_the_cpu_of_another_process_is_read():
    import os
    import subprocess

    with subprocess.Popen(["sleep", "30"]) as other:
        assert 0 <= process_cpu(other.pid) < 1
        other.kill()
    assert process_cpu(os.getpid()) == pytest.approx(__import__("time").process_time(), abs=0.05)
