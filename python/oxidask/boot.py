"""Where a child interpreter starts.

The parent passes the socket as standard input and this package's zip as standard output (see ``child.rs``),
which needs no inherited descriptors beside the usual three; the launcher line has moved both away before it
calls `main`. Standard error stays the parent's log.
"""

from __future__ import annotations

import os
import signal
import sys

from oxidask.wire import Channel, pack_strings

OLDEST = (2025, 4)
NEWEST = (2026, 8)
"""Dask versions, year and month, between which the wire protocol and the graph classes are known."""

ALLOW_ANY_VERSION = "OXIDASK_ALLOW_ANY_DASK"
"""Environment variable that lets a version outside this range run at the user's own risk."""

_PR_SET_PDEATHSIG = 1


class Refusal(Exception):
    """This interpreter cannot do the work; `kind` and `module` let the parent say what is missing."""

    def __init__(self, kind: str, module: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.module = module


def main(fd: int, role: str, parent: int, memory_limit: int) -> None:
    """Runs the service `role` on the socket `fd` until the parent closes it.

    `memory_limit`: bytes of private writable memory, 0 for no limit.
    """
    die_with(parent)
    channel = Channel(fd)
    try:
        if memory_limit:
            limit_memory(memory_limit)
        versions = check(light=role == "template")
        service = load(role)
    except Refusal as refusal:
        say_refusal(channel, refusal)
        sys.exit(3)
    channel.send({"op": "hello", "executable": sys.executable, "pid": os.getpid(), "versions": versions})
    service(channel)


def load(role: str):
    """The function that serves a role; imports here are what makes start-up slow."""
    if role == "graph":
        from oxidask.scheduler.graph import serve
    elif role == "aside":
        from oxidask.scheduler.aside import serve
    elif role == "template":
        from oxidask.worker.template import serve
    else:
        raise Refusal("role", role, f"unknown role {role!r}")
    return serve


def check(light: bool = False) -> dict[str, str]:
    """Versions of the packages that matter, or a `Refusal` that names what is missing or wrong.

    `light` looks packages up without importing them, so that the parent knows at once whom it has started. What is
    broken shows when it is used.
    """
    versions = {"python": ".".join(map(str, sys.version_info))}
    for name in ("msgpack", "cloudpickle", "dask", "distributed"):
        if light and name != "msgpack":
            from oxidask.environment import installed

            version = installed(name)
            if version is not None:
                versions[name] = version
                continue
            if name == "distributed":
                # Importing it to find out would take a second and 60 MB.
                raise Refusal("module", name, f"{name} is not installed")
        try:
            module = __import__(name)
        except ImportError as error:
            missing = getattr(error, "name", None) or name
            raise Refusal("module", missing, f"cannot import {name}: {error}") from error
        version = getattr(module, "__version__", None) or ".".join(map(str, getattr(module, "version", ())))
        versions[name] = version
    for name in ("dask", "distributed"):
        found = year_and_month(versions[name])
        if not OLDEST <= found <= NEWEST and not os.environ.get(ALLOW_ANY_VERSION):
            raise Refusal(
                "version",
                name,
                f"{name} {versions[name]} is outside {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
                f" (set {ALLOW_ANY_VERSION}=1 to try it all the same)",
            )
    return versions


def year_and_month(version: str) -> tuple[int, int]:
    """``"2026.8.0"`` as ``(2026, 8)``; zeros for what is not of that form, as an untagged checkout."""
    parts = version.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        return 0, 0


def die_with(parent: int) -> None:
    """Has the kernel kill this process when the thread that started it ends.

    Without it a child that is stuck in native code would outlive its parent, since it cannot see the socket
    close. Where prctl cannot be reached, the closed socket has to do.
    """
    try:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        return
    if os.getppid() != parent:
        # The parent died before the request took effect.
        sys.exit(0)


def limit_memory(limit: int) -> None:
    """Makes allocations past `limit` bytes raise MemoryError, and offers this process to the OOM killer first."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        pass


def say_refusal(channel: Channel, refusal: Refusal) -> None:
    """Tells the parent why, with nothing beside the standard library."""
    channel.write_packed(
        pack_strings(
            {
                "op": "refuse",
                "kind": refusal.kind,
                "module": refusal.module,
                "text": str(refusal),
                "executable": sys.executable or "python",
            }
        )
    )
    channel.flush()
