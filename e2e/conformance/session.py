"""Runs pytest over the tree and reads what it recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
#: Where the package `clusters` lies.
PYTHON = HERE.parent / "python"

#: dask's tests share one cluster and one default client, distributed's make their own.
GROUPS = ["distributed/", "dask/"]

#: Outcomes that a second try on a fresh cluster may turn into a pass.
WORTH_A_RETRY = ("failed", "internal", "skipped", "nocluster")


@dataclass
class Session:
    """What is the same for every start of pytest."""

    tree: Path
    scheduler: str
    worker: str
    jobs: int
    #: Seconds for one test.
    timeout: int
    #: When everything must have ended, in `time.monotonic()`.
    deadline: float
    log: Path
    #: pytest's `-k`.
    expression: str | None = None

    def run(self, ids: list[str]) -> dict[str, dict]:
        """Records by test id. What failed is tried again on a fresh cluster, and that counts."""
        records = self._pass(ids, "first", fresh=False)
        again = [i for i in ids if self._tried_in_vain(records.get(i))]
        if again and time.monotonic() < self.deadline - 30:
            for test, record in self._pass(again, "second", fresh=True).items():
                if record["outcome"] == "passed" or test not in records:
                    records[test] = dict(record, retried=True)
        return records

    def _tried_in_vain(self, record: dict | None) -> bool:
        if record is None:
            return self.expression is None
        return record["outcome"] in WORTH_A_RETRY

    def _pass(self, ids: list[str], name: str, *, fresh: bool) -> dict[str, dict]:
        records: dict[str, dict] = {}
        for group in GROUPS:
            part = [i for i in ids if i.startswith(group)]
            if part:
                results = self.tree.parent / f"{name}-{group[:-1]}.jsonl"
                self._pytest(part, results, fresh=fresh, dask=group == "dask/")
                records.update(read(results))
        return records

    def _pytest(self, ids: list[str], results: Path, *, fresh: bool, dask: bool) -> None:
        wanted = results.with_suffix(".ids")
        wanted.write_text("\n".join(ids))
        env = dict(
            os.environ,
            PYTHONPATH=f"{HERE}{os.pathsep}{PYTHON}",
            PYTHONDONTWRITEBYTECODE="1",
            OMP_NUM_THREADS="1",
            CONF_SCHEDULER=self.scheduler,
            CONF_WORKER=self.worker,
            CONF_IDS=str(wanted),
            CONF_RESULTS=str(results),
            CONF_FRESH="1" if fresh else "0",
            CONF_DASK="1" if dask else "0",
        )
        command = [sys.executable, "-m", "pytest", "-p", "blackbox.plugin", "-q", "--no-header"]
        command += ["--tb=native", "--import-mode=importlib", "-W", "ignore"]
        command += [f"--rootdir={self.tree}", "-c", f"{self.tree}/pytest.ini"]
        command += [f"--timeout={self.timeout}", "--timeout-method=signal"]
        if self.jobs > 1:
            command += ["-n", str(self.jobs), "--max-worker-restart=50"]
        if self.expression:
            command += ["-k", self.expression]
        command += sorted({i.split("::")[0] for i in ids})
        with open(self.log, "a") as log:
            process = subprocess.Popen(
                command, cwd=self.tree, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                process.wait(max(1.0, self.deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def read(results: Path) -> dict[str, dict]:
    if not results.exists():
        return {}
    with open(results) as lines:
        records = [json.loads(line) for line in lines]
    return {record["id"]: record for record in records}
