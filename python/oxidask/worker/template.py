"""The template of executors: an interpreter that has imported what they need, and forks one when asked.

It has one thread and no descriptors but its own, so that a fork is what a fresh interpreter would be. Where it is
not so (a ``sitecustomize`` that starts a thread), executors are started anew instead. An executor's parent is this
process: it collects how executors end and tells the Rust parent.

Each order is one byte with three descriptors: the executor's socket for tasks, its control socket, and its
standard error.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

from oxidask import boot, environment
from oxidask.wire import Channel

_ZIP = "/proc/self/fd/"
"""How the first entry of ``sys.path`` begins when this package came through a descriptor."""


def serve(channel: Channel) -> None:
    """Forks executors until the parent goes away."""
    # The parent goes on with this while we import. Orders that come meanwhile wait in the socket.
    channel.send({"op": "about", "versions": environment.versions()})
    # All that an executor imports before its first task; nothing of it starts a thread.
    from oxidask.worker import executor

    orders = channel.socket()
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    own = {orders.fileno(), woken, wake}
    # Lookups of entry points keep our zip open, and executors must share no open file.
    importlib.invalidate_caches()
    gc.collect()
    # Collections in executors leave these objects alone, so their pages stay shared.
    gc.freeze()
    while True:
        readable, _, _ = select.select([orders, woken], [], [])
        if woken in readable:
            os.read(woken, 512)
            for pid, status in _ended():
                channel.send({"op": "ended", "pid": pid, "status": status})
        if orders in readable:
            data, fds, _, _ = socket.recv_fds(orders, 1, 3, socket.MSG_CMSG_CLOEXEC)
            if not data:
                # The executors die with us.
                os._exit(0)
            pid = start(fds, own, executor.serve)
            channel.send({"op": "forked", "pid": pid})
            for fd in fds:
                os.close(fd)


def start(fds: list[int], own: set[int], service: Callable[[Channel, Channel], None]) -> int:
    """Starts an executor with these three descriptors; gives its process id."""
    template = os.getpid()
    if may_fork({*own, *fds}):
        pid = os.fork()
        if pid == 0:
            try:
                for fd in own:
                    os.close(fd)
                become(fds, template)
                service(Channel(fds[0]), Channel(fds[1]))
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
    else:
        pid = _spawn(fds, template)
    with contextlib.suppress(OSError):
        # Here too: the parent may want to kill the group before the executor has made it.
        os.setpgid(pid, pid)
    return pid


def may_fork(known: set[int]) -> bool:
    """True if a fork would share nothing: this is the only thread, and only known descriptors are open."""
    if len(os.listdir("/proc/self/task")) > 1:
        return False
    zips = {int(path[len(_ZIP) :]) for path in sys.path if path.startswith(_ZIP) and path[len(_ZIP) :].isdigit()}
    return not set(_descriptors()) - {0, 1, 2} - known - zips


def _descriptors() -> Iterator[int]:
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the one that was open for the list
        yield int(name)


def become(fds: list[int], template: int) -> None:
    """Makes a process that was forked as if it had been started: its own group, signals, output and chance."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    boot.die_with(template)
    os.dup2(fds[2], 1)
    os.dup2(fds[2], 2)
    os.close(fds[2])
    for fd in fds[:2]:
        os.set_inheritable(fd, False)
    reseed()


def reseed() -> None:
    """Gives random generators of modules that are imported a state of their own.

    ``random`` does that by itself, and ``tempfile`` and ``uuid`` look at the process id or ask the kernel.
    """
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None:
        multiprocessing.current_process().authkey = os.urandom(32)


_SPAWNED = """\
import sys
sys.path[:1]=[sys.argv[1]]
from oxidask.worker.template import spawned
spawned(*map(int,sys.argv[2:]))"""


def _spawn(fds: list[int], template: int) -> int:
    """As a fork, by a new interpreter."""
    import subprocess

    path = sys.path[0]
    zips = [int(path[len(_ZIP) :])] if path.startswith(_ZIP) else []
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", _SPAWNED, path, *map(str, fds), str(template)],
        pass_fds=[*fds, *zips],
    )
    # How it ends is collected with the others.
    process.returncode = 0
    return process.pid


def spawned(tasks: int, control: int, output: int, template: int) -> None:
    """Where an executor starts that was not forked."""
    become([tasks, control, output], template)
    from oxidask.worker import executor

    executor.serve(Channel(tasks), Channel(control))


def _ended() -> Iterator[tuple[int, int]]:
    """Process ids and wait statuses of executors that have ended; what they have started is killed."""
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if info is None:
            return
        # Before its number can be given to another group.
        with contextlib.suppress(OSError):
            os.killpg(info.si_pid, signal.SIGKILL)
        yield os.waitpid(info.si_pid, 0)
