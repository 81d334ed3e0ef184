"""The keys in docs/configuration.md against those that Dask has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import distributed
import yaml

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"

SECTIONS = ("scheduler", "comm", "admin")


def leaves(tree: dict, path: str) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}"


def test_every_key_of_the_scheduler_is_honoured_or_listed_as_not_applicable():
    defaults = yaml.safe_load((Path(distributed.__file__).parent / "distributed.yaml").read_text())
    section = PAGE.read_text().split("\n## Scheduler\n")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))
    keys = [key for name in SECTIONS for key in leaves(defaults["distributed"][name], name)]
    parents = {key: {key.rsplit(".", n)[0] for n in range(key.count("."))} for key in keys}
    assert [key for key in keys if not listed & ({key} | parents[key])] == []
