"""The scheduler's HTTP port: health, metrics, and the API that operators call."""

from __future__ import annotations

import json
import operator
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from conftest import OURS
from distributed import Client, wait

from clusters import Cluster, wait_until
from clusters.process import free_port

ROUTES = "['distributed.http.scheduler.api','distributed.http.health','distributed.http.scheduler.prometheus']"


@pytest.fixture
def served(commands) -> Iterator[tuple[Cluster, str]]:
    """A cluster and the base of its HTTP addresses."""
    port = free_port("127.0.0.1")
    command = commands.scheduler.replace("--no-dashboard", f"--dashboard-address 127.0.0.1:{port}")
    # Off by default in a stock scheduler.
    routes = {"DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": ROUTES}
    with Cluster(command, commands.worker, **({} if OURS else routes)) as cluster:
        # The port of the scheduler may be open before the one of its pages.
        wait_until(lambda: listens(port))
        yield cluster, f"http://127.0.0.1:{port}"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(url: str, body: dict | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_answers_ok(served):
    assert get(f"{served[1]}/health") == (200, "ok")


def test_identity_names_the_dashboard_port(served):
    cluster, base = served
    with Client(cluster.address, timeout=30) as client:
        assert client.scheduler_info()["services"] == {"dashboard": int(base.rsplit(":", 1)[1])}


def test_metrics_have_dasks_names_and_true_values(served):
    cluster, base = served
    cluster.start_worker()
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)
        futures = client.map(operator.neg, range(5), pure=False)
        wait(futures)

        def text() -> str:
            status, body = get(f"{base}/metrics")
            assert status == 200
            return body

        wait_until(lambda: 'dask_scheduler_tasks{state="memory"} 5.0' in text().replace(" 5\n", " 5.0\n"))
        body = text()
        assert "dask_scheduler_clients 1" in body
        assert "# TYPE dask_scheduler_workers gauge" in body
        assert 'dask_scheduler_workers{state="idle"} 1' in body


def test_the_api_tells_workers_target_and_idleness(served):
    cluster, base = served
    cluster.start_worker(name="a")
    cluster.start_worker(name="b")
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(2, timeout=30)
        status, body = get(f"{base}/api/v1/get_workers")
        assert status == 200
        listed = json.loads(body)
        assert listed["num_workers"] == 2
        assert {worker["name"] for worker in listed["workers"]} == {"a", "b"}
        status, body = get(f"{base}/api/v1/adaptive_target")
        assert status == 200 and json.loads(body)["workers"] >= 0
        status, body = get(f"{base}/api/v1/check_idle")
        assert status == 200 and "idle_since" in json.loads(body)


def test_the_api_retires_workers_and_names_them(served):
    cluster, base = served
    cluster.start_worker(name="a")
    cluster.start_worker(name="b")
    with Client(cluster.address, timeout=30) as client:
        client.wait_for_workers(2, timeout=30)
        futures = client.map(bytes, [1000] * 10, pure=False)
        wait(futures)
        status, body = get(f"{base}/api/v1/retire_workers", {"n": 1})
        assert status == 200
        (retired,) = json.loads(body).values()
        assert retired["name"] in ("a", "b")
        wait_until(lambda: len(client.nthreads()) == 1)
        assert client.gather(futures) == [bytes(1000)] * 10


def test_an_unknown_path_is_not_found(served):
    assert get(f"{served[1]}/api/v1/make_coffee")[0] == 404
