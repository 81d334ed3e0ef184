"""What upstream's operator makes of given resources.

Reads a JSON list of resources from standard input and writes a JSON list of
lists: the child objects of each. Runs the handlers of the installed
dask_kubernetes themselves, with the API replaced by a recorder.
"""

import asyncio
import json
import logging
import sys

import kopf
from dask_kubernetes.operator.controller import controller as upstream

made = []


class Recorder:
    """Stands for an object class of the API client: nothing exists, creations are noted."""

    kind = None

    def __init__(self, data, namespace=None):
        self.data = data
        self.name = data["metadata"]["name"]
        self.labels = data["metadata"].get("labels", {})
        self.replicas = data.get("spec", {}).get("worker", {}).get("replicas", 1)

    def __await__(self):
        async def itself():
            return self

        return itself().__await__()

    async def exists(self):
        return False

    async def create(self):
        made.append(self.data)


class Nothing:
    """An API that lists nothing."""

    def get(self, *args, **kwargs):
        async def empty():
            return
            yield

        return empty()


class FixedUuid:
    hex = "0123456789abcdef"


def group_class(cluster):
    class Group(Recorder):
        async def cluster(self):
            return Recorder(cluster)

    return Group


async def children(resource, cluster):
    made.clear()
    body = kopf.Body(resource)
    for name in ("Deployment", "Service", "Pod", "DaskCluster"):
        setattr(upstream, name, Recorder)
    upstream.DaskWorkerGroup = group_class(cluster)
    upstream.kr8s.asyncio.get = Nothing().get
    upstream.uuid4 = FixedUuid
    adopt = kopf.adopt
    upstream.kopf.adopt = lambda data, owner=body: adopt(data, owner=owner)
    try:
        arguments = dict(
            spec=body.spec,
            name=body.meta.name,
            namespace=body.meta.namespace,
            meta=body.meta,
            body=body,
            labels=body.meta.labels,
            patch=kopf.Patch(),
            logger=logging.getLogger("upstream"),
        )
        if resource["kind"] == "DaskCluster":
            await upstream.daskcluster_create_components(**arguments)
        elif resource["kind"] == "DaskJob":
            await upstream.daskjob_create_components(**arguments)
        else:
            await upstream.daskworkergroup_replica_update(new=1, **arguments)
    finally:
        upstream.kopf.adopt = adopt
    return list(made)


def main():
    logging.disable(logging.CRITICAL)
    work = json.load(sys.stdin)
    loop = asyncio.new_event_loop()
    out = [loop.run_until_complete(children(item["resource"], item["cluster"])) for item in work]
    json.dump(out, sys.stdout, default=dict)


main()
