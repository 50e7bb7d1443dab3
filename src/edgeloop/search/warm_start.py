"""Results of earlier runs, from which a strategy may learn and which are never reported as found."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.records import SCHEMA_VERSION, Genotype, candidate_id
from edgeloop.space import Space

STATES = "generations/*/state.json"


class WarmStartError(ValueError):
    """A path in `search.warm_start` that leads to no earlier run."""


def read(path: Path) -> dict[str, Any]:
    """The results of the run in `path`: a state.json, a folder that holds `results`, or a zip archive of one.

    Raises WarmStartError.
    """
    try:
        name, text = _last_state(path)
        state = json.loads(text)
        entries = state["candidates"].values()
    except FileNotFoundError as error:
        raise WarmStartError(f"'search.warm_start': there is no {path}") from error
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise WarmStartError(f"'search.warm_start': {path} is no state of a search: expected a state.json") from error
    results = [
        {"genotype": entry["genotype"], "val_rmse": entry["val_rmse"]} for entry in entries if entry["status"] == "ok"
    ]
    results.sort(key=lambda result: candidate_id(result["genotype"]))
    return {"source": name, "lineage": state["lineage"], "results": results}


def _last_state(path: Path) -> tuple[str, str]:
    """The name and the text of the last state in `path`."""
    if path.is_dir():
        found = sorted([*path.glob(STATES), *path.glob(f"results/{STATES}")])
        if not found:
            raise WarmStartError(
                f"'search.warm_start': {path} holds no results/{STATES}: no generation has ended there"
            )
        return str(found[-1].relative_to(path)), found[-1].read_text()
    if path.exists() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = sorted(name for name in archive.namelist() if Path(name).match(STATES))
            if not found:
                raise WarmStartError(f"'search.warm_start': the archive {path} holds no {STATES}")
            return found[-1], archive.read(found[-1]).decode()
    return path.name, path.read_text()


def record(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """results/warm_start.json; a run that is given twice counts once."""
    return {"schema_version": SCHEMA_VERSION, "runs": list({run["lineage"]: run for run in runs}.values())}


def of_space(record: Mapping[str, Any], space: Space) -> list[list[tuple[Genotype, float]]]:
    """By run, the genotypes that `space` can draw, with their losses; runs that have none are left out."""
    runs = (
        [(entry["genotype"], entry["val_rmse"]) for entry in run["results"] if space.holds(entry["genotype"])]
        for run in record["runs"]
    )
    return [run for run in runs if run]
