"""Single processes made from a command template."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import IO

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

#: The one thread that forks. The kernel's parent-death signal is tied to the thread that forked,
#: so it must live as long as this process does.
_forks = ThreadPoolExecutor(1, thread_name_prefix="fork")


def spawn(argv: list[str], env: dict, log: IO) -> subprocess.Popen:
    """Starts a process that leads a session of its own and is killed when we die."""
    start = _forks.submit(
        subprocess.Popen,
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    return start.result()


def expand(template: str, **values: object) -> list[str]:
    """Splits like a shell, then fills the placeholders.

    An option whose value is an empty placeholder is left out, written as
    `--resources {resources}` or as `--resources={resources}`.
    """
    words: list[str] = []
    for word in shlex.split(template):
        filled = word.format(**values)
        empty = word.startswith("{") and word.endswith("}") and not filled
        if empty and words and words[-1].startswith("-"):
            words.pop()
        elif not empty and not (word.startswith("--") and "={" in word and filled.endswith("=")):
            words.append(filled)
    return words


def free_port(host: str) -> int:
    with socket.socket() as bound:
        bound.bind((host, 0))
        return bound.getsockname()[1]


class Process:
    """A started process; for tests, the part of `multiprocessing.Process` that they use."""

    def __init__(self, argv: list[str], env: dict, folder: str, name: str):
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "wb") as log:
            self.popen = spawn(argv, env, log)
        self.pid = self.popen.pid

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def exitcode(self) -> int | None:
        return self.popen.poll()

    def terminate(self) -> None:
        if self.is_alive():
            self.popen.terminate()

    def kill(self) -> None:
        # Its group is ours alone, since it was started as the leader of a session.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def join(self, timeout: float | None = None) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout)

    def output(self, characters: int) -> str:
        """The end of what it wrote."""
        try:
            with open(self.log, errors="replace") as log:
                return log.read()[-characters:]
        except OSError:
            return ""
