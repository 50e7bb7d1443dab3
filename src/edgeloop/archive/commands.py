"""The commands of `python -m edgeloop` that take an archive."""

import argparse
import sys
import tempfile
from pathlib import Path

from edgeloop.archive import verify


def add(commands: argparse._SubParsersAction) -> None:
    """Add the commands to those of a command line."""
    archived = argparse.ArgumentParser(add_help=False)
    archived.add_argument("archive", type=Path, help="a file that `snakemake archive` has written")
    video = argparse.ArgumentParser(add_help=False)
    video.add_argument(
        "--data", type=Path, action="append", default=[], metavar="PATH",
        help="the HDF5 files that the run was made from, or their folder; not for simulated ones",
    )  # fmt: skip
    command = commands.add_parser("verify", parents=[archived], help="check every byte and file of an archive")
    command.set_defaults(run=_verify)
    command = commands.add_parser("replay", parents=[archived], help="decide an archived search anew from its records")
    command.set_defaults(run=_replay)
    command = commands.add_parser("reproduce", parents=[archived, video], help="train a candidate of an archive anew")
    command.add_argument("--candidate", required=True, metavar="ID")
    command.add_argument(
        "--tolerance", type=float, metavar="SHARE",
        help="by how much val_rmse may differ on another kind of processor or with other versions (default: 0.05)",
    )  # fmt: skip
    command.set_defaults(run=_reproduce)
    command = commands.add_parser("unpack", parents=[archived, video], help="make a folder in which the search goes on")
    command.add_argument("folder", type=Path, help="a new folder")
    command.set_defaults(run=_unpack)


def _verify(options: argparse.Namespace) -> int:
    found = verify.problems(options.archive)
    if found:
        print(f"{options.archive} is not sound:", *(f"  - {problem}" for problem in found), sep="\n", file=sys.stderr)
        return 1
    print(f"{options.archive} is sound: {verify.summary(options.archive)}")
    return 0


def _replay(options: argparse.Namespace) -> int:
    from edgeloop.archive import code, replay, unpack

    with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
        about, config = unpack.extract(options.archive, Path(folder))
        _tell_differences(code.differences(about))
        verdicts = []
        for verdict in replay.replay(Path(folder), config):
            verdicts.append(verdict)
            print(f"generation {verdict.generation}: {verdict.said}", flush=True)
    other = sum(verdict.same is False for verdict in verdicts)
    left = sum(verdict.same is None for verdict in verdicts)
    print(
        f"{options.archive}: " + (f"{other} of {len(verdicts)} steps come out differently" if other else
        f"the search comes out the same{f', but for {left} decisions that cannot be taken anew' if left else ''}")
    )  # fmt: skip
    return int(other > 0)


def _reproduce(options: argparse.Namespace) -> int:
    from edgeloop.archive import code, data, reproduce, unpack
    from edgeloop.progress import progress

    with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
        about, config = unpack.extract(options.archive, Path(folder))
        _tell_differences(code.differences(about))
        data.restore(Path(folder), config, options.data, progress)
        tolerance = reproduce.ELSEWHERE if options.tolerance is None else options.tolerance
        found = reproduce.reproduce(
            Path(folder), about, config, options.candidate, tolerance=tolerance, progress=progress
        )  # fmt: skip
    print(f"{options.candidate}: {'reproduced' if found.same else 'not reproduced'}", *found.said, sep="\n  ")
    return int(not found.same)


def _unpack(options: argparse.Namespace) -> int:
    from edgeloop.archive import unpack
    from edgeloop.progress import progress

    for line in unpack.unpack(options.archive, options.folder, options.data, progress):
        print(line)
    print(f"unpacked to {options.folder}; one generation more:", f"  {unpack.next_lines(options.folder)}", sep="\n")
    return 0


def _tell_differences(lines: list[str]) -> None:
    for line in lines:
        print(f"note: {line}", file=sys.stderr)
