"""Nodes whose kubelet is kwok: their pods are objects only, and run at once."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .api import Api, until

#: What a node of kwok's takes: as many pods as there are addresses in its part of the network.
PODS_PER_NODE = 250

LABEL = "oxidask.io/fake"

STAGES = ["node/fast", "node/heartbeat-with-lease", "pod/fast"]


@contextlib.contextmanager
def fake_nodes(api: Api, program: str, module: str, count: int) -> Iterator[None]:
    names = [f"fake-{number}" for number in range(count)]
    stages = [file for stage in STAGES for file in sorted((Path(module) / "kustomize/stage" / stage).glob("*.yaml"))]
    stages = [file for file in stages if file.name != "kustomization.yaml"]
    command = [program, "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"]
    command += [f"--config={file}" for file in stages]
    log = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            for name in names:
                api.delete(f"/api/v1/nodes/{name}")
                api.create("/api/v1/nodes", node(name))
            for name in names:
                until(f"node {name} is ready", lambda name=name: is_ready(api, name), 60)
            yield
        finally:
            for name in names:
                with contextlib.suppress(Exception):
                    api.delete(f"/api/v1/nodes/{name}")
            process.terminate()


def node(name: str) -> dict:
    size = {"cpu": "1000", "memory": "1Ti", "pods": str(PODS_PER_NODE)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {LABEL: "true", "kubernetes.io/hostname": name},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        # Only those pods come here that ask for it.
        "spec": {"taints": [{"key": LABEL, "effect": "NoSchedule"}]},
        "status": {"allocatable": size, "capacity": size},
    }


def is_ready(api: Api, name: str) -> bool:
    status = api.send("GET", f"/api/v1/nodes/{name}").json().get("status", {})
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
