"""A row's result as a table for people and as JSON, with the command and the machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

import dask
import psutil

from .metric import Comparison

RESULTS = Path(__file__).parent.parent / "results"


def machine() -> dict[str, object]:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "linux": platform.release(),
        "python": platform.python_version(),
        "dask": dask.__version__,
    }


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    result = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def table(comparisons: list[Comparison]) -> str:
    lines = [
        "| what | unit | ours | stock | ours / stock | 90 % interval | to reach | |",
        "|---|---|---:|---:|---:|---|---|---|",
    ]
    for comparison in comparisons:
        ours, stock = comparison.medians
        low, high = comparison.interval()
        metric = comparison.metric
        compared = [f"{stock:.4g}", f"{comparison.ratio:.3g}", f"{low:.3g} – {high:.3g}"]
        if not comparison.stock or not stock:
            compared = [f"{stock:.4g}" if comparison.stock else "–", "–", "–"]
        lines.append(
            f"| {metric.name} | {metric.unit} | {ours:.4g} | {' | '.join(compared)} "
            f"| {metric.target} | {comparison.verdict} |"
        )
    return "\n".join(lines)


def write(name: str, sentence: str, command: str, comparisons: list[Comparison]) -> Path:
    """Writes `results/NAME.md` and `.json`."""
    facts = machine()
    today = datetime.date.today().isoformat()
    rounds = len(comparisons[0].ours)
    text = f"""# {sentence}

    {command}

{today}, commit {commit()}; {facts["cpu"]}, {facts["cores"]} cores, {facts["memory_gb"]} GB, \
Linux {facts["linux"]}, Python {facts["python"]}, dask {facts["dask"]}.
Medians of {rounds} rounds in alternating order; the interval is that of the ratio.

{table(comparisons)}
"""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(text)
    data = {
        "row": name,
        "command": command,
        "date": today,
        "commit": commit(),
        "machine": facts,
        "metrics": [
            {
                "name": comparison.metric.name,
                "unit": comparison.metric.unit,
                "ours": comparison.ours,
                "stock": comparison.stock,
                "ratio": comparison.ratio,
                "interval": comparison.interval(),
                "target": comparison.metric.target,
                "verdict": comparison.verdict,
            }
            for comparison in comparisons
        ],
    }
    path.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    return path
