"""The zip file: the same content gives the same bytes, and no byte of it can change unnoticed."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeloop.archive import ArchiveError
from edgeloop.records import atomic

SEAL = b"edgeloop archive; sha256 of all bytes before these 64 digits: "
DIGITS = 64
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file: the earliest that the format knows."""


@dataclass(frozen=True)
class Entry:
    """A file of an archive; `read` gives its content whenever it is asked."""

    name: str
    read: Callable[[], bytes]
    executable: bool = False


def write(path: Path, entries: Iterable[Entry]) -> str:
    """Write `entries` as a sealed zip file, ordered by name; the sha256 of the file.

    The seal is the file's comment: a digest of all that stands before it, so that also what zip programs do not look
    at (times, flags, unused bits) is protected. The same entries give the same file with the same version of zlib.
    """
    with atomic(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry in sorted(entries, key=lambda entry: entry.name):
                about = zipfile.ZipInfo(entry.name, EPOCH)
                about.compress_type = zipfile.ZIP_DEFLATED
                about.create_system = 3  # Unix, on whatever system this is
                about.external_attr = (0o100755 if entry.executable else 0o100644) << 16
                archive.writestr(about, entry.read())
            archive.comment = SEAL + b"0" * DIGITS
        digest = _digest(temporary)
        with temporary.open("r+b") as file:
            file.seek(-DIGITS, os.SEEK_END)
            file.write(digest.encode())
        with temporary.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def seal_problem(path: Path) -> str | None:
    """Why the zip file in `path` is not as it was written; None when every byte of it is."""
    length = len(SEAL) + DIGITS
    if path.stat().st_size <= length:
        return "it is too short for an archive: was it copied as a whole?"
    with path.open("rb") as file:
        file.seek(-length, os.SEEK_END)
        end = file.read()
    if not end.startswith(SEAL):
        return "it does not end with the seal of an archive of edgeloop: another file, or not copied as a whole"
    if end[len(SEAL) :] != _digest(path).encode():
        return "its bytes are not those that were sealed: it was damaged or changed"
    return None


def _digest(path: Path) -> str:
    """sha256 of all bytes but the last 64."""
    digest, left = hashlib.sha256(), path.stat().st_size - DIGITS
    with path.open("rb") as file:
        while left > 0:
            chunk = file.read(min(left, 1 << 20))
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


class Reader:
    """An open archive. Raises ArchiveError, naming the file, for what is no zip file or cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise ArchiveError(f"there is no archive {path}") from error
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ArchiveError(f"{path} is no zip file that can be read: {error}") from error

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *about: object) -> None:
        self._zip.close()

    def names(self) -> list[str]:
        """The files of the archive."""
        return self._zip.namelist()

    def read(self, name: str) -> bytes:
        """The content of a file."""
        try:
            return self._zip.read(name)
        except KeyError as error:
            raise ArchiveError(f"{self.path} has no {name}: it is no archive of edgeloop, or not all of it") from error
        except Exception as error:  # whatever damaged bytes make the decoder say
            raise ArchiveError(f"{self.path}: {name} cannot be read: {error}") from error

    def extract(self, folder: Path) -> None:
        """Write all files into `folder`; one whose name leads out of it is an ArchiveError."""
        for about in self._zip.infolist():
            if not is_safe(about.filename):
                raise ArchiveError(f"{self.path}: the name {about.filename!r} leads out of the archive")
            file = folder / about.filename
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.read(about.filename))
            file.chmod((about.external_attr >> 16) & 0o777 or 0o644)


def is_safe(name: str) -> bool:
    """Whether `name` is a plain relative path."""
    path = PurePosixPath(name)
    return bool(name) and str(path) == name and not path.is_absolute() and ".." not in path.parts and "\\" not in name
