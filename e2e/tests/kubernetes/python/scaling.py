"""Scales a cluster up and down at random while tasks run, and checks that no finished task is computed again.

Arguments: image of the pods, namespace, number of operations, seed.
"""

import collections
import random
import sys
import time

from dask.distributed import Client, get_worker, wait
from dask_kubernetes.operator import KubeCluster
from kr8s.objects import new_class

MOST = 6
DEADLINE = 120
PINNED = 60


def record(number, seconds):
    """Take some time, and tell everybody that this was computed."""
    time.sleep(seconds)
    get_worker().log_event("finished", number)
    return number


def counts(client):
    """How often each number was computed."""
    return collections.Counter(number for _, number in client.get_events("finished"))


def until(what, condition):
    started = time.monotonic()
    while not (seen := condition())[0]:
        if time.monotonic() - started > DEADLINE:
            raise TimeoutError(f"{what}: {seen[1]}")
        time.sleep(0.1)
    return time.monotonic() - started


def connected(client, wanted):
    present = len(client.scheduler_info(n_workers=-1)["workers"])
    return present == wanted, present


def resource(kind, name, namespace):
    return new_class(kind, "kubernetes.dask.org/v1", asyncio=False).get(name, namespace=namespace)


def scale(cluster, namespace, size, choose):
    """Ask for `size` workers in one of the ways that users have; returns which."""
    whole = resource("DaskCluster", cluster.name, namespace)
    ways = ["KubeCluster.scale", "group"]
    if whole.spec.worker.replicas != size:
        # A cluster hands its number on when it changes.
        ways.append("cluster")
    way = choose.choice(ways)
    if way == "KubeCluster.scale":
        cluster.scale(size)
    else:
        of = whole if way == "cluster" else resource("DaskWorkerGroup", f"{cluster.name}-default", namespace)
        of.patch({"spec": {"worker": {"replicas": size}}})
    return way


def main(image, namespace, operations, seed):
    choose = random.Random(int(seed))
    with (
        KubeCluster(name="scaled", image=image, n_workers=MOST, namespace=namespace, quiet=True) as cluster,
        Client(cluster) as client,
    ):
        until("all workers", lambda: connected(client, MOST))
        futures = client.map(record, range(PINNED), seconds=0.02, pure=False)
        wait(futures, timeout=DEADLINE)
        for operation in range(int(operations)):
            more = client.map(record, range(len(futures), len(futures) + 20), seconds=0.2, pure=False)
            futures += more
            size = choose.randint(1, MOST)
            way = scale(cluster, namespace, size, choose)
            seconds = until(f"{size} workers by {way}", lambda size=size: connected(client, size))
            print(f"operation {operation}: {size} workers by {way} after {seconds:.1f} s")
        assert client.gather(futures) == list(range(len(futures)))
        until("all events", lambda: (len(counts(client)) == len(futures), len(counts(client))))
        again = {number: count for number, count in counts(client).items() if count != 1}
        assert not again, f"computed more than once: {again}"
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
