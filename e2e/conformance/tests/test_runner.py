"""The parts of the runner that decide what counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "python")]

import known_failures
from clusters.process import expand


def test_a_new_failure_and_a_new_pass_are_both_named():
    known = {"old": "no stealing", "mended": "no stealing"}
    complaints = known_failures.compare(known, passed={"mended", "fine"}, failed={"old", "new"})
    assert len(complaints) == 2
    assert complaints[0].startswith("new fails")
    assert complaints[1].startswith("mended passes")


def test_an_unsteady_id_may_do_either():
    known = {"x": "unsteady: the machine decides"}
    assert known_failures.compare(known, passed={"x"}, failed=set()) == []
    assert known_failures.compare(known, passed=set(), failed={"x"}) == []


def test_a_known_failure_needs_a_reason(tmp_path: Path):
    file = tmp_path / "known.txt"
    file.write_text("# comment\n\na::b[x y] | no spans\n")
    assert known_failures.read(file) == {"a::b[x y]": "no spans"}
    file.write_text("a::b\n")
    with pytest.raises(SystemExit, match=r"known\.txt:1"):
        known_failures.read(file)


def test_each_known_failure_is_an_id_that_is_run():
    here = Path(__file__).parents[1]
    ids = set((here / "ids.txt").read_text().splitlines())
    assert set(known_failures.read(here / "known-failures.txt")) <= ids


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("w --resources {resources} --name {name}", ["w", "--name", "a b"]),
        ("w --resources={resources} {name}", ["w", "a b"]),
        ("w 'one two' --at {host}:{port}", ["w", "one two", "--at", "::1:80"]),
    ],
)
def test_an_empty_placeholder_takes_its_option_along(template: str, words: list[str]):
    assert expand(template, resources="", name="a b", host="::1", port=80) == words
