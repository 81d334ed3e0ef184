"""`experiment`: the command ``oxidask experiment`` from Python, with its table as a DataFrame."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from .programs import program, scripts_first


class Plot:
    """A plot that notebooks show, and `save` writes."""

    def __init__(self, svg: str, png: bytes):
        self.svg, self.png = svg, png

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> None:
        """Writes SVG or PNG, by the name's suffix."""
        path = Path(path)
        if path.suffix == ".png":
            path.write_bytes(self.png)
        else:
            path.write_text(self.svg)


class Experiment(NamedTuple):
    """What an experiment gives."""

    table: Any
    """A `pandas.DataFrame`, one row per cell; ``sentence`` says what bounds it."""
    plot: Plot


def experiment(workload: str, *program_arguments: str, **options: Any) -> Experiment:
    """Runs ``oxidask experiment``.

    ``workload``: ``matmul``, ``pi``, or ``python`` followed by a program and its arguments. Options are those of the
    command: ``experiment("matmul", sizes=[4000, 6000], workers=[1, 2], repeats=3, no_control=True)``.
    Raises `RuntimeError` with what the command says if it fails.
    """
    import pandas

    with tempfile.TemporaryDirectory(prefix="oxidask-experiment-") as folder:
        command = [program("oxidask"), "experiment", workload, "--output", folder]
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                command.append(flag)
            elif isinstance(value, (list, tuple)):
                command += [flag, ",".join(map(str, value))]
            elif value is not None and value is not False:
                command += [flag, str(value)]
        command += program_arguments
        done = subprocess.run(command, capture_output=True, text=True, env=scripts_first(), check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"{command[0]} ended with {done.returncode}")
        output = Path(folder)
        table = pandas.DataFrame(json.loads((output / "table.json").read_text()))
        plot = Plot((output / "speedup.svg").read_text(), (output / "speedup.png").read_bytes())
    return Experiment(table, plot)
