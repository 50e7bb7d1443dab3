"""Whether an archive is as it was written: every byte, every file, its description."""

import hashlib
import json
from pathlib import Path

from edgeloop.archive import ARCHIVE, CHECKSUMS, CONFIG, METADATA, ArchiveError, crate
from edgeloop.archive.container import Reader, is_safe, seal_problem


def problems(path: Path) -> list[str]:
    """What is wrong with the archive in `path`; nothing when it is sound. Raises ArchiveError when there is none."""
    if not path.is_file():
        raise ArchiveError(f"there is no archive {path}")
    broken = seal_problem(path)
    found = [broken] if broken else []
    try:
        with Reader(path) as archive:
            return found + _of_content(archive)
    except ArchiveError as error:
        return [*found, str(error)]


def _of_content(archive: Reader) -> list[str]:
    names = archive.names()
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return [f"{name} is there twice" for name in twice]
    if unsafe := [name for name in names if not is_safe(name)]:
        return [f"the name {name!r} leads out of the archive" for name in unsafe]
    try:
        lines = archive.read(CHECKSUMS).decode().splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    except UnicodeDecodeError:
        return [f"{CHECKSUMS} is not text"]
    found, digests = [], {}
    for name in sorted(set(names) - {CHECKSUMS}):
        try:
            digests[name] = hashlib.sha256(archive.read(name)).hexdigest()
        except ArchiveError as error:
            found.append(str(error))
    found += [f"{name} is listed in {CHECKSUMS}, and not there" for name in sorted(sums.keys() - set(names))]
    found += [f"{name} is there, and not listed in {CHECKSUMS}" for name in sorted(digests.keys() - sums.keys())]
    found += [
        f"{name} has another sha256 than {CHECKSUMS} says"
        for name in sorted(digests.keys() & sums.keys())
        if digests[name] != sums[name]
    ]
    if found:
        return found
    missing = [name for name in (ARCHIVE, CONFIG, METADATA) if name not in digests]
    return [f"there is no {name}" for name in missing] or crate.problems(archive.read(METADATA), digests)


def require_sound(path: Path) -> None:
    """Raise ArchiveError unless the archive in `path` is sound."""
    if found := problems(path):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ArchiveError(f"{path} is not sound: {found[0]}{more}; see python -m edgeloop verify")


def summary(path: Path) -> str:
    """What a sound archive holds, in a line."""
    with Reader(path) as archive:
        names = archive.names()
        about = json.loads(archive.read(ARCHIVE))
    commit = about["commit"][:12] + (f" with {len(about['changed'])} files changed" if about["changed"] else "")
    return f"{about['name']}, commit {commit}, {len(about['weights'])} networks, {len(names)} files"
