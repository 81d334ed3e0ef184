"""The test files, laid out so that the code they import is the installed one."""

from __future__ import annotations

import glob
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

#: The commit of dask/distributed whose tests the ids name.
COMMIT = "40fcd99a8"

DASK_FOLDERS = ["array", "bag", "dataframe", "dataframe/dask_expr", "."]

#: Makes `distributed.tests` and its like importable from the tree, and its fixtures known.
CONFTEST = """\
import os

here = os.path.dirname(__file__)
for package in ["", "shuffle", "deploy", "diagnostics", "protocol", "comm"]:
    name = ".".join(["distributed", package]).rstrip(".")
    module = __import__(name, fromlist=["__path__"])
    module.__path__.append(os.path.join(here, "distributed", package))
from distributed.utils_test import *
"""


def lay_out(tree: Path, distributed_tests: Path | None) -> None:
    """dask's tests from the installed package; distributed's from a git directory or a folder."""
    tree.mkdir()
    from_dask(tree / "dask")
    if distributed_tests is not None:
        from_distributed(tree, distributed_tests)
    (tree / "conftest.py").write_text(CONFTEST)
    (tree / "pytest.ini").write_text("[pytest]\naddopts = -p no:asyncio -p no:cacheprovider\n")


def from_dask(target: Path) -> None:
    import dask

    package = Path(dask.__file__).parent
    ignored = shutil.ignore_patterns("__init__.py", "__pycache__")
    for folder in DASK_FOLDERS:
        tests = package / folder / "tests"
        if tests.is_dir():
            shutil.copytree(tests, target / folder / "tests", ignore=ignored)
    if (package / "conftest.py").exists():
        shutil.copy(package / "conftest.py", target / "conftest.py")


def from_distributed(tree: Path, source: Path) -> None:
    """Only `tests` folders, without their `__init__.py`."""
    if (source / "objects").is_dir() or (source / ".git").exists():
        command = ["git", "-C", str(source), "archive", COMMIT, "distributed"]
        archive = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            wanted = [m for m in tar if "/tests/" in m.name and not m.name.endswith("/__init__.py")]
            tar.extractall(tree, filter="data", members=wanted)
        return
    for path in glob.glob(f"{source}/distributed/**/tests/**/*", recursive=True):
        if os.path.isfile(path) and not path.endswith("/__init__.py"):
            target = tree / os.path.relpath(path, source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
