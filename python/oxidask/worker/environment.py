"""What the parent must know about this interpreter: versions of its packages, without importing ``distributed``."""

from __future__ import annotations

import locale
import os
import platform
import struct
import sys
from importlib import metadata
from typing import Any

_PACKAGES = ("dask", "distributed", "msgpack", "cloudpickle", "tornado", "toolz", "numpy", "pandas", "lz4")


def installed(name: str) -> str | None:
    """Version of an installed package, not imported; None if it is not installed."""
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
    uname = platform.uname()
    host = {
        "python": ".".join(map(str, sys.version_info)),
        "python-bits": struct.calcsize("P") * 8,
        "OS": uname.system,
        "OS-release": uname.release,
        "machine": uname.machine,
        "processor": uname.processor or "",
        "byteorder": sys.byteorder,
        "LC_ALL": os.environ.get("LC_ALL", "None"),
        "LANG": os.environ.get("LANG", "None"),
        "locale": ".".join(part or "None" for part in code),
    }
    return {"host": host, "packages": packages}
