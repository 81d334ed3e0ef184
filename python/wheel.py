"""Packs the wheel: our Python, and our programs as its scripts. `cargo xtask wheel` builds them and runs this.

A wheel is a zip whose RECORD names each file with its hash (PEP 427, PEP 491); files under ``.data/scripts`` are put
beside the environment's interpreter, executable.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import platform
import zipfile
from pathlib import Path

PROGRAMS = ("dask-scheduler", "dask-worker", "oxidask")

LIMIT = 15_000_000
"""Largest wheel. Unit: bytes."""

METADATA = """\
Metadata-Version: 2.1
Name: oxidask
Version: {version}
Summary: Dask with a Rust scheduler and Rust workers
License: Apache-2.0
Requires-Python: >=3.10
Requires-Dist: distributed>=2025.4
Requires-Dist: cloudpickle
Requires-Dist: msgpack
Provides-Extra: experiment
Requires-Dist: pandas; extra == "experiment"
"""

WHEEL = """\
Wheel-Version: 1.0
Generator: oxidask
Root-Is-Purelib: false
Tag: {tag}
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--binaries", type=Path, required=True, help="folder with the programs")
    arguments.add_argument("--version", required=True)
    arguments.add_argument("--output", type=Path, required=True, help="folder for the wheel")
    options = arguments.parse_args()
    path = pack(options.binaries, options.version, options.output)
    size = path.stat().st_size
    print(f"{path} ({size / 1e6:.1f} MB)")
    if size > LIMIT:
        raise SystemExit(f"the wheel has {size} bytes, more than {LIMIT}")


def pack(binaries: Path, version: str, output: Path) -> Path:
    """Writes the wheel and gives its path."""
    tag = f"py3-none-linux_{platform.machine()}"
    name = f"oxidask-{version}"
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{name}-{tag}.whl"
    root = Path(__file__).parent
    files: list[tuple[str, bytes, int]] = []
    for source in sorted([*root.glob("oxidask/**/*.py"), root / "scale_cluster.py"]):
        files.append((source.relative_to(root).as_posix(), source.read_bytes(), 0o644))
    for program in PROGRAMS:
        files.append((f"{name}.data/scripts/{program}", (binaries / program).read_bytes(), 0o755))
    files.append((f"{name}.dist-info/METADATA", METADATA.format(version=version).encode(), 0o644))
    files.append((f"{name}.dist-info/WHEEL", WHEEL.format(tag=tag).encode(), 0o644))
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data, _ in files)
    files.append((f"{name}.dist-info/RECORD", f"{record}{name}.dist-info/RECORD,,\n".encode(), 0o644))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file, data, mode in files:
            # The first day that a zip can name, so that equal sources give equal wheels.
            entry = zipfile.ZipInfo(file, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    main()
