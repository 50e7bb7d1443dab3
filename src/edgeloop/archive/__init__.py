"""The archive of a run: one zip file from which it can be checked, decided anew, trained anew and continued.

It is a Workflow Run RO-Crate (https://w3id.org/ro/wfrun/workflow/0.5): ``ro-crate-metadata.json`` describes all files.
Within it lie, named as in the folder that it is unpacked to,

    archive.json      what was run: commit, commands, environment, digests of code and weights
    config.yaml       the configuration with all defaults, without what only counts where the run was; space.yaml
    environment.txt   every installed package, with its version
    source/           the sources as they are in the commit; source.patch what differed from them
    results/, logs/   the records of the run, its models and its report
    checksums.sha256  of every other file, as sha256sum writes and reads it
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

ARCHIVE = "archive.json"
CONFIG = "config.yaml"
SPACE = "space.yaml"
ENVIRONMENT = "environment.txt"
SOURCE = "source"
PATCH = "source.patch"
CHECKSUMS = "checksums.sha256"
METADATA = "ro-crate-metadata.json"


class ArchiveError(ValueError):
    """A run that cannot be archived, or an archive that cannot be used."""


def name_of(config: Mapping[str, Any]) -> str:
    """The name of a run's archive: as the configuration says, else what makes it this search."""
    search = config["search"]
    return config["archive"]["name"] or f"{Path(config['space']).stem}-{search['strategy']}-seed{search['seed']}"
