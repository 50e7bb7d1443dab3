"""What makes two runs in one folder the same search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop import yamlfile
from edgeloop.records import digest, read_json


class OtherSearch(ValueError):
    """The folder holds the history of another search."""


def identity(config: Mapping[str, Any], space: Path) -> dict[str, Any]:
    """What the first decision depends on. Sizes, patience and budgets may change as a search goes on; these may not."""
    return {
        "strategy": config["search"]["strategy"],
        "seed": config["search"]["seed"],
        "space": digest(yamlfile.load(space).value),
    }


def check(generations: Path, config: Mapping[str, Any], space: Path) -> None:
    """Raise OtherSearch when `generations` holds another search: no history is half one, half another."""
    first = generations / "000" / "proposals.json"
    if not first.exists():
        return
    before, now = read_json(first)["search"], identity(config, space)
    changed = [key for key in now if now[key] != before[key]]
    if changed:
        differences = ", ".join(f"{key}: {before[key]} then, {now[key]} now" for key in changed)
        raise OtherSearch(
            f"{generations} holds a search that began differently ({differences}). Give the new search a folder of "
            f"its own (snakemake --directory FOLDER ...), or start anew here: rm -r {generations}. What was trained "
            "and measured is kept and used again."
        )
