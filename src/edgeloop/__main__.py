"""Command line: ``python -m edgeloop files STAGE [GENERATION]`` prints the files of one stage, for Snakemake's -R."""

import argparse
import sys
from pathlib import Path

from edgeloop.records import read_json

RESULTS = Path("results")
GENERATION_FILES = {"propose": "proposals.json", "screen": "screening.*.json", "sample": "population.json"}
CANDIDATE_FILES = {"train": "train.json", "export": "export.json", "measure": "measure.*.json"}


def files(stage: str, generation: int | None) -> list[Path]:
    """The existing files that `stage` has made, of one generation or (None) of all, baselines included.

    Raises ValueError when there are none.
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
        found = [file for candidate in candidates for file in candidate.glob(CANDIDATE_FILES[stage])]
    if not (listed := sorted(found)):
        where = "" if generation is None else f" in generation {generation}"
        raise ValueError(f"there are no files of '{stage}'{where} under {RESULTS.resolve()}; has it run yet?")
    return listed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edgeloop", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="files")
    command = commands.add_parser("files", help="print the files that a stage has made")
    command.add_argument("stage", choices=[*GENERATION_FILES, *CANDIDATE_FILES])
    command.add_argument("generation", type=int, nargs="?", help="all generations when left out")
    options = parser.parse_args()
    try:
        print(*files(options.stage, options.generation))
    except ValueError as error:
        print(f"edgeloop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
