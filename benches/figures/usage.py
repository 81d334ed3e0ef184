"""CPU time and memory of processes, ours or Python's alike, from the kernel."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import psutil


def process_cpu(pid: int) -> float:
    """CPU seconds of all threads of a process that have been, in nanosecond steps."""
    # The kernel's number of the CPU clock of another process, as clock_getcpuclockid makes it.
    return time.clock_gettime((~pid << 3) | 2)


@dataclass(frozen=True)
class Usage:
    pid: int

    def cpu(self) -> float:
        """CPU seconds of the process alone."""
        return process_cpu(self.pid)

    def cpu_below(self) -> float:
        """CPU seconds of its living descendants, and of those that it has waited for."""
        process = psutil.Process(self.pid)
        times = process.cpu_times()
        total = times.children_user + times.children_system
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                times = child.cpu_times()
                total += process_cpu(child.pid) + times.children_user + times.children_system
        return total

    def rss(self) -> int:
        """Resident bytes of the process alone."""
        return psutil.Process(self.pid).memory_info().rss

    def pss_of_all(self) -> int:
        """Bytes of it and its descendants, with shared pages divided among their users."""
        process = psutil.Process(self.pid)
        total = 0
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().pss
        return total


def settled(usage: Usage, quiet: float = 0.5, allowance: float = 0.02) -> None:
    """Waits until a process and its descendants use next to no CPU for `quiet` seconds."""
    last = usage.cpu() + usage.cpu_below()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(quiet)
        now = usage.cpu() + usage.cpu_below()
        if now - last < max(allowance, 0.05 * quiet):
            return
        last = now
