"""A cluster that a script starts and another one ends, with the tutorial's signature: all arguments are strings.

``init_cluster("127.0.0.1", "2", "1")`` starts a scheduler at that address, port 8786, and two workers of one thread;
``kill_cluster("127.0.0.1")`` ends them, from the same program or any other on this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from oxidask.local.programs import program, scripts_first

_PORT = 8786
_SECONDS = 60


def init_cluster(scheduler_ip: str, n_workers: str, n_cores: str) -> str:
    """Starts the cluster, waits until all workers are there, and gives the scheduler's address.

    Raises `RuntimeError` if a cluster of this module runs at that address already, or the new one does not start.
    """
    record = _record(scheduler_ip)
    if record.exists() and _is_alive(_pid(record)):
        raise RuntimeError(f"a cluster runs at {scheduler_ip} already: kill_cluster({scheduler_ip!r}) ends it")
    command = [
        program("oxidask"),
        "up",
        "--json",
        "--host",
        scheduler_ip,
        "--port",
        str(_PORT),
        "--dashboard-port",
        "0",
    ]
    command += ["--workers", str(int(n_workers)), "--threads", str(int(n_cores))]
    # The pipe's other end stays open in the child itself, so that the cluster outlives this program.
    process = subprocess.Popen(
        [*command, "--detach"], stdout=subprocess.PIPE, env=scripts_first(), start_new_session=True, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    if not line:
        raise RuntimeError(f"the cluster did not start: {' '.join(command)} ended with {process.wait(_SECONDS)}")
    record.write_text(str(process.pid))
    _children[process.pid] = process
    return json.loads(line)["address"]


def kill_cluster(scheduler_ip: str) -> None:
    """Ends the cluster that `init_cluster` started at this address; does nothing if there is none."""
    record = _record(scheduler_ip)
    if not record.exists():
        return
    pid = _pid(record)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + _SECONDS
    while _is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    record.unlink(missing_ok=True)


_children: dict[int, subprocess.Popen[str]] = {}


def _record(scheduler_ip: str) -> Path:
    return Path(tempfile.gettempdir()) / f"oxidask-cluster-{scheduler_ip.replace(':', '_')}-{os.getuid()}.pid"


def _pid(record: Path) -> int:
    return int(record.read_text())


def _is_alive(pid: int) -> bool:
    child = _children.get(pid)
    if child is not None:
        return child.poll() is None
    with contextlib.suppress(OSError):
        return f"{program('oxidask')}".split("/")[-1] in Path(f"/proc/{pid}/cmdline").read_text()
    return False
