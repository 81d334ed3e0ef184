"""Which tests may share a cluster, and which look inside a process, told from their source."""

from __future__ import annotations

import inspect
import re

import pytest

from .now import NOW, NotBlackBox

#: What may outlive a test on its cluster, which then is not used again.
DIRTY = re.compile(
    r"Variable|Queue|Lock|Event\(|Semaphore|publish|dataset|close\(|kill|terminate|retire|register"
    r"|restart|upload_file|_exit|lugin|Worker\(|metadata|sleep\(\s*[1-9]|sleep, *[1-9]"
    r"|delay=\s*[1-9]|environ|log_event|subscribe|\.run\(|get_worker|ctor|replicate|worker_client"
    r"|secede|import|block|fail|raise "
)

#: Tests of scheduling decisions or of names: never on a used cluster.
FRESH_FILE = re.compile(
    r"test_(steal|priorities|resources|scheduler|spans|computations|failed_workers|stress"
    r"|variable|queues|locks|multi_locks|events|semaphore|publish|event_logging|reschedule)\.py"
)
FRESH_SOURCE = re.compile(r"task_stream|get_events|story|stories|profile|performance_report|computation")

#: Reading a live Worker or Scheduler in code that runs in its process, or state that only
#: workers of one process share.
INSIDE = re.compile(
    r"dask_scheduler|dask_worker\.(?!address\b|name\b|id\b)"
    r"|get_worker\(\)\.(?!address\b|name\b|id\b)"
    r"|worker\.(state|data|plugins|handlers|batched_stream)\b|monkeypatch|mock\b|_instances"
    r"|\bvarying|map_varying"
)


def source(item: pytest.Item) -> str:
    try:
        return inspect.getsource(inspect.unwrap(item.function))
    except (AttributeError, OSError, TypeError):
        return ""


def judge(item: pytest.Item) -> None:
    """Sets what is known of a test before it runs.

    Raises `NotBlackBox` for one of distributed's that looks inside a process.
    """
    NOW.reset()
    text = source(item)
    NOW.fresh = bool(FRESH_FILE.search(item.nodeid) or FRESH_SOURCE.search(text))
    NOW.dirty = NOW.fresh or bool(DIRTY.search(text))
    inside = INSIDE.search(text)
    if inside and item.nodeid.startswith("distributed/"):
        raise NotBlackBox(f"source mentions {inside.group(0)}")
