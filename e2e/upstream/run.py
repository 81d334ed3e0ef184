#!/usr/bin/env python3
"""Runs the tests that dask-kubernetes has of its own operator, with our operator in its place.

The tests come from the installed package, of which nothing is kept here: they are laid out in a folder of their own
with the `conftest.py` beside this file, which starts the operator, and with two changes of their text: the name of
the image, and the one line of `test_object_dask_cluster` that indexes a list of containers with a string, which
upstream never reaches, because its own operator has made no Deployment yet at that moment.

`cargo xtask soak upstream` calls this where the cluster can be reached.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

#: Tests that only upstream's own operator can pass: it loads plugins written in Python.
LEFT_OUT = ["test_operator_plugins"]

OF_A_LIST = '["containers"]["env"]'
OF_ITS_FIRST = '["containers"][0]["env"]'


def main() -> int:
    args = arguments()
    package = Path(importlib.util.find_spec("dask_kubernetes").origin).parent
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        lay_out(package / "operator", Path(folder), args.image)
        for crds in args.crds or ["ours", "stock"]:
            for number in range(args.rounds):
                print(f"──── with the CRDs of {crds}, round {number + 1}", flush=True)
                failed += run(args, crds, package, folder) != 0
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operator", type=Path, required=True, help="our program")
    parser.add_argument("--image", required=True, help="image of schedulers and workers")
    parser.add_argument("--our-crds", type=Path, required=True, help="folder of our CRDs")
    parser.add_argument("--crds", action="append", choices=["ours", "stock"], help="both without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-k", default="", help="only tests that pytest's expression chooses")
    return parser.parse_args()


def lay_out(operator: Path, folder: Path, image: str) -> None:
    for tests in ["controller/tests", "kubecluster/tests"]:
        shutil.copytree(operator / tests, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (folder / "resources").glob("*.yaml"):
        file.write_text(file.read_text().replace("dask-kubernetes:dev", image))
    file = folder / "test_controller.py"
    text = file.read_text()
    if text.count(OF_A_LIST) != 1:
        raise SystemExit(f"{file.name} of this version of dask-kubernetes has not the line that is to be changed")
    file.write_text(text.replace(OF_A_LIST, OF_ITS_FIRST))
    shutil.copy(HERE / "conftest.py", folder)


def run(args: argparse.Namespace, crds: str, package: Path, folder: str) -> int:
    stock = package / "operator/deployment/helm/dask-kubernetes-operator/crds"
    ours = str(args.our_crds.resolve())
    environment = {
        "UPSTREAM_OPERATOR": str(args.operator.resolve()),
        "UPSTREAM_IMAGE": args.image,
        "UPSTREAM_CRDS": ours if crds == "ours" else str(stock),
        "UPSTREAM_CRDS_AFTER": ours,
    }
    chosen = " and ".join([*(f"not {name}" for name in LEFT_OUT), *([f"({args.k})"] if args.k else [])])
    # As in upstream's own settings.
    settings = ["-o", "timeout=60", "-o", "timeout_func_only=true", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    command = [sys.executable, "-m", "pytest", "-v", "--durations=5", *settings, "-k", chosen, folder]
    return subprocess.run(command, env={**os.environ, **environment}, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
