"""An operator as a process, ours or the stock one, that works on one namespace."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from figures.usage import Usage

from .api import until

#: Lines of an operator's log that are shown when a measurement fails.
LAST_WORDS = 60


@dataclass(frozen=True)
class Side:
    label: str
    command: tuple[str, ...]
    #: Folder of its resource types: under ours a phase that the stock operator writes would be dropped.
    crds: Path

    @classmethod
    def ours(cls, program: str) -> Side:
        return cls("ours", (program,), Path(__file__).parents[2] / "crds")

    @classmethod
    def stock(cls) -> Side:
        package = Path(importlib.util.find_spec("dask_kubernetes").origin).parent
        crds = package / "operator/deployment/helm/dask-kubernetes-operator/crds"
        command = (sys.executable, "-m", "kopf", "run", "--module=dask_kubernetes.operator.controller")
        return cls("stock", command, crds)

    @contextlib.contextmanager
    def running(self, namespace: str) -> Iterator[Running]:
        install(self.crds)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        health = f"http://127.0.0.1:{port}/healthz"
        command = [*self.command, f"--namespace={namespace}", f"--liveness={health}"]
        with (
            tempfile.TemporaryFile("w+", errors="replace") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                until("the operator answers", lambda: answers(health), 60, 0.02)
                yield Running(Usage(process.pid), f"http://127.0.0.1:{port}/metrics")
            except BaseException:
                log.seek(0)
                print(f"the last words of the operator ({self.label}):", *deque(log, LAST_WORDS), file=sys.stderr)
                raise
            finally:
                process.terminate()


def install(folder: Path) -> None:
    """Puts the resource types of this folder in the place of those that are there, and waits until they are served.

    An operator looks once, at its start, whether a type has a status of its own.
    """
    types = [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("dask*.yaml"))]
    body = yaml.safe_dump_all(types)
    subprocess.run(["kubectl", "replace", "-f", "-"], input=body, text=True, check=True, stdout=subprocess.DEVNULL)
    wanted = {f"{one['spec']['names']['plural']}/status" for one in types if has_status(one)}

    def served() -> bool:
        listed = subprocess.check_output(["kubectl", "get", "--raw", "/apis/kubernetes.dask.org/v1"])
        return {r["name"] for r in json.loads(listed)["resources"] if r["name"].endswith("/status")} == wanted

    until(f"the resource types of {folder}", served, 60)


def has_status(resource_type: dict) -> bool:
    return "status" in resource_type["spec"]["versions"][0].get("subresources", {})


@dataclass(frozen=True)
class Running:
    usage: Usage
    metrics: str

    def peak_memory(self) -> int:
        """Most resident bytes so far."""
        with open(f"/proc/{self.usage.pid}/status") as file:
            return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) * 1024

    def quantiles(self, *wanted: float) -> list[float]:
        """Of the seconds of reconciliations, as upper ends of the histogram's buckets; none from the stock one."""
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            text = answer.read().decode()
        buckets: dict[float, float] = {}
        pattern = r'dask_operator_reconcile_duration_seconds_bucket{[^}]*le="([^"]+)"[^}]*} (\S+)'
        for end, number in re.findall(pattern, text):
            end = float(end.replace("+Inf", "inf"))
            buckets[end] = buckets.get(end, 0) + float(number)
        total = max(buckets.values(), default=0)
        return [next((end for end in sorted(buckets) if buckets[end] >= q * total), float("nan")) for q in wanted]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False
