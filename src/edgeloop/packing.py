"""Packs: several small trainings (or exports) in one job, each of them safe from the others.

Who is packed with whom is known to `edgeloop.populations`. A job handles its members in processes forked from
one that has done the imports (`run`); what a member has come to is at once kept in a stash, from which the next attempt
goes on when the job dies (`Stash`).
"""

import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from edgeloop.descent import end_with_parent
from edgeloop.records import read_json, write_json

_FORK = multiprocessing.get_context("fork")


# -------------------------------------------------------------------------------------------- what is finished


@dataclass(frozen=True)
class Stash:
    """What members of a pack have come to: ``folder/{member}/`` with the files of each that is finished.

    It is no output that Snakemake knows and would delete when the job fails. `made_of` says by member from what its
    files are made: what was made from anything else counts for nothing.
    """

    folder: Path
    made_of: Mapping[str, str]

    def tidy(self) -> None:
        """Remove what is half finished or made from something else."""
        for entry in self.folder.glob("*"):
            if entry.name not in self.made_of or not self.has(entry.name):
                shutil.rmtree(entry)

    def has(self, member: str) -> bool:
        """Whether `member` is finished."""
        tag = self.folder / member / "made-of"
        return tag.exists() and tag.read_text() == self.made_of[member]

    def record(self, member: str) -> dict[str, Any]:
        """The record of a finished member."""
        return read_json(self.folder / member / f"{member}.json")

    @contextmanager
    def keep(self, member: str) -> Iterator[Path]:
        """A folder for the files of `member`, which is kept whole once the block has ended without an exception."""
        half = self.folder / f".{member}.{os.getpid()}"
        half.mkdir(parents=True)
        try:
            yield half
            (half / "made-of").write_text(self.made_of[member])
            half.rename(self.folder / member)
        finally:
            shutil.rmtree(half, ignore_errors=True)  # after the rename there is none

    def give_up(self, record: Callable[[str], dict[str, Any]], suffix: str) -> None:
        """Of each member that is not finished keep ``record(member)`` and an empty ``{member}{suffix}``."""
        self.tidy()
        for member in self.made_of:
            if not self.has(member):
                with self.keep(member) as folder:
                    write_json(folder / f"{member}.json", record(member))
                    (folder / f"{member}{suffix}").touch()

    def hand_over(self, target: Path) -> None:
        """Copy the files of all members into the new folder `target`, and remove the stash."""
        target.mkdir(parents=True, exist_ok=True)
        for member in self.made_of:
            for file in (self.folder / member).iterdir():
                if file.name != "made-of":
                    shutil.copyfile(file, target / file.name)
        shutil.rmtree(self.folder)


# -------------------------------------------------------------------------------------------- side by side


Work = Callable[[str, Path], dict[str, Any]]
"""work(member, folder): writes the member's files into `folder` and returns its record."""


def run(
    stash: Stash,
    work: Work,
    *,
    processes: int,
    workers: int | None = None,
    cramped: Callable[[dict[str, Any]], bool] = lambda record: False,
    finished: Callable[[str, dict[str, Any]], object] = lambda member, record: None,
    logs: Path | None = None,
) -> dict[str, str]:
    """Do `work` for each member of `stash` that is not finished, at most `processes` side by side.

    Returns why members are missing: that their process was killed, and by what, or the traceback of what they raised.
    Such an end of one member touches no other. Each has a process of its own; with `workers`, members share so many
    processes, each one after the other, and where one dies, another goes on behind the member that killed it. A
    record with `status: failed` is a result like any other; but one that is `cramped` (out of memory, say) comes from
    what ran beside: the member is done again, alone, when the others have ended. `finished` is told of each result as
    it comes. `logs` is a folder for what members print, one file each.

    The caller must have a single thread, and have neither computed with PyTorch nor touched CUDA: OpenMP's threads and
    CUDA's context do not survive a fork. Members end with the caller, whatever ends it.
    """
    stash.tidy()
    stash.folder.mkdir(parents=True, exist_ok=True)
    todo = [member for member in stash.made_of if not stash.has(member)]
    length = 1 if workers is None else max(1, -(-len(todo) // workers))
    pieces = [todo[first : first + length] for first in range(0, len(todo), length)]
    missing, again = _side_by_side(stash, work, pieces, processes, cramped if processes > 1 else None, finished, logs)
    more, _ = _side_by_side(stash, work, [[member] for member in again], 1, None, finished, logs)
    return missing | more


def _side_by_side(
    stash: Stash,
    work: Work,
    pieces: Sequence[Sequence[str]],
    processes: int,
    cramped: Callable[[dict[str, Any]], bool] | None,
    finished: Callable[[str, dict[str, Any]], object],
    logs: Path | None,
) -> tuple[dict[str, str], list[str]]:
    """Why members are missing, and who is to be done again."""
    queue = deque(list(piece) for piece in pieces)
    at_work: dict[Connection, tuple[multiprocessing.Process, list[str]]] = {}
    missing: dict[str, str] = {}
    again: list[str] = []
    try:
        while queue or at_work:
            while queue and len(at_work) < processes:
                members = queue.popleft()
                answers, out = _FORK.Pipe(duplex=False)
                process = _FORK.Process(
                    target=_members, args=(stash, work, tuple(members), cramped, logs, out, os.getpid())
                )
                process.start()
                out.close()
                at_work[answers] = process, members
            for answers in wait(list(at_work)):
                process, members = at_work[answers]
                try:
                    member, error = answers.recv()
                except EOFError:
                    process.join()
                    answers.close()
                    del at_work[answers]
                    if members:  # it died before it was through
                        missing[members[0]] = _end(process.exitcode)
                        queue.extend([members[1:]] if members[1:] else [])
                    continue
                members.remove(member)
                if error is not None:
                    missing[member] = error
                elif stash.has(member):
                    finished(member, stash.record(member))
                else:
                    again.append(member)
    finally:
        for process, _ in at_work.values():
            process.kill()
            process.join()
    return missing, again


def _members(
    stash: Stash,
    work: Work,
    members: Sequence[str],
    cramped: Callable[[dict[str, Any]], bool] | None,
    logs: Path | None,
    out: Connection,
    parent: int,
) -> None:
    """In a forked process: one member after the other."""
    end_with_parent()
    if os.getppid() != parent:  # it has died meanwhile
        os._exit(1)
    for member in members:
        error = None
        try:
            if logs is not None:
                _print_into(logs / f"{member}.log")
            with stash.keep(member) as folder:
                record = work(member, folder)
                if cramped is not None and cramped(record):
                    raise _Cramped
                write_json(folder / f"{member}.json", record)
        except _Cramped:
            pass  # nothing is kept, so that the member is done again
        except Exception:
            # A pipe holds 64 kB, and nobody may be reading.
            error = traceback.format_exc()[-16_000:].strip()
        out.send((member, error))


class _Cramped(Exception):
    """The member had too little room beside the others."""


def ask(function: Callable[[], Any]) -> Any:
    """What `function` returns or raises in a forked process: for questions that spoil who asks (is there CUDA?)."""

    def answer() -> None:
        try:
            out.send((function(), None))
        except Exception as error:
            out.send((None, error))

    answers, out = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=answer)
    process.start()
    out.close()
    try:
        result, error = answers.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"asked in a process of its own, {function.__qualname__}: {_end(process.exitcode)}"
        ) from None
    process.join()
    if error is not None:
        raise error
    return result


def incomplete(pack: str, kind: str, missing: Mapping[str, str], total: int) -> str:
    """What to tell a user of the members that have no result, while the others' are kept. kind: "trained"."""
    ends = "\n".join(f"{member}: {reason}" for member, reason in missing.items())
    return (
        f"{len(missing)} of the {total} candidates of pack {pack} could not be {kind}. The results of the others are "
        f"kept: the next attempt (run again, or Snakemake's --retries) has only these left.\n{ends}"
    )


def _print_into(file: Path) -> None:
    """Let `file` take all that this process prints, also from C."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with file.open("w") as opened:
        os.dup2(opened.fileno(), 1)
        os.dup2(opened.fileno(), 2)


def _end(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        number = -exitcode
        name = signal.Signals(number).name if number in iter(signal.Signals) else f"signal {number}"
        hint = " (out of memory? give the job more, or a smaller training.pack)" if number == signal.SIGKILL else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit status {exitcode} before it was through"
