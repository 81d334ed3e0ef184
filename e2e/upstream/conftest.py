"""What upstream's tests want of their surroundings, with our operator: see `run.py`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import dask.config
import dask_kubernetes.operator
import pytest

IMAGE = os.environ["UPSTREAM_IMAGE"]

#: Seconds until our operator answers, until there is something to forward to, until a program ends that was told to.
START, FORWARD, END = 20, 40, 10

# One test leaves the image to the default, which only a registry has.
make = dask_kubernetes.operator.make_cluster_spec
make.__defaults__ = (IMAGE, *make.__defaults__[1:])

#: It compares what two clients know of one scheduler, which differs for ever when a worker comes between them. The
#: ten seconds for which KubeCluster looks up a name that only pods can look up keep that from happening.
SLOW = "test_cluster_from_name"


class Cluster:
    """What the tests use of pytest-kind's cluster."""

    def kubectl(self, *args: str) -> str:
        return subprocess.run(["kubectl", *args], check=True, capture_output=True, text=True).stdout

    @contextlib.contextmanager
    def port_forward(self, target: str, port: int, *args: str):
        """Forwards to a pod as soon as it runs and a scheduler in it listens: before, connections are closed at once,
        which Dask's client takes for an end and not for a reason to try again."""
        deadline = time.monotonic() + FORWARD
        while True:
            command = ["kubectl", "port-forward", target, f":{port}", *args]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
                try:
                    local, said = forwarded(process)
                    if local and greets(local):
                        yield local
                        return
                finally:
                    process.terminate()
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing to forward to within {FORWARD} s: {said}")
            time.sleep(0.2)


def forwarded(process: subprocess.Popen) -> tuple[int | None, str]:
    """The local port, or what kubectl said before it ended without one."""
    seen = ""
    for line in process.stdout:
        if found := re.search(r"127\.0\.0\.1:(\d+)", line):
            return int(found[1]), line
        seen += line
    return None, seen


def greets(port: int) -> bool:
    """Whether a Dask server is behind the port: it speaks first."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return bool(connection.recv(1))
    except OSError:
        return False


class Runner:
    """Our operator for one namespace, as kopf's runner runs upstream's."""

    exit_code = None
    exception = None
    output = ""

    def __init__(self, namespace: str):
        self.namespace = namespace

    def __enter__(self) -> Runner:
        port = free_port()
        health = f"http://127.0.0.1:{port}/healthz"
        command = [os.environ["UPSTREAM_OPERATOR"], "--verbose", "--namespace", self.namespace, "--liveness", health]
        self.log = tempfile.TemporaryFile("w+")
        environment = {**os.environ, **allocation()}
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=environment)
        deadline = time.monotonic() + START
        while not answers(health):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"the operator does not answer: {self.output}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self.process.wait(END)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            self.exit_code, self.exception = self.process.wait(), error
        self.log.seek(0)
        self.output = self.log.read()
        self.log.close()
        print(self.output)


def allocation() -> dict[str, str]:
    """Settings that a test makes within its own process, where upstream's operator runs too."""
    settings = dask.config.get("kubernetes.controller.worker-allocation", {})
    prefix = "DASK_KUBERNETES__CONTROLLER__WORKER_ALLOCATION__"
    words = {name.replace("-", "_").upper(): value for name, value in settings.items() if value}
    return {prefix + name: str(value) for name, value in words.items()}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="session")
def k8s_cluster() -> Cluster:
    return Cluster()


@pytest.fixture(autouse=True)
def no_names_of_the_cluster(request):
    """The tests are outside the cluster, whose names cannot be looked up here: KubeCluster need not try for long."""
    with dask.config.set({"kubernetes.port-forward-cluster-ip": request.node.name != SLOW}):
        yield


@pytest.fixture(scope="session")
def docker_image() -> str:
    return IMAGE


@pytest.fixture(scope="session", autouse=True)
def customresources(k8s_cluster: Cluster):
    replace(k8s_cluster, os.environ["UPSTREAM_CRDS"])
    yield
    replace(k8s_cluster, os.environ["UPSTREAM_CRDS_AFTER"])


def replace(cluster: Cluster, folder: str) -> None:
    """Lays these CRDs over those that are there, whole: what they do not have must not stay."""
    files = sorted(Path(folder).glob("dask*.yaml"))
    assert len(files) == 4, f"not the four resource types in {folder}: {files}"
    for file in files:
        try:
            cluster.kubectl("replace", "-f", str(file))
        except subprocess.CalledProcessError:
            cluster.kubectl("create", "-f", str(file))
        served(cluster, file.stem + "s.kubernetes.dask.org")


def served(cluster: Cluster, resource: str) -> None:
    """Waits until objects of a type can be listed, which is a moment after it was made."""
    deadline = time.monotonic() + START
    while True:
        try:
            cluster.kubectl("get", resource, "--namespace", "default")
            return
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture(autouse=True)
def namespace(k8s_cluster: Cluster):
    name = "upstream-" + uuid.uuid4().hex[:10]
    k8s_cluster.kubectl("create", "namespace", name)
    yield name
    k8s_cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture()
def kopf_runner(k8s_cluster: Cluster, namespace: str) -> Runner:
    return Runner(namespace)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
