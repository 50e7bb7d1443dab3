"""The sources of a run: a commit, and what differs from it."""

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeloop.archive import ArchiveError

CODE = ("Snakefile", "workflow", "src", "edge", "envs", "profiles", "slurm", "pyproject.toml")
"""Where a file that git does not know may change what a run does."""


def commit(root: Path) -> str:
    """The commit that is checked out in `root`. Raises ArchiveError where `root` is no checkout of git."""
    try:
        top, name = _git(root, "rev-parse", "--show-toplevel", "HEAD").decode().split()
    except subprocess.CalledProcessError as error:
        top, said = "", error.stderr.decode().strip()
    else:
        said = f"it lies in the checkout {top}"
    if not top or Path(top).resolve() != root.resolve():
        raise ArchiveError(
            f"{root} is no checkout of git with a commit ({said}), and an archive names the commit of its sources: run "
            "from a clone, or put these sources under git (git init, git add --all, git commit)"
        )
    return name


def changed(root: Path) -> list[str]:
    """The files in `root` that differ from the commit, and those of the code that git does not know."""
    tracked = _git(root, "diff", "--name-only", "-z", "HEAD")
    unknown = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE)
    return sorted(name for name in (tracked + unknown).decode().split("\0") if name)


def require_clean(root: Path, changes: str) -> str:
    """The commit in `root`, followed by `+` and a digest of what is changed there.

    changes: "refuse" makes a changed file an ArchiveError, "patch" does not.
    """
    name, files = commit(root), changed(root)
    if files and changes == "refuse":
        shown = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
        raise ArchiveError(
            f"the sources in {root} are not those of a commit: {shown}. Commit them, or have the changes archived as a "
            "patch: --config 'archive={changes: patch}'"
        )
    return f"{name}+{hashlib.sha256(patch(root, files)).hexdigest()[:12]}" if files else name


def patch(root: Path, files: list[str]) -> bytes:
    """What `files` differ in from the commit, for `git apply`; nothing of it is left in git's own files."""
    if not files:
        return b""
    objects = root / _git(root, "rev-parse", "--git-path", "objects").decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        apart = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects.resolve()),
        }
        _git(root, "read-tree", "HEAD", **apart)
        _git(root, "add", "--all", "--", *files, **apart)
        options = ("--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv")
        return _git(root, "diff", "--cached", *options, "HEAD", **apart)


def files(root: Path, name: str) -> Iterator[tuple[str, bytes, bool]]:
    """Path, content and whether it is executable, of each file of the commit `name`."""
    with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", name))) as tar:
        for member in tar:
            if member.isfile():
                yield member.name, tar.extractfile(member).read(), bool(member.mode & 0o100)


def apply(patch_file: Path, folder: Path) -> None:
    """Change the sources in `folder` by a patch of `patch`."""
    # Outside of a checkout, also where `folder` lies in one: paths are then those in the patch.
    _git(folder, "apply", str(patch_file.resolve()), GIT_CEILING_DIRECTORIES=str(folder.resolve().parent))


def _git(folder: Path, *arguments: str, **environment: str) -> bytes:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=folder, env={**os.environ, **environment}, capture_output=True, check=True
        ).stdout
    except FileNotFoundError as error:
        raise ArchiveError("git is not installed: an archive names the commit of its sources") from error
