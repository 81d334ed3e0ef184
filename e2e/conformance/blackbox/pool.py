"""Clusters that wait for another test that asks for the same."""

from __future__ import annotations

import os

from .cluster import Cluster, Spec, StartFailure

#: Idle clusters that are kept.
KEEP = 2
#: Tests that one cluster serves.
MAX_USES = 40


class Pool:
    def __init__(self):
        self.idle: list[Cluster] = []
        self.fresh_only = os.environ.get("CONF_FRESH") == "1"
        self.started = self.failed = 0

    def get(self, spec: Spec, fresh: bool) -> Cluster:
        if not fresh and not self.fresh_only:
            for cluster in self.idle:
                if cluster.spec == spec:
                    self.idle.remove(cluster)
                    if all(process.is_alive() for process in cluster.processes):
                        cluster.uses += 1
                        return cluster
                    cluster.stop()
                    break
        if self.failed >= 3 and not self.started:
            raise StartFailure("no cluster has ever started; not trying again")
        try:
            cluster = Cluster(spec)
        except Exception:
            self.failed += 1
            raise
        self.started += 1
        return cluster

    def put(self, cluster: Cluster, reusable: bool) -> None:
        if reusable and not self.fresh_only and cluster.uses < MAX_USES and cluster.is_clean():
            self.idle.append(cluster)
            while len(self.idle) > KEEP:
                self.idle.pop(0).stop()
        else:
            cluster.stop()

    def close(self) -> None:
        while self.idle:
            self.idle.pop().stop()


POOL = Pool()
