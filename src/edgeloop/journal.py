"""The journal of a run's folder: each start of Snakemake in it, with its command and what it was to come to."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

JOURNAL = Path("logs/journal.jsonl")


def note(folder: Path, command: Sequence[str], config: Mapping[str, Any], cores: int | None) -> None:
    """Add a line to the journal of the run in `folder`: `command` was started there with `config`."""
    program = Path(command[0])
    words = [program.parent.name if program.name == "__main__.py" else program.name, *command[1:]]
    entry = {
        "started_at": time.time(),
        # The folder by no name: it may be moved or copied, and archived elsewhere.
        "command": [word.replace(str(folder), ".") for word in words],
        "cores": cores,
        "max_generations": config["search"]["max_generations"],
        "generation_size": config["search"]["generation_size"],
        "patience": config["search"]["patience"],
        "pool": config["screening"]["pool"],
        "devices": list(config["devices"]),
        "baselines": len(config["baselines"]),
    }
    file = folder / JOURNAL
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.write(json.dumps(entry) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """The starts in `folder`, the oldest first; none where the run was made by an edgeloop that kept no journal."""
    file = folder / JOURNAL
    if not file.exists():
        return []
    # The last line of a run that was killed may be half a line.
    lines = file.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]
