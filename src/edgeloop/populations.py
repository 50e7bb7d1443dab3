"""Whom a search trains: who begins in a generation, who goes on after each rung, and who shares a job.

A generation is decided in its population.json, and where it is halved (`edgeloop.search.halving`), in a
promoted.{rung}.json for each rung: a number of epochs after which only some go on. Small trainings are done in packs
(`edgeloop.packing`), which are cut anew for each rung and for the full training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.records import digest, read_json

FULL = None
"""In place of a rung: the training up to its end."""


def rungs(population: Mapping[str, Any]) -> list[int]:
    """The epochs after which only some of a generation's candidates go on; none where all are trained in full."""
    return population.get("halving", {}).get("epochs", [])


def rung_before(found: Sequence[int], rung: int | None) -> int | None:
    """The last of the rungs `found` before `rung`; None where there is none, and the training begins."""
    return max((each for each in found if rung is FULL or each < rung), default=None)


def stages(folder: Path, population: Mapping[str, Any]) -> dict[int | None, list[str]]:
    """The candidates that are trained up to each rung and, last, in full: as far as it is decided by the files in the
    generation's `folder`."""
    found: dict[int | None, list[str]] = {}
    entrants = population["candidates"]
    for rung in [*rungs(population), FULL]:
        found[rung] = entrants
        promoted = folder / f"promoted.{rung}.json"
        if not promoted.exists():
            break
        entrants = read_json(promoted)["candidates"]
    return found


def cut(candidates: Sequence[str], size: int) -> dict[str, list[str]]:
    """`candidates` in their order, cut into packs of `size` members (the last may be smaller), by the pack's id."""
    pieces = (list(candidates[first : first + size]) for first in range(0, len(candidates), size))
    return {digest(piece): piece for piece in pieces}


class Populations:
    """The populations of a search; a candidate belongs to the first generation that holds it.

    A population has its rungs and the size of its packs (1: not packed) from the day it was decided, so that another
    `search.halving` or `training.pack` counts from the next generation on and nothing is trained again. Files are read
    once, and again when they have changed: asking for each of n candidates takes O(n).
    """

    def __init__(self, generations: Path) -> None:
        self._folder = generations
        self._read: dict[Path, int] = {}
        self._rungs: dict[str, tuple[Path, list[int]]] = {}
        self._packs: dict[tuple[str, int | None], tuple[Path, str]] = {}
        self._members: dict[str, list[str]] = {}

    def rungs(self, candidate: str) -> list[int]:
        """The rungs of the generation that `candidate` belongs to; none for a baseline, which is trained in full."""
        return self._look(self._rungs, candidate) or []

    def pack(self, candidate: str, rung: int | None = FULL) -> str | None:
        """The pack in which `candidate` is trained up to `rung`; None where it has a job of its own, as a baseline."""
        return self._look(self._packs, (candidate, rung))

    def any_packs(self) -> bool:
        """Whether any generation is trained in packs."""
        self._refresh()
        return bool(self._members)

    def members(self, pack: str) -> list[str]:
        """The candidates of a pack; KeyError when no population has it."""
        known = self._members.get(pack)
        if known is None or not self._is_as_read(self._rungs[known[0]][0]):
            self._refresh()
        if pack not in self._members:
            raise KeyError(f"no population under {self._folder} has the pack {pack}: it has been decided anew since")
        return self._members[pack]

    def _look(self, table: Mapping[Any, tuple[Path, Any]], key: Any) -> Any:
        found = table.get(key)
        if found is None or not self._is_as_read(found[0]):
            self._refresh()
            found = table.get(key)
        return found[1] if found else None

    def _is_as_read(self, file: Path) -> bool:
        return _changed_at(file) == self._read.get(file)

    def _refresh(self) -> None:
        decided = sorted(self._folder.glob("*/population.json"))
        files = {file: _changed_at(file) for file in [*decided, *sorted(self._folder.glob("*/promoted.*.json"))]}
        if files == self._read:
            return
        self._read = files
        for table in (self._rungs, self._packs, self._members):
            table.clear()
        for file in decided:
            population = read_json(file)
            new = {candidate for candidate in population["candidates"] if candidate not in self._rungs}
            self._rungs |= {candidate: (file, rungs(population)) for candidate in new}
            if (size := population.get("pack", 1)) == 1:
                continue
            source = file
            for rung, entrants in stages(file.parent, population).items():
                packs = cut([candidate for candidate in entrants if candidate in new], size)
                self._members |= packs
                for pack, members in packs.items():
                    self._packs |= {(member, rung): (source, pack) for member in members}
                source = file.with_name(f"promoted.{rung}.json")


def _changed_at(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return -1
