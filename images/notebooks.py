"""Makes notebooks of the tutorial's modules: `python notebooks.py MODULES OUTPUT`.

A notebook has a cell for each program, with the program's own source, so that a reader can change it and run it again.
"""

import ast
import json
import sys
from pathlib import Path

#: Modules that hold no programs.
SHARED = {"__init__", "__main__", "program"}

START = """\
import os
from pathlib import Path

from distributed import Client

from tutorial.program import Context

# The scheduler of a cluster; every pod of a DaskCluster has this variable, others name the Service here.
client = Client(os.environ.get("DASK_SCHEDULER_ADDRESS", "tcp://simple-scheduler:8786"))
# A folder that workers see too is needed only by programs that write files.
context = Context(client, os.environ.get("TUTORIAL_SIZE", "full"), Path(os.environ.get("TUTORIAL_FOLDER", "/tmp")))
client"""


def main(modules: str, output: str) -> None:
    for module in sorted(Path(modules).glob("*.py")):
        if module.stem not in SHARED:
            notebook = Path(output) / f"{module.stem}.ipynb"
            notebook.write_text(json.dumps(notebook_of(module.read_text()), indent=1) + "\n")


def notebook_of(source: str) -> dict:
    """The notebook of a module, in nbformat 4.5."""
    tree = ast.parse(source)
    text = ast.get_docstring(tree, clean=True) or ""
    cells = [markdown(f"# {text}"), code(START), code("")]
    shared = []
    for node in tree.body:
        lines = source_of(source, node)
        name = program_name(node)
        if name:
            cells += [markdown(f"## {name}"), code(f"{lines}\n\n\nprint({node.name}.run(context))")]
        elif not is_docstring(node):
            shared.append(lines.replace("from .program ", "from tutorial.program "))
    cells[2] = code("\n".join(shared))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def source_of(source: str, node: ast.stmt) -> str:
    """The lines of a statement, its decorators included."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def program_name(node: ast.stmt) -> str | None:
    """The name of the program that a statement defines, if it does."""
    for decorator in getattr(node, "decorator_list", []):
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "program":
            return ast.literal_eval(decorator.args[0])
    return None


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def markdown(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text: str) -> dict:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": text}


if __name__ == "__main__":
    main(*sys.argv[1:])
