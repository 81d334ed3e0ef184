"""Schedulers and workers as processes of any command, for tests and figures.

They die with the process that started them, whatever happens to it.
"""

from .cluster import Cluster, StartFailure, wait_until
from .process import Process

__all__ = ["Cluster", "Process", "StartFailure", "wait_until"]
