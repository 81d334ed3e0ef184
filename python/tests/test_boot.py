from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from oxidask import boot

PACKAGE = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2026.8.0", (2026, 8)), ("2025.12.1+3.gabc", (2025, 12)), ("unknown", (0, 0)), ("0+untagged", (0, 0))],
)
def test_versions_are_read_by_year_and_month(version, expected):
    assert boot.year_and_month(version) == expected


def test_versions_outside_the_range_are_refused_unless_allowed(monkeypatch):
    import dask

    assert boot.check()["dask"] == dask.__version__
    monkeypatch.setattr(dask, "__version__", "2024.2.0")
    with pytest.raises(boot.Refusal, match=r"dask 2024.2.0 is outside 2025.4 to 2026.8") as refusal:
        boot.check()
    assert (refusal.value.kind, refusal.value.module) == ("version", "dask")
    monkeypatch.setenv(boot.ALLOW_ANY_VERSION, "1")
    boot.check()


def test_missing_module_is_named():
    code = "import sys; sys.path.insert(0, sys.argv[1]); from oxidask import boot; boot.check()"
    out = subprocess.run([sys.executable, "-S", "-E", "-c", code, PACKAGE], capture_output=True, text=True)
    assert "Refusal: cannot import msgpack" in out.stderr


def test_light_look_finds_the_versions_that_imports_tell():
    import cloudpickle
    import dask
    import distributed

    found = boot.check(light=True)
    for module in (cloudpickle, dask, distributed):
        assert found[module.__name__] == module.__version__


def test_light_look_refuses_what_is_not_installed(monkeypatch):
    from oxidask import environment

    monkeypatch.setattr(environment, "installed", lambda name: None)
    with pytest.raises(boot.Refusal, match="distributed is not installed") as refusal:
        boot.check(light=True)
    assert (refusal.value.kind, refusal.value.module) == ("module", "distributed")


def test_unknown_role_is_refused():
    with pytest.raises(boot.Refusal, match="unknown role 'x'"):
        boot.load("x")


def test_memory_limit_makes_allocations_fail():
    code = """
import sys; sys.path.insert(0, sys.argv[1])
from oxidask import boot
boot.limit_memory(200 << 20)
try:
    bytearray(400 << 20)
except MemoryError:
    print("MemoryError")
"""
    out = subprocess.run([sys.executable, "-c", code, PACKAGE], capture_output=True, text=True)
    assert out.stdout == "MemoryError\n", out.stderr
