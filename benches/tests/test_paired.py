from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "e2e" / "python")]

from figures import paired
from figures.side import Side


def test_measurement_that_hangs_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "LIMIT", 0.1)
    calls = []

    def hangs_once(side: Side) -> dict[str, float]:
        calls.append(side)
        if len(calls) == 1:
            time.sleep(60)
        return {"a": 1.0}

    assert paired.measured(hangs_once, Side.stock()) == {"a": 1.0}
    assert len(calls) == 2


def test_measurement_that_always_hangs_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "LIMIT", 0.05)
    with pytest.raises(TimeoutError, match="has not ended"):
        paired.measured(lambda side: time.sleep(60) or {}, Side.stock())
