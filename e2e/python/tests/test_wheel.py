"""The wheel, installed into an environment of its own.

It is named by OXIDASK_WHEEL; without it there is nothing to test.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif("OXIDASK_WHEEL" not in os.environ, reason="needs OXIDASK_WHEEL")

PROGRAMS = ("dask-scheduler", "dask-worker", "oxidask")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A virtual environment that has the wheel, and sees the packages of ours for what the wheel depends on."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, os.environ["OXIDASK_WHEEL"]], check=True, env=outside())
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (Path(packages) / "packages-of-ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def outside(path: Path | None = None) -> dict[str, str]:
    """Our environment without what names our programs; with the environment's programs first."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OXIDASK_", "PYTHON"))}
    if path:
        env["PATH"] = f"{path / 'bin'}{os.pathsep}{os.defpath}"
    return env


def test_wheel_is_at_most_15_megabytes():
    assert Path(os.environ["OXIDASK_WHEEL"]).stat().st_size <= 15_000_000


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_are_on_the_path_of_the_environment(environment, program):
    done = subprocess.run([program, "--version"], capture_output=True, text=True, env=outside(environment), check=True)
    assert re.search(r"\d+\.\d+\.\d+", done.stdout)
    assert (environment / "bin" / program).read_bytes()[:4] == b"\x7fELF"


def test_installed_package_starts_a_cluster_of_its_own_programs(environment):
    text = (
        "import scale_cluster\n"
        "from distributed import Client\n"
        "from oxidask import LocalCluster\n"
        "with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:\n"
        "    with Client(cluster) as client:\n"
        "        pid = cluster.scheduler._process.pid\n"
        "        print(client.submit(sum, [1, 2, 3]).result(), open(f'/proc/{pid}/cmdline').read().split('\\0')[0])\n"
    )
    command = [environment / "bin" / "python", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, env=outside(environment), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["6", str(environment / "bin" / "dask-scheduler")]
