"""Workers that answer each task at once with None: what is left is the scheduler's cost."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import pickle
import time

from distributed.core import Server, Status, connect
from distributed.protocol.serialize import to_serialize
from distributed.versions import get_versions

#: Seconds between heartbeats.
HEARTBEAT = 5

RESULT_TYPE = pickle.dumps(type(None))


def metrics() -> dict:
    """What a worker reports of itself, as of an idle one."""
    transfers = ("incoming_bytes", "incoming_count", "incoming_count_total")
    transfers += ("outgoing_bytes", "outgoing_count", "outgoing_count_total")
    return {
        "task_counts": {},
        "bandwidth": {"total": 1e8, "workers": {}, "types": {}},
        "digests_total_since_heartbeat": {},
        "managed_bytes": 0,
        "spilled_bytes": {"memory": 0, "disk": 0},
        "transfer": dict.fromkeys(transfers, 0),
        "event_loop_interval": 0.02,
        "cpu": 0.0,
        "memory": 10_000_000,
        "time": time.time(),
        "host_net_io": {"read_bps": 0.0, "write_bps": 0.0},
        "num_fds": 10,
    }


class ZeroWorker(Server):
    def __init__(self, scheduler: str, number: int):
        self.scheduler, self.number = scheduler, number
        handlers = {"get_data": self.get_data, "terminate": self.terminate}
        super().__init__(handlers=handlers, deserialize=False)

    async def get_data(self, comm, keys=(), **_: object) -> Status:
        data = {key: to_serialize(None) for key in keys}
        await comm.write({"status": "OK", "data": data})
        await comm.read()
        return Status.dont_reply

    async def terminate(self, **_: object) -> None:
        os._exit(0)

    async def serve(self) -> None:
        await self.listen("tcp://127.0.0.1:0")
        comm = await connect(self.scheduler, deserialize=False)
        await comm.write(self.registration(), serializers=["msgpack"])
        reply = await comm.read()
        if reply["status"] != "OK":
            raise RuntimeError(f"registration refused: {reply}")
        beating = asyncio.ensure_future(self.heartbeat())
        try:
            while True:
                messages = await comm.read()
                if not isinstance(messages, (list, tuple)):
                    messages = [messages]
                answers = [a for a in map(self.answer, messages) if a is not None]
                if answers:
                    await comm.write(answers)
        finally:
            beating.cancel()

    def registration(self) -> dict:
        return {
            "op": "register-worker",
            "reply": False,
            "address": self.address,
            "status": "running",
            "nthreads": 1,
            "name": f"zero-{self.number}",
            "now": time.time(),
            "resources": {},
            "memory_limit": 4 << 30,
            "local_directory": "/tmp",
            "services": {},
            "nanny": None,
            "pid": os.getpid(),
            "versions": get_versions(),
            "metrics": metrics(),
            "extra": {},
            "stimulus_id": f"worker-connect-{time.time()}",
            "server_id": self.id,
        }

    def answer(self, message: dict) -> dict | None:
        op = message.get("op")
        if op == "compute-task":
            now = time.time()
            return {
                "op": "task-finished",
                "status": "OK",
                "key": message["key"],
                "run_id": message["run_id"],
                "nbytes": 28,
                "type": RESULT_TYPE,
                "typename": "NoneType",
                "metadata": {},
                "thread": 1,
                "startstops": [{"action": "compute", "start": now, "stop": now}],
                "stimulus_id": message["stimulus_id"],
            }
        if op == "steal-request":
            return {
                "op": "steal-response",
                "key": message["key"],
                "state": None,
                "stimulus_id": message["stimulus_id"],
            }
        if op == "acquire-replicas":
            keys = list(message["who_has"])
            return {"op": "add-keys", "keys": keys, "stimulus_id": message["stimulus_id"]}
        if op == "close":
            os._exit(0)
        return None

    async def heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            with contextlib.suppress(OSError):
                await self.rpc(self.scheduler).heartbeat_worker(
                    address=self.address,
                    now=time.time(),
                    executing={},
                    extensions={},
                    metrics=metrics(),
                )


async def main(address: str, count: int) -> None:
    workers = [ZeroWorker(address, number) for number in range(count)]
    for worker in workers:
        await worker
    with contextlib.suppress(OSError):  # the scheduler has gone
        await asyncio.gather(*(worker.serve() for worker in workers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=1)
    args = parser.parse_args()
    asyncio.run(main(args.address, args.count))
