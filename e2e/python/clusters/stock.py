"""Stock schedulers and workers that start quickly, by forking a process that has imported them.

`python stock.py run SOCKET worker ARGS…` behaves like `dask worker ARGS…`: it lives as long as
the forked process, forwards SIGTERM and SIGINT to it, and takes it along when it is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: What a forked process need not import any more.
IMPORTED = [
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "distributed.shuffle",
    "dask.array",
    "dask.dataframe",
]


@dataclass(frozen=True)
class Template:
    """Commands of the stock processes."""

    scheduler: str
    worker: str


@contextlib.contextmanager
def template(folder: Path) -> Iterator[Template]:
    """Serves forks on a socket in `folder` until the end of the block."""
    path = folder / "stock.sock"
    server = subprocess.Popen([sys.executable, __file__, "serve", str(path)])
    try:
        deadline = time.monotonic() + 60
        while not path.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the template of the stock processes did not start")
            time.sleep(0.02)
        start = f"{sys.executable} -S -E {__file__} run {path}"
        yield Template(
            scheduler=f"{start} scheduler --host {{host}} --port {{port}} --no-dashboard",
            worker=f"{start} worker {{scheduler}} --no-nanny --host {{host}} --no-dashboard "
            "--nthreads {nthreads} --name {name} --resources {resources}",
        )
    finally:
        server.kill()
        server.wait()


def run(path: str, argv: list[str]) -> int:
    """Has a process forked, and ends as it ends."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    request = {"argv": argv, "env": dict(os.environ), "cwd": os.getcwd()}
    message = json.dumps(request).encode()
    socket.send_fds(connection, [len(message).to_bytes(8, "big")], [1, 2])
    connection.sendall(message)
    answers = connection.makefile("rb")
    pid = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    return int(answers.readline() or b"1")


def serve(path: str) -> None:
    for module in IMPORTED:
        importlib.import_module(module)

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    children: dict[socket.socket, int] = {}
    while True:
        ready, _, _ = select.select([listener, *children], [], [], 0.02)
        for source in ready:
            if source is listener:
                accept(listener, children)
            else:  # whoever asked for the process has gone
                pid = children.pop(source)
                source.close()
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        for source, pid in list(children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del children[source]
                code = os.waitstatus_to_exitcode(status) & 255
                with contextlib.suppress(OSError):
                    source.sendall(b"%d\n" % code)
                source.close()


def accept(listener: socket.socket, children: dict[socket.socket, int]) -> None:
    connection, _ = listener.accept()
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 2)
    body, size = b"", int.from_bytes(head, "big")
    while len(body) < size and (part := connection.recv(size - len(body))):
        body += part
    if not size or len(body) < size:
        connection.close()
        return
    pid = os.fork()
    if pid == 0:
        for source in [listener, connection, *children]:
            source.close()
        become(json.loads(body), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    children[connection] = pid
    with contextlib.suppress(OSError):  # gone already: noticed at the next select
        connection.sendall(b"%d\n" % pid)


def become(request: dict, descriptors: list[int]) -> None:
    """In the forked process: runs the command and never returns."""
    code: object = 1
    try:
        os.setsid()
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[1], 2)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        import tempfile

        tempfile.tempdir = None
        import dask

        dask.config.refresh()
        kind, *arguments = request["argv"]
        sys.argv = ["dask", kind, *arguments]
        from distributed.cli import dask_scheduler, dask_worker

        {"scheduler": dask_scheduler, "worker": dask_worker}[kind].main(arguments)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(run(sys.argv[2], sys.argv[3:]))
