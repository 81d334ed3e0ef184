"""The list of ids that are known to fail, each with its reason: it can only shrink."""

from __future__ import annotations

from pathlib import Path


def read(path: Path) -> dict[str, str]:
    """Reasons by id. A line is `id | reason`; empty lines and those with # are comments."""
    known: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        test, separator, reason = (part.strip() for part in line.partition("|"))
        if not separator or not reason:
            raise SystemExit(f"{path}:{number}: write `id | reason`")
        known[test] = reason
    return known


#: How the reason of an id begins that may pass or fail.
UNSTEADY = "unsteady:"


def compare(known: dict[str, str], passed: set[str], failed: set[str]) -> list[str]:
    """What stands in the way of success, as sentences."""
    complaints = [f"{test} fails and is not a known failure" for test in sorted(failed - set(known))]
    complaints += [
        f"{test} passes now: take it out of known-failures.txt"
        for test in sorted(passed & set(known))
        if not known[test].startswith(UNSTEADY)
    ]
    return complaints
