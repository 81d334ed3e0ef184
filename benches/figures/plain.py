"""Work of an experiment in plain Python processes, without a scheduler: what no scheduler can beat.

As a program it is one such process: it prepares, says ``ready``, waits for a line, computes its part, says ``done``.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

POINTS = 4_000_000
TASKS = 32

SIZE, CHUNK = 4000, 1000


def hits(seed: int) -> int:
    """Random points of the unit square that lie within the quarter circle."""
    points = np.random.default_rng(seed).random((2, POINTS))
    return int((np.square(points, out=points).sum(axis=0) < 1).sum())


def pi(part: int, of: int):
    def run() -> None:
        for seed in range(part, TASKS, of):
            hits(seed)

    return run


def matmul(part: int, of: int):
    """Rows of chunks of the product, as a good placement would divide them."""
    n = SIZE // CHUNK
    generator = np.random.default_rng(0)
    x = [[generator.random((CHUNK, CHUNK)) for _ in range(n)] for _ in range(n)]

    def run() -> None:
        for i in range(part * n // of, (part + 1) * n // of):
            for j in range(n):
                products = [x[i][k] @ x[k][j] for k in range(n)]
                total = products[0] + products[1]
                for product in products[2:]:
                    total = total + product

    return run


def seconds(work: str, processes: int) -> float:
    """From the start signal to the end of the last process, each pinned to a CPU of its own."""
    children = []
    for part in range(processes):
        command = ["taskset", "-c", str(part), sys.executable, __file__, work, str(part), str(processes)]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        for child in children:
            expect(child, "ready")
        start = time.perf_counter()
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            expect(child, "done")
        return time.perf_counter() - start
    finally:
        for child in children:
            child.kill()
            child.wait()


def expect(child: subprocess.Popen, word: str) -> None:
    line = child.stdout.readline().strip()
    if line != word:
        raise RuntimeError(f"a plain process said {line!r}, not {word!r}")


if __name__ == "__main__":
    work, part, of = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    run = {"pi": pi, "matmul": matmul}[work](part, of)
    print("ready", flush=True)
    sys.stdin.readline()
    run()
    print("done", flush=True)
