"""One line of JSON for each test, written where pytest gathers its reports."""

from __future__ import annotations

import json
import os

import pytest

from .now import NOW

_open: dict[str, dict] = {}


def attach(report: pytest.TestReport) -> None:
    """What only the process that ran the test knows, sent along with its last report."""
    facts = {"internal": NOW.internal, "clusters": NOW.clusters, "graphs": NOW.graphs}
    report.user_properties = [("conformance", facts)]


def note(report: pytest.TestReport) -> None:
    """Adds a report of one phase; after the last one, the test's line is written.

    Outcomes: passed, failed, skipped, xfailed, xpassed, internal (not black-box), and nocluster
    (passed, but without anything that a server had to do).
    """
    empty = {"id": report.nodeid, "outcome": "passed", "seconds": 0.0, "why": ""}
    record = _open.setdefault(report.nodeid, empty)
    record["seconds"] = round(record["seconds"] + report.duration, 2)
    if report.failed and record["outcome"] != "failed":
        why = str(getattr(report, "longreprtext", ""))[-1500:]
        record.update(outcome="failed", why=why)
    elif report.skipped and record["outcome"] == "passed":
        why = report.longrepr
        record["outcome"] = "xfailed" if hasattr(report, "wasxfail") else "skipped"
        record["why"] = str(why[2] if isinstance(why, tuple) else why)[-300:]
    elif report.when == "call" and report.passed and hasattr(report, "wasxfail"):
        record["outcome"] = "xpassed"
    crashed = report.when not in ("setup", "call", "teardown")
    if report.when != "teardown" and not crashed:
        return
    facts = dict(report.user_properties).get("conformance", {})
    used = facts.get("graphs" if report.nodeid.startswith("dask/") else "clusters")
    if facts.get("internal"):
        record.update(outcome="internal", why=facts["internal"])
    elif record["outcome"] == "passed" and not used:
        record["outcome"] = "nocluster"
    with open(os.environ["CONF_RESULTS"], "a") as results:
        results.write(json.dumps(record) + "\n")
    del _open[report.nodeid]
