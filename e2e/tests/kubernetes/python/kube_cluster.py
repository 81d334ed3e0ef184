"""What a user does with KubeCluster, from its creation to its end. Arguments: the image of the pods, the namespace."""

import sys
import time

from dask.distributed import Client
from dask_kubernetes.operator import KubeCluster

DEADLINE = 60


def until(what, condition):
    """Wait for a condition, which is called until it is true."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > DEADLINE:
            raise TimeoutError(what)
        time.sleep(0.1)
    print(f"{what}: {time.monotonic() - started:.1f} s")


def workers(client):
    return client.scheduler_info(n_workers=-1)["workers"]


def main(image, namespace):
    started = time.monotonic()
    with KubeCluster(name="one", image=image, n_workers=2, namespace=namespace) as one:
        print(f"KubeCluster: {time.monotonic() - started:.1f} s")
        with Client(one) as client:
            until("two workers", lambda: len(workers(client)) == 2)
            assert client.submit(sum, [1, 2]).result() == 3
            one.scale(3)
            until("scaled up to three", lambda: len(workers(client)) == 3)
            one.add_worker_group(name="one-more", n_workers=1)
            until("a second group", lambda: len(workers(client)) == 4)
            one.scale(0, worker_group="one-more")
            until("the second group scaled to none", lambda: len(workers(client)) == 3)
            one.delete_worker_group("one-more")
            futures = client.map(lambda x: x + 1, range(30))
            assert client.gather(futures) == list(range(1, 31))
            one.scale(1)
            until("scaled down to one", lambda: len(workers(client)) == 1)
            assert client.gather(futures) == list(range(1, 31)), "results after scaling down"

            again = KubeCluster.from_name("one", namespace=namespace)
            assert again.scheduler_address == one.scheduler_address
            logs = one.get_logs()
            assert any("scheduler" in name for name in logs), logs.keys()

            with (
                KubeCluster(name="two", image=image, n_workers=1, namespace=namespace) as two,
                Client(two) as other,
            ):
                until("a worker of the second cluster", lambda: len(workers(other)) == 1)
                assert other.submit(len, "four").result() == 4

            one.adapt(minimum=1, maximum=3)
            slow = client.map(lambda x: time.sleep(1) or x, range(60))
            until("adapted to load", lambda: len(workers(client)) > 1)
            client.cancel(slow)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
