"""Where an executor starts: puts the parts together and waits for the parent to close its sockets.

Imported by the template before it forks, so nothing may be done at import that two processes must not share.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from typing import Any

from oxidask.wire import Channel
from oxidask.worker.control import Control
from oxidask.worker.facade import attach
from oxidask.worker.store import Store
from oxidask.worker.tasks import Pool, Runner


def serve(tasks: Channel, second: Channel) -> None:
    """Runs tasks until the parent goes away. `tasks` brings the settings first, then tasks; `second` is for control."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    message = tasks.read()
    if message is None:
        return
    settings, parts = message
    store = Store()
    control = Control(second, store)
    runner = Runner(tasks, store, settings["parent"])
    runner.return_segments = control.return_segments
    pool = Pool(runner, settings["threads"], f"{settings['name']}-Dask-Default-Threads")
    configure(settings)
    attach(settings, parts, runner, control, store)
    pool.start()
    try:
        control.run()
    finally:
        sys.stderr.flush()
        os._exit(0)


def configure(settings: dict[str, Any]) -> None:
    """Logging to standard error, which the parent passes on, and the folder where uploaded modules are found."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(name)s - %(levelname)s - %(message)s")
    folder = settings["local_directory"]
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
