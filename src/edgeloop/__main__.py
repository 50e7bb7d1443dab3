"""Command line, to be used in the folder of a run.

``status [--watch]`` tells how far a run is. ``files STAGE [GENERATION]`` prints the files of one stage, for Snakemake's
-R. ``orphans [--cancel]`` lists or ends what a run that was killed has left at work. ``verify``, ``replay``,
``reproduce`` and ``unpack`` take a file that ``snakemake archive`` has written.
"""

import argparse
import sys
from pathlib import Path

from edgeloop import orphans, status_view
from edgeloop.archive import commands as archive_commands
from edgeloop.populations import Populations
from edgeloop.records import read_json
from edgeloop.slurm import SlurmError

RESULTS = Path("results")
GENERATION_FILES = {"propose": "proposals.json", "screen": "screening.*.json", "sample": "population.json"}
PACKED = ("train", "export")
CANDIDATE_FILES = {"train": "train.json", "export": "export.json", "measure": "measure.*.json"}


def files(stage: str, generation: int | None) -> list[Path]:
    """The existing files that `stage` has made, of one generation or (None) of all, baselines included.

    What was trained or exported in a pack was made as the pack's folder. Raises ValueError when there are none.
    """
    folder = RESULTS / "generations" / ("*" if generation is None else f"{generation:03d}")
    if stage in GENERATION_FILES:
        found = RESULTS.glob(str(folder.relative_to(RESULTS) / GENERATION_FILES[stage]))
    else:
        candidates = sorted((RESULTS / "candidates").glob("*"))
        if generation is not None:
            population = folder / "population.json"
            names = read_json(population)["candidates"] if population.exists() else []
            candidates = [RESULTS / "candidates" / name for name in names]
        populations = Populations(RESULTS / "generations")
        found = {
            file for candidate in candidates for file in _of_candidate(candidate, stage, populations) if file.exists()
        }
    if not (listed := sorted(found)):
        where = "" if generation is None else f" in generation {generation}"
        raise ValueError(f"there are no files of '{stage}'{where} under {RESULTS.resolve()}; has it run yet?")
    return listed


def _of_candidate(folder: Path, stage: str, populations: Populations) -> list[Path]:
    candidate, found = folder.name, []
    for rung in populations.rungs(candidate) if stage == "train" else []:
        pack = populations.pack(candidate, rung)
        found.append(RESULTS / "packs" / pack / f"rung.{rung}" if pack else folder / f"rung.{rung}.json")
    pack = populations.pack(candidate) if stage in PACKED else None
    return [*found, RESULTS / "packs" / pack / stage] if pack else [*found, *folder.glob(CANDIDATE_FILES[stage])]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edgeloop", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("files", help="print the files that a stage has made")
    command.add_argument("stage", choices=[*GENERATION_FILES, *CANDIDATE_FILES])
    command.add_argument("generation", type=int, nargs="?", help="all generations when left out")
    command.set_defaults(run=_files)
    command = commands.add_parser("orphans", help="jobs and processes that a killed run has left at work")
    command.add_argument("--cancel", action="store_true", help="end them, and wait until they are gone")
    command.add_argument(
        "--force", action="store_true", help="the run was started on another machine, and is dead there"
    )
    command.set_defaults(run=_orphans)
    status_view.add(commands)
    archive_commands.add(commands)
    options = parser.parse_args()
    try:
        return options.run(options)
    except (ValueError, orphans.OrphansError, SlurmError) as error:
        print(f"edgeloop: {error}", file=sys.stderr)
        return 1


def _files(options: argparse.Namespace) -> int:
    print(*files(options.stage, options.generation))
    return 0


def _orphans(options: argparse.Namespace) -> int:
    if options.cancel:
        print(f"edgeloop: {orphans.cancel(Path.cwd(), force=options.force)} jobs and processes ended")
    else:
        print(*orphans.describe(Path.cwd()) or ["nothing is left at work"], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
