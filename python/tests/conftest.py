"""Nothing of Dask is to leave this process: no cluster, no configuration of the user's."""

from __future__ import annotations

import dask
import pytest


@pytest.fixture(autouse=True)
def _plain_configuration():
    with dask.config.set({"distributed.admin.max-error-length": 10_000}):
        yield
