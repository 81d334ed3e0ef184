"""Where our programs are: named by a variable, beside this environment's interpreter, or on PATH."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

_VARIABLES = {"dask-scheduler": "OXIDASK_SCHEDULER", "dask-worker": "OXIDASK_WORKER", "oxidask": "OXIDASK_CLI"}


def program(name: str) -> str:
    """Path of one of our programs.

    Scripts of distributed have the same names, so only an executable in machine code counts.
    Raises `FileNotFoundError` with the places that were looked at.
    """
    named = os.environ.get(_VARIABLES[name])
    if named:
        return named
    folders = [sysconfig.get_path("scripts"), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    for folder in dict.fromkeys(folders):
        candidate = Path(folder) / name
        if _is_machine_code(candidate):
            return str(candidate)
    raise FileNotFoundError(
        f"oxidask's {name} is neither named by {_VARIABLES[name]} nor in any of {os.pathsep.join(folders)}: "
        "install the oxidask wheel into this environment, or set that variable"
    )


def _is_machine_code(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def scripts_first() -> dict[str, str]:
    """The environment for our programs: the interpreter that runs this is the one that they find."""
    import sys

    return {"OXIDASK_PYTHON": sys.executable, **os.environ}
