"""What the parent must know about this interpreter: versions of its packages, without importing ``distributed``."""

from __future__ import annotations

import functools
import locale
import os
import re
import struct
import sys
from typing import Any

_PACKAGES = ("dask", "distributed", "msgpack", "cloudpickle", "tornado", "toolz", "numpy", "pandas", "lz4")


_INSTALLED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._]*)-([0-9][^-/]*)\.(?:dist|egg)-info")


@functools.cache
def _named_by_folders() -> dict[str, str]:
    """Versions by package, as the names of folders beside the packages tell them; the first on the path counts.

    ``importlib.metadata`` would read and parse a file for each, after a tenth of a second of imports.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue  # a zip, or nothing
        for match in filter(None, map(_INSTALLED.fullmatch, names)):
            found.setdefault(match[1].lower(), match[2])
    return found


def installed(name: str) -> str | None:
    """Version of an installed package, not imported; None if it is not installed."""
    version = _named_by_folders().get(name)
    if version is not None:
        return version
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, Any]:
    """As ``distributed.versions.get_versions``: the tables that clients compare."""
    packages: dict[str, Any] = {"python": ".".join(map(str, sys.version_info))}
    for name in _PACKAGES:
        packages[name] = installed(name)
    code = locale.getlocale()
    uname = os.uname()
    host = {
        "python": ".".join(map(str, sys.version_info)),
        "python-bits": struct.calcsize("P") * 8,
        "OS": uname.sysname,
        "OS-release": uname.release,
        "machine": uname.machine,
        # As `platform.processor`, which asks a program for it that is rarely there.
        "processor": "",
        "byteorder": sys.byteorder,
        "LC_ALL": os.environ.get("LC_ALL", "None"),
        "LANG": os.environ.get("LANG", "None"),
        "locale": ".".join(part or "None" for part in code),
    }
    return {"host": host, "packages": packages}
