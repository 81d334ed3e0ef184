"""What upstream's tests want of their surroundings, with our operator: see `run.py`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
import uuid
from pathlib import Path

import dask.config
import dask_kubernetes.operator
import pytest

IMAGE = os.environ["UPSTREAM_IMAGE"]

#: Seconds until our operator answers; until a forwarded port is open; until a program that was told to end has ended.
START, FORWARD, END = 20, 10, 10

# One test leaves the image to the default, which only a registry has.
make = dask_kubernetes.operator.make_cluster_spec
make.__defaults__ = (IMAGE, *make.__defaults__[1:])

# The tests are outside the cluster: its names cannot be looked up here, and each attempt would take seconds.
dask.config.set({"kubernetes.port-forward-cluster-ip": True})


class Cluster:
    """What the tests use of pytest-kind's cluster."""

    def kubectl(self, *args: str) -> str:
        return subprocess.run(["kubectl", *args], check=True, capture_output=True, text=True).stdout

    @contextlib.contextmanager
    def port_forward(self, target: str, port: int, *args: str):
        command = ["kubectl", "port-forward", target, f":{port}", *args]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield self.forwarded(process)
            finally:
                process.terminate()

    @staticmethod
    def forwarded(process: subprocess.Popen) -> int:
        cut_off = threading.Timer(FORWARD, process.kill)
        cut_off.start()
        seen = []
        for line in process.stdout:
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                cut_off.cancel()
                return int(found[1])
            seen.append(line)
        raise RuntimeError(f"no forwarded port within {FORWARD} s: {''.join(seen)}")


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
    for file in sorted(Path(folder).glob("dask*.yaml")):
        try:
            cluster.kubectl("replace", "-f", str(file))
        except subprocess.CalledProcessError:
            cluster.kubectl("create", "-f", str(file))
        name = file.stem + "s.kubernetes.dask.org"
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{name}")


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
