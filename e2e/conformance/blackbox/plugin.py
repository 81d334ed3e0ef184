"""The hooks that pytest calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import distributed.utils_test
import pytest
from distributed.worker import Worker as RealWorker

from . import by_value, dask_tests, install, policy, records
from .now import NOW
from .pool import POOL
from .servers import WorkerProxy

install.install()

MARKERS = [
    *("ci1", "memray", "slow", "ipython", "gpu", "leaking", "workerstate", "network"),
    *("array_expr", "skip_with_pyarrow_strings", "xfail_with_pyarrow_strings"),
    *("normal_pandas", "normal"),
]


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", f"{marker}: -")
    if os.environ.get("CONF_DASK") == "1":
        dask_tests.compare_through_the_client()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = set(Path(os.environ["CONF_IDS"]).read_text().splitlines())
    dropped = [item for item in items if item.nodeid not in wanted]
    items[:] = [item for item in items if item.nodeid in wanted]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    by_value.register(distributed.utils_test)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("blackbox", "clusters"):
            by_value.register(module)
    for module in {item.module for item in items if getattr(item, "module", None)}:
        by_value.register(module)
        for name, value in list(vars(module).items()):
            if value is RealWorker:
                setattr(module, name, WorkerProxy)


def pytest_runtest_setup(item: pytest.Item) -> None:
    policy.judge(item)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    outcome = yield
    report = outcome.get_result()
    if report.when == "teardown":
        records.attach(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        records.note(report)


def pytest_sessionfinish() -> None:
    dask_tests.SHARED.close()
    POOL.close()


@pytest.fixture(autouse=True)
def _dask_on_the_cluster(request: pytest.FixtureRequest):
    if not request.node.nodeid.startswith("dask/"):
        yield
        return
    dask_tests.SHARED.open()
    NOW.clusters += 1
    before = request.session.testsfailed
    yield
    dask_tests.SHARED.give_back(failed=request.session.testsfailed != before)
