"""What is measured: many clusters from nothing, at rest, a restart, their end; and one cluster that grows."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from .api import Api, until
from .fake_nodes import LABEL
from .side import Side

GROUP = "/apis/kubernetes.dask.org/v1"

#: Seconds over which writes at rest are counted.
REST = 30


def many(api: Api, side: Side, clusters: int, workers: int, deadline: float) -> dict[str, float]:
    """So many clusters of so many workers at once."""
    figures: dict[str, float] = {}
    deployments = clusters * (workers + 1)
    with namespace(api) as name, side.running(name) as operator:
        began, cpu = time.perf_counter(), operator.usage.cpu()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: create(api, name, f"many-{number}", workers), range(clusters)))
        figures["clusters created"] = time.perf_counter() - began
        until("all children", lambda: children(api, name) == (deployments, clusters, clusters), deadline)
        figures["all children"] = time.perf_counter() - began
        until("all pods", lambda: running(api, name) == deployments, deadline, 0.5)
        figures["all pods run"] = time.perf_counter() - began
        settle(operator)
        figures["CPU until then"] = operator.usage.cpu() - cpu
        figures["peak memory"] = operator.peak_memory() / 1e6
        if side.label == "ours":
            figures["reconcile p50"], figures["reconcile p99"] = (1e3 * q for q in operator.quantiles(0.5, 0.99))
        writes, cpu = api.writes(), operator.usage.cpu()
        time.sleep(REST)
        figures["writes a minute at rest"] = (api.writes() - writes) * 60 / REST
        figures["CPU at rest"] = (operator.usage.cpu() - cpu) / REST * 100
        began = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: api.delete(f"{path(name)}/many-{n}"), range(clusters)))
        until("all gone", lambda: children(api, name) == (0, 0, 0), deadline, 0.5)
        figures["all children gone"] = time.perf_counter() - began
    return figures


def restart(api: Api, side: Side, clusters: int, workers: int, deadline: float) -> dict[str, float]:
    """An operator that comes to clusters which are there already."""
    deployments = clusters * (workers + 1)
    with namespace(api) as name:
        with side.running(name) as operator:
            for number in range(clusters):
                create(api, name, f"many-{number}", workers)
            until("all pods", lambda: running(api, name) == deployments, deadline, 0.5)
            settle(operator)
        writes, began = api.writes(), time.perf_counter()
        with side.running(name) as operator:
            settle(operator)
            return {
                "until nothing is left to do": time.perf_counter() - began,
                "CPU until then": operator.usage.cpu(),
                "writes until then": api.writes() - writes,
            }


def growing(api: Api, side: Side, workers: int, deadline: float) -> dict[str, float]:
    """One cluster from no worker to so many."""
    with namespace(api) as name, side.running(name) as operator:
        create(api, name, "one", 0)
        until("the scheduler", lambda: running(api, name) == 1, 60)
        began, cpu = time.perf_counter(), operator.usage.cpu()
        patch = {"spec": {"worker": {"replicas": workers}}}
        api.merge(f"{GROUP}/namespaces/{name}/daskworkergroups/one-default", patch)
        until("all workers", lambda: children(api, name)[0] == workers + 1, deadline)
        created = time.perf_counter() - began
        until("all pods", lambda: running(api, name) == workers + 1, deadline, 0.5)
        settle(operator)
        return {
            "all workers created": created,
            "all workers run": time.perf_counter() - began,
            "CPU until then": operator.usage.cpu() - cpu,
            "peak memory": operator.peak_memory() / 1e6,
        }


@contextlib.contextmanager
def namespace(api: Api) -> Iterator[str]:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        yield name
    finally:
        api.delete(f"/api/v1/namespaces/{name}")


def settle(operator) -> None:
    """Waits until the operator has used next to no CPU for two seconds."""
    last = operator.usage.cpu()
    for _ in range(120):
        time.sleep(2)
        now = operator.usage.cpu()
        if now - last < 0.03:
            return
        last = now


def path(namespace: str) -> str:
    return f"{GROUP}/namespaces/{namespace}/daskclusters"


def children(api: Api, namespace: str) -> tuple[int, int, int]:
    """Deployments, Services and worker groups."""
    return (
        api.count(f"/apis/apps/v1/namespaces/{namespace}/deployments"),
        api.count(f"/api/v1/namespaces/{namespace}/services"),
        api.count(f"{GROUP}/namespaces/{namespace}/daskworkergroups"),
    )


def running(api: Api, namespace: str) -> int:
    """Pods that are on a node; kwok has them run within the second."""
    listed = api.send(
        "GET",
        f"/api/v1/namespaces/{namespace}/pods",
        params={"fieldSelector": "status.phase=Running"},
        headers={"accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"},
    ).json()
    return len(listed["items"] or [])  # of none it is null


def create(api: Api, namespace: str, name: str, workers: int) -> None:
    api.create(path(namespace), cluster(name, workers))


#: Containers of pods that kwok plays.
FAKE = {"image": "fake:1"}


def cluster(name: str, workers: int, more: dict | None = None) -> dict:
    """A DaskCluster; on fake nodes, unless its containers get `more` than a name and words."""

    def pod(container: dict) -> dict:
        if more:
            return {"containers": [{**more, **container}]}
        return {
            "nodeSelector": {LABEL: "true"},
            "tolerations": [{"key": LABEL, "operator": "Exists"}],
            "containers": [{**FAKE, **container}],
        }

    ports = [("tcp-comm", 8786), ("http-dashboard", 8787)]
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {
            "worker": {"replicas": workers, "spec": pod({"name": "worker", "args": ["dask-worker"]})},
            "scheduler": {
                "spec": pod(
                    {
                        "name": "scheduler",
                        "args": ["dask-scheduler"],
                        "ports": [{"name": name, "containerPort": port} for name, port in ports],
                    }
                ),
                "service": {
                    "type": "ClusterIP",
                    "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
                    "ports": [{"name": name, "port": port, "targetPort": name} for name, port in ports],
                },
            },
        },
    }
