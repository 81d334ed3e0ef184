"""Stands in for distributed.cli.dask_scheduler and dask_worker: becomes the program of that name.

Installed under both names; the file's own name says which program is meant. So
`python -m distributed.cli.dask_worker` and `python -m dask worker` lead to the same program as `dask-worker`.
"""

import os
from pathlib import Path

import click

PROGRAM = Path(__file__).stem.replace("_", "-")


@click.command(
    name=PROGRAM.removeprefix("dask-"),
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(arguments: tuple[str, ...]) -> None:
    """Start the program with these arguments, which it parses itself."""
    os.execvp(PROGRAM, [PROGRAM, *arguments])


if __name__ == "__main__":
    main()
