"""Puts the substitutes in place, before any test module is imported."""

from __future__ import annotations

import contextlib
import functools
import os

import distributed
import distributed.core
import distributed.utils_test as utils_test
from distributed import Client

from . import by_value, substitutes
from .now import NOW, NotBlackBox


@contextlib.contextmanager
def clean(**_: object):
    """In place of the leak checks of servers in this process: there are none."""
    yield


class ModuleSlot:
    """Helpers travel by value, so `varying` cannot look up its own module on a worker."""

    def __init__(self, modname: str, slotname: str):
        pass

    def get(self) -> dict:
        import collections
        import sys

        return sys.__dict__.setdefault("_conformance_varying", collections.defaultdict(int))


def forbid(owner: object, name: str, why: str) -> None:
    @functools.wraps(getattr(owner, name))
    def refuse(*_: object, **__: object):
        raise NotBlackBox(why)

    setattr(owner, name, refuse)


def install() -> None:
    utils_test.gen_cluster = substitutes.gen_cluster
    utils_test.gen_tls_cluster = lambda **options: substitutes.gen_cluster(security=True, **options)
    utils_test.cluster = substitutes.cluster
    utils_test.wait_for_state = substitutes.wait_for_state
    utils_test.clean = clean
    utils_test._ModuleSlot = ModuleSlot
    utils_test.get_cert = lambda name: os.path.join(os.getcwd(), "distributed", "tests", name)
    forbid(utils_test, "popen", "starts stock processes itself")
    forbid(utils_test, "tls_cluster_context", "TLS cluster")
    forbid(distributed.core.Server, "__init__", "in-process server")
    forbid(Client, "run_on_scheduler", "Client.run_on_scheduler")
    forbid(Client, "dump_cluster_state", "Client.dump_cluster_state")
    watch_clients()
    by_value.install()


def watch_clients() -> None:
    """Counts graphs, and refuses plugins that would run in the scheduler."""
    register, to_futures = Client.register_plugin, Client._graph_to_futures

    def register_plugin(self: Client, plugin: object, *positional: object, **named: object):
        if not isinstance(plugin, distributed.WorkerPlugin):
            raise NotBlackBox(f"register_plugin({type(plugin).__name__})")
        return register(self, plugin, *positional, **named)

    def graph_to_futures(self: Client, *positional: object, **named: object):
        NOW.graphs += 1
        return to_futures(self, *positional, **named)

    Client.register_plugin = register_plugin
    Client._graph_to_futures = graph_to_futures
