"""What is known of the test that runs now."""

from __future__ import annotations

import pytest


class NotBlackBox(pytest.skip.Exception):
    """The test needs something that cannot be seen from outside the processes."""

    def __init__(self, why: object):
        NOW.internal = NOW.internal or str(why)
        super().__init__(f"not black-box: {why}")


class Now:
    """State of the running test; `reset` at its start."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        #: Why the test is not black-box, once it has shown that.
        self.internal: str | None = None
        #: Clusters that it was given.
        self.clusters = 0
        #: Graphs that its clients submitted.
        self.graphs = 0
        #: Whether it must not run on a cluster that was used before.
        self.fresh = True
        #: Whether it may leave something behind on its cluster.
        self.dirty = True


NOW = Now()
