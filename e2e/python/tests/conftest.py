"""Clusters for tests: our programs where the environment names them, stock otherwise.

OXIDASK_SCHEDULER and OXIDASK_WORKER are paths of programs, set by `cargo xtask test`. With OXIDASK_TLS all
connections of all processes are encrypted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client

sys.path.insert(0, str(Path(__file__).parent.parent))

from clusters import Cluster, certificates, stock

OURS = os.environ.get("OXIDASK_SCHEDULER")
OUR_WORKER = os.environ.get("OXIDASK_WORKER")
SCHEME = "tls" if os.environ.get("OXIDASK_TLS") else "tcp"


@pytest.fixture(scope="session")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With OXIDASK_TLS: this process, and those that it starts, show certificates of one authority."""
    if SCHEME == "tls":
        folder = tmp_path_factory.mktemp("certificates")
        certificates.make_pair(folder, "member", certificates.make_pair(folder, "ca"))
        os.environ.update(certificates.settings(folder))
        dask.config.refresh()


@pytest.fixture(scope="session")
def commands(encrypted: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stock.Template]:
    """Commands of a scheduler and a worker without a nanny."""
    with stock.template(tmp_path_factory.mktemp("stock")) as template:
        scheduler, worker = template.scheduler, template.worker
        if OURS:
            scheduler = f"{OURS} --host {{host}} --port {{port}} --no-dashboard"
        if OUR_WORKER:
            worker = (
                f"{OUR_WORKER} {{scheduler}} --no-nanny --host {{host}} --nthreads {{nthreads}} "
                "--name {name} --no-dashboard --resources {resources} --local-directory {folder}"
            )
        if SCHEME == "tls":
            scheduler += " --protocol tls"
        yield stock.Template(scheduler, worker)


@pytest.fixture
def cluster(commands: stock.Template) -> Iterator[Cluster]:
    """A scheduler of the test's own, without workers."""
    with Cluster(commands.scheduler, commands.worker, scheme=SCHEME) as started:
        yield started


@pytest.fixture(scope="session")
def shared(commands: stock.Template) -> Iterator[Cluster]:
    """A cluster of two workers with one thread each, for tests that leave nothing behind."""
    with Cluster(commands.scheduler, commands.worker, scheme=SCHEME) as started:
        started.start_worker(name="a")
        started.start_worker(name="b")
        yield started


@pytest.fixture
def client(shared: Cluster) -> Iterator[Client]:
    """A client of the shared cluster, with both workers there."""
    with Client(shared.address, timeout=30) as connected:
        connected.wait_for_workers(2, timeout=30)
        yield connected


@pytest.fixture
def own(cluster: Cluster) -> Iterator[Client]:
    """A client of a cluster of the test's own, with two workers."""
    cluster.start_worker(name="a")
    cluster.start_worker(name="b")
    with Client(cluster.address, timeout=30) as connected:
        connected.wait_for_workers(2, timeout=30)
        yield connected


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """The output of a failed test's processes stands below its traceback."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for name in ("cluster", "shared"):
            started = getattr(item, "funcargs", {}).get(name)
            if started is not None:
                report.sections.append((f"processes of {name}", started.logs()))
