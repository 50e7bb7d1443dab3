"""A copy of the crop cache on the compute node's own disk: many trainings slow a shared file system down."""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeloop.records import atomic, digest, read_json

MARGIN_BYTES = 256 * 2**20
"""Of the disk to leave free: others use it, too."""
PARTS = ("clips.npy", "targets.npy")


class _NoUse(Exception):
    """The node's disk cannot hold the copy, and why."""


def local_copy(
    folder: Path,
    node_local: str | None,
    splits: Sequence[str] = ("train", "validation"),
    *,
    say: Callable[[str], object] = print,
) -> Path:
    """A folder with the `splits` of the crop cache in `folder`: a copy under `node_local`, or else `folder` itself.

    node_local: a folder on the node, in which environment variables and ``~`` mean what they mean there, or None for no
    copy. Raises ValueError for a variable that is not set. The copy, ``edgeloop-{digest of cache.json}``, is made once
    per node, by the first of several jobs while the others wait, and used by all later ones of the same user. Where the
    disk has no room or cannot be written, `say` is told and the shared cache is used.
    """
    if node_local is None:
        return folder
    place = _expand(node_local)
    files = [f"{split}.{part}" for split in splits for part in PARTS]
    copy = place / f"edgeloop-{digest(read_json(folder / 'cache.json'))}"
    try:
        copy.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Its name can be foreseen, and the disk may be open to all: nobody else may choose what we train on.
        if copy.is_symlink() or copy.stat().st_uid != os.getuid():
            raise _NoUse(f"{copy} belongs to somebody else")
        with _alone(copy):
            _fill(folder, copy, files, say)
    except (_NoUse, OSError) as problem:
        say(f"no copy of the data on this node, reading {folder} instead: {problem}")
        return folder
    return copy


def _expand(node_local: str) -> Path:
    for name in re.findall(r"\$(?:(\w+)|\{([^}]*)\})", node_local):
        variable = name[0] or name[1]
        if variable not in os.environ:
            raise ValueError(
                f"'dataset.node_local' is {node_local}, but on this node ({os.uname().nodename}) the environment "
                f"variable {variable} is not set: name a folder that compute nodes have, or null for no copy"
            )
    place = Path(os.path.expandvars(node_local)).expanduser()
    if not place.is_absolute():
        raise ValueError(f"'dataset.node_local' is {node_local}, here {place}: expected an absolute path")
    return place


@contextmanager
def _alone(copy: Path) -> Iterator[None]:
    """With no other job of the node in this block; the lock goes with the process that holds it."""
    with (copy / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fill(folder: Path, copy: Path, files: Sequence[str], say: Callable[[str], object]) -> None:
    for half in copy.glob(".*.tmp"):  # of a job that was killed; we are alone
        half.unlink()
    sizes = {file: (folder / file).stat().st_size for file in files}
    lacking = {file: size for file, size in sizes.items() if _size(copy / file) != size}
    if not lacking:
        return
    needed, free = sum(lacking.values()), shutil.disk_usage(copy).free
    if free < needed + MARGIN_BYTES:
        raise _NoUse(
            f"{copy.parent} has {free / 2**20:.0f} MB free, {needed / 2**20:.0f} MB and a margin of "
            f"{MARGIN_BYTES / 2**20:.0f} MB are needed"
        )
    for file in lacking:
        with atomic(copy / file) as temporary:
            shutil.copyfile(folder / file, temporary)
    say(f"{needed / 2**20:.0f} MB of data copied to {copy} on this node")


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.exists() else None
