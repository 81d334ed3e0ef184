"""A stock cluster of three workers on the loopback, for the test stock_scheduler.rs.

Prints one JSON line when it is ready, then answers each line of standard input.
"""

import json
import os
import sys
import tempfile

from dask.distributed import Client, LocalCluster


def work(i, log):
    with open(log, "a") as f:
        f.write(f"{i}\n")
    return bytes([i]) * 100_000


def wait(seconds):
    import time

    time.sleep(seconds)
    return seconds


def say(value):
    print(json.dumps(value), flush=True)


def main():
    log = os.path.join(tempfile.mkdtemp(), "log")
    options = {"n_workers": 3, "threads_per_worker": 1, "processes": True}
    with (
        LocalCluster(host="127.0.0.1", dashboard_address="127.0.0.1:0", **options) as cluster,
        Client(cluster) as client,
    ):
        results = client.map(work, range(30), log=log, pure=False)
        client.gather(results)
        scheduler = cluster.scheduler
        say({"comm": scheduler.port, "http": scheduler.http_server.port})
        running = []
        for line in sys.stdin:
            command, _, argument = line.strip().partition(" ")
            if command == "run":
                running.append(client.submit(wait, 3, workers=[argument], pure=False))
                while not any(s.processing for s in scheduler.workers.values()):
                    pass
                say("running")
            elif command == "holds":
                keys = [k for k, workers in client.who_has(results).items() if list(workers) == [argument]]
                say(len(keys))
            elif command == "gather":
                client.gather(results)
                done = [future.status for future in running]
                with open(log) as f:
                    say({"computed": len(f.readlines()), "running": done})


if __name__ == "__main__":
    main()
