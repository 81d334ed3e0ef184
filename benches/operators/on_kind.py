"""What a user of KubeCluster waits for, with real pods: each operator with the images of its own project."""

from __future__ import annotations

import time

import dask
from dask.distributed import Client, wait
from dask_kubernetes.operator import KubeCluster

from . import measure
from .api import Api, until
from .side import Side

IMAGES = {"ours": "localhost/oxidask/dask:dev", "stock": "localhost/oxidask/stock:dev"}

#: Results that the workers hold when all but one of them go.
RESULTS = 40


def kube_cluster(api: Api, side: Side, workers: int, deadline: float) -> dict[str, float]:
    """From the object to the Deployment, and from `KubeCluster(…)` through its scalings."""
    image = IMAGES[side.label]
    figures: dict[str, float] = {}
    with measure.namespace(api) as name, side.running(name):
        figures["object to Deployment"] = 1e3 * deployment(api, name, image)
        # Names of the Kubernetes cluster cannot be looked up here, which KubeCluster would try for ten seconds.
        dask.config.set({"kubernetes.port-forward-cluster-ip": True})
        began = time.perf_counter()
        with KubeCluster(name="kube", namespace=name, image=image, n_workers=1, quiet=True) as cluster:
            figures["KubeCluster ready"] = time.perf_counter() - began
            with Client(cluster) as client:
                until("one worker", lambda: connected(client) == 1, deadline)
                figures[f"1 → {workers} connected"] = scaled(cluster, client, workers, deadline)
                scaled(cluster, client, 4, deadline)
                futures = client.map(lambda x: (x, time.time()), range(RESULTS), pure=False)
                wait(futures)
                before = client.gather(futures)
                figures["4 → 1"] = scaled(cluster, client, 1, deadline)
                # A result that is computed again has another time in it.
                wait(futures)
                figures["computed again"] = sum(a != b for a, b in zip(before, client.gather(futures), strict=True))
    return figures


def deployment(api: Api, namespace: str, image: str) -> float:
    """Seconds until the scheduler's Deployment is there."""
    api.create(
        measure.path(namespace), measure.cluster("first", 0, {"image": image, "imagePullPolicy": "IfNotPresent"})
    )
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/first-scheduler"
    seconds = until("the Deployment", lambda: api.client.get(path).status_code == 200, 60, 0.002)
    api.delete(f"{measure.path(namespace)}/first")
    return seconds


def scaled(cluster: KubeCluster, client: Client, size: int, deadline: float) -> float:
    began = time.perf_counter()
    cluster.scale(size)
    until(f"{size} workers", lambda: connected(client) == size, deadline, 0.05)
    return time.perf_counter() - began


def connected(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])
