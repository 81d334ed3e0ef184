"""Executes the tutorial's notebooks, as JupyterLab would, and prints what their programs printed."""

import sys
import time
from pathlib import Path

import nbclient
import nbformat


def main(folder):
    paths = sorted(Path(folder).glob("*.ipynb"))
    for path in paths:
        started = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if output.output_type == "stream" and output.name == "stdout":
                    print(f"{path.stem}: {output.text.strip()}")
        print(f"{path.stem}: executed in {time.monotonic() - started:.1f} s", flush=True)
    print(f"{len(paths)} notebooks executed")


if __name__ == "__main__":
    main(*sys.argv[1:])
