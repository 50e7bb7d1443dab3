"""What of a run stays where it was: addresses, users, keys, and the paths of its machine.

The rule: of a device's entry in the configuration only what a measurement means is archived (transport, budgets,
threads, cores, providers, time limits); its host is its own name. Slurm accounts and node-local folders are left out,
other absolute paths keep their last part. In records, commands and reports the run's folder becomes `.`, the sources'
`source`, the environment of Python `python`, the home folder `~`, a device's address its name. Sources are archived as
they were committed. What still names one of these places, and whatever holds a private key, is not archived at all.
"""

import copy
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.archive import SOURCE, SPACE, ArchiveError

OF_THE_PLACE = (
    "host", "port", "user", "identity_file", "known_hosts", "gateways", "python", "work_folder", "lock_file",
)  # fmt: skip
"""Keys of a device's entry that say how it is reached from where the run was."""
KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
OTHER_PATH = re.compile(r"(?<![\w.~/-])/(?:[^\s/'\"=:,{}]+/)*([^\s/'\"=:,{}]+)")
# Where a name ends: `/home/ann` is in `/home/ann/x` and in "/home/ann", not in `/home/anne`; 10.0.0.7 not in 10.0.0.71.
A_PATH, AN_ADDRESS, ITS_END = r"(?<![\w~])", r"(?:[\w.-]+@)?(?<![\w.-])", r"(?![\w-]|\.\w)"


def portable_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` as it is archived; the space is the archive's own copy."""
    kept = copy.deepcopy(dict(config))
    kept["space"] = SPACE
    kept["dataset"]["node_local"] = None
    for entry in kept["devices"].values():
        for key in OF_THE_PLACE:
            entry.pop(key, None)
    for name, entry in kept["devices"].items():
        if entry["transport"] != "local":
            entry["host"] = name
    for entry in kept["resources"].values():
        entry["account"] = None
    return _relative(kept)


def _relative(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _relative(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_relative(part) for part in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


class Private:
    """The places of the machine that archives `config`'s run in the folder `run`, with the sources in `root`."""

    def __init__(self, config: Mapping[str, Any], run: Path, root: Path) -> None:
        # A run in the folder of the sources is a run first.
        places = {str(root.resolve()): SOURCE, sys.prefix: "python", str(Path.home()): "~", str(run.resolve()): "."}
        names: dict[str, str] = {}
        for name, entry in config["devices"].items():
            hops = [hop.rpartition("@")[2].partition(":")[0] for hop in entry.get("gateways") or ()]
            for address in filter(None, [entry.get("host"), *hops]):
                if address not in config["devices"]:
                    names[address] = name
            for key in ("identity_file", "known_hosts"):
                if path := entry.get(key):
                    names[path] = names[str(Path(path).expanduser())] = key
        # Longer ones first: the run's folder may lie in the sources', and both in the home folder.
        self._replacements = [
            (re.compile((A_PATH if "/" in place else AN_ADDRESS) + re.escape(place) + ITS_END), plain)
            for place, plain in sorted((names | places).items(), key=lambda item: -len(item[0]))
            if len(place) > 1
        ]

    def text(self, text: str) -> str:
        """`text` without the private places."""
        for pattern, plain in self._replacements:
            text = pattern.sub(plain, text)
        return text

    def command(self, words: Sequence[str]) -> list[str]:
        """The words of a command; other absolute paths in it keep their last part."""
        return [OTHER_PATH.sub(r"\1", self.text(word)) for word in words]

    def check(self, name: str, content: bytes) -> None:
        """Raise ArchiveError when the file `name` of the run still tells a private place."""
        told = content.decode("utf-8", errors="replace")
        for pattern, _ in self._replacements:
            if found := pattern.search(told):
                raise ArchiveError(
                    f"{name} cannot be archived: it holds {found.group()!r}, which names a place of this machine or "
                    "the way to a device. Remove it from there, or the file from the run's folder"
                )


def refuse_keys(name: str, content: bytes) -> None:
    """Raise ArchiveError when the file `name` holds a private key, wherever it comes from."""
    if KEY.search(content):
        raise ArchiveError(f"{name} cannot be archived: it holds a private key. Remove it, from the commit as well")
