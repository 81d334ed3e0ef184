"""The few requests that a measurement sends to the API server."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
from collections.abc import Callable

import httpx
import yaml


class Api:
    """The API server that KUBECONFIG names, asked with a client certificate."""

    def __init__(self) -> None:
        with open(os.environ["KUBECONFIG"]) as file:
            config = yaml.safe_load(file)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=decoded(cluster["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
            pem.write(decoded(user["client-certificate-data"]) + decoded(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
        limits = httpx.Limits(max_connections=16)
        self.client = httpx.Client(base_url=cluster["server"], verify=context, timeout=60, limits=limits)

    def send(self, method: str, path: str, body: object = None, **more) -> httpx.Response:
        answer = self.client.request(method, path, json=body, **more)
        answer.raise_for_status()
        return answer

    def create(self, path: str, body: object) -> None:
        self.send("POST", path, body)

    def merge(self, path: str, body: object) -> None:
        self.send("PATCH", path, body, headers={"content-type": "application/merge-patch+json"})

    def delete(self, path: str) -> None:
        answer = self.client.delete(path)
        if answer.status_code != 404:
            answer.raise_for_status()

    def count(self, path: str) -> int:
        """How many objects a list has, without reading them all."""
        listed = self.send("GET", path, params={"limit": 1}).json()
        return len(listed["items"]) + listed["metadata"].get("remainingItemCount", 0)

    def writes(self) -> float:
        """Requests so far that changed, or tried to change, something that operators write."""
        total = 0.0
        for line in self.send("GET", "/metrics").text.splitlines():
            if line.startswith("apiserver_request_total{") and is_write(line):
                total += float(line.rsplit(" ", 1)[1])
        return total


def is_write(line: str) -> bool:
    changes = any(f'verb="{verb}"' in line for verb in ["POST", "PUT", "PATCH", "DELETE", "APPLY"])
    return changes and ('group="kubernetes.dask.org"' in line or 'resource="events"' in line)


def decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def until(what: str, condition: Callable[[], object], deadline: float, period: float = 0.1) -> float:
    """Seconds until the condition holds."""
    started = time.perf_counter()
    while not (value := condition()):
        if time.perf_counter() - started > deadline:
            raise TimeoutError(f"{what}: not within {deadline} s, last seen {value!r}")
        time.sleep(period)
    return time.perf_counter() - started
