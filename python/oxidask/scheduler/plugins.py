"""Scheduler plugins in a graph helper: those that bring modules which graphs are pickled against."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from typing import Any

from distributed.diagnostics.plugin import SchedulerUploadFile
from distributed.protocol import pickle
from distributed.utils import import_file

logger = logging.getLogger("oxidask.plugins")


class ModuleSite:
    """What `Client.upload_file`'s plugin sees as the scheduler: a folder to write to and import from.

    Other plugins watch or change the scheduler's state; they are started once, beside the scheduler, not here.
    """

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory | None = None

    @property
    def local_directory(self) -> str:
        """A folder that is removed when this process ends in the ordinary way."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="oxidask-graph-")
        return self._directory.name

    def start(self, name: str, pickled: bytes) -> None:
        """Starts a plugin if it is of the kind that matters here. Errors are logged: they were reported once."""
        try:
            plugin = pickle.loads(pickled)
            if isinstance(plugin, SchedulerUploadFile):
                asyncio.run(plugin.start(self))
        except Exception:
            logger.warning("scheduler plugin %r failed in a graph helper", name, exc_info=True)

    async def upload_file(self, filename: str, data: str | bytes, load: bool = True) -> dict[str, Any]:
        """Writes a file and imports it, as ``Server.upload_file`` does."""
        write_and_import(self.local_directory, filename, data, load)
        return {"status": "OK", "nbytes": len(data)}

    def close(self) -> None:
        """Removes the folder."""
        if self._directory is not None:
            shutil.rmtree(self._directory.name, ignore_errors=True)


def write_and_import(directory: str, filename: str, data: str | bytes, load: bool) -> None:
    """Stores an uploaded file under its base name and, if asked, imports or reloads it."""
    import os

    path = os.path.join(directory, os.path.basename(filename))
    with open(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    if load:
        import_file(path)
