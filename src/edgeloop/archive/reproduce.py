"""A candidate of an archived run trained anew."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.archive import ArchiveError, contents
from edgeloop.records import read_json

ELSEWHERE = 0.05
"""By how much the validation RMSE may differ, relatively, on another kind of processor or with other versions: sums in
another order are rounded differently, and training amplifies it (docs/architecture.md)."""
OF_THE_DAY = ("work", "training_s", "samples_per_s", "loader_samples_per_s", "network_samples_per_s")
PLACE = ("device", "versions", "processes")


@dataclass(frozen=True)
class Comparison:
    """What training anew has come to. `exact`: everything was expected to be, and is compared, to the last bit."""

    same: bool
    exact: bool
    said: list[str]


def reproduce(
    run: Path,
    about: Mapping[str, Any],
    config: Mapping[str, Any],
    candidate: str,
    *,
    tolerance: float = ELSEWHERE,
    progress: Callable[..., Any] | None = None,
) -> Comparison:
    """Train `candidate` of the run in the unpacked folder `run`, whose data are there, and compare.

    about: its archive.json. On the same kind of processor with the same versions, as the records name them, figures
    and weights must be the same to the last bit; elsewhere `val_rmse` within `tolerance`.
    """
    from edgeloop import training
    from edgeloop.data.cache import open_split

    place = run / "results/candidates" / candidate
    if candidate not in contents.candidates(run):
        raise ArchiveError(f"the archive has no candidate {candidate}; it has {', '.join(contents.candidates(run))}")
    then, genotype = read_json(place / "train.json"), read_json(place / "genotype.json")["genotype"]
    weights = run / "reproduced.pt"
    if then.get("trained", True) is False:
        now = training.initialise(genotype, weights_path=weights)
    else:
        settings = {key: value for key, value in config["training"].items() if key not in ("pack", "gpus", "processes")}
        splits = (open_split(run / "results/data", part) for part in ("train", "validation"))
        now = training.train(genotype, *splits, training.Settings(**settings), weights_path=weights, progress=progress)
    elsewhere = [key for key in PLACE if then.get(key) != now.get(key)]
    # A few kernels of CUDA have no deterministic twin.
    exact = not elsewhere and not str(then.get("device")).startswith("cuda")
    if exact:
        return _to_the_last_bit(then, now, about["weights"][candidate], contents.sha256(weights))
    return _within(then, now, tolerance, elsewhere)


def _to_the_last_bit(then: Mapping[str, Any], now: Mapping[str, Any], weights: str, made: str) -> Comparison:
    other = [key for key in sorted(then.keys() | now.keys()) if key not in OF_THE_DAY and then.get(key) != now.get(key)]
    said = [f"{key} was {then.get(key)}, is {now.get(key)}" for key in other if key != "history"]
    if "history" in other:
        said.append("history: the epochs differ")
    if then["status"] == "ok" and made != weights:
        said.append(f"the weights have sha256 {made[:12]}, expected {weights[:12]}")
    same = not said
    if same:
        where = now.get("device", "any CPU")
        said = [f"the same to the last bit: {_figure(now)}, weights with sha256 {made[:12]}, on {where}"]
    return Comparison(same, True, said)


def _within(then: Mapping[str, Any], now: Mapping[str, Any], tolerance: float, elsewhere: list[str]) -> Comparison:
    said = [f"{key} was {then.get(key)}, is {now.get(key)}" for key in elsewhere]
    if then["status"] != "ok" or now["status"] != "ok":
        same = then["status"] == now["status"]
        return Comparison(same, False, [*said, f"status was {then['status']}, is {now['status']}"])
    difference = abs(now["val_rmse"] / then["val_rmse"] - 1)
    said.append(
        f"val_rmse was {then['val_rmse']:.6f}, is {now['val_rmse']:.6f}: {difference:.2%} apart, "
        f"at most {tolerance:.2%} expected"
    )
    return Comparison(difference <= tolerance, False, said)


def _figure(record: Mapping[str, Any]) -> str:
    if record["status"] == "failed":
        return f"failed, {record['reason']}"
    return "not trained" if record["val_rmse"] is None else f"val_rmse {record['val_rmse']:.6f}"
