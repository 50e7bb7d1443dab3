"""Which files of a run's folder are archived."""

import hashlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from edgeloop.journal import JOURNAL
from edgeloop.records import read_json

LEFT_OUT = (
    "results/raw/*",
    "results/packs/*",
    "results/archive/*",
    "results/data/*.npy",
    "results/generations/*/drafts/*",
)
"""What the rest is enough to make again: video, its clips (`prepare`), copies of what lies among the candidates."""
MODELS = ("weights.pt", "model.onnx")
CHECKPOINT = "rung.*.pt"
TEXT = {".json", ".jsonl", ".csv", ".tsv", ".txt", ".md", ".html", ".svg", ".yaml", ".py"}


def files(run: Path, models: str) -> Iterator[str]:
    """The files of the run in the folder `run`, by their path in it, in no order.

    models: "all" for those of every trained candidate, "front" for those of the front and of trained baselines. Those
    of networks that are measured for latency only are left out: their weights are drawn from their id.
    """
    kept = _kept(run) if models == "front" else None
    for file in (run / "results").rglob("*"):
        name = file.relative_to(run).as_posix()
        if not file.is_file() or any(part.startswith(".") for part in file.relative_to(run).parts):
            continue
        if any(fnmatchcase(name, pattern) for pattern in LEFT_OUT):
            continue
        if name.startswith("results/candidates/") and file.stat().st_size:
            if fnmatchcase(file.name, CHECKPOINT) and kept is not None:
                continue
            if file.name in MODELS:
                record = read_json(file.with_name("train.json"))
                if record.get("trained", True) is False or (kept is not None and file.parent.name not in kept):
                    continue
        yield name
    if (run / JOURNAL).exists():
        yield JOURNAL.as_posix()


def sha256(file: Path) -> str:
    """The sha256 of a file, 64 hex digits; where there is none, that of an empty one."""
    return hashlib.sha256(file.read_bytes() if file.exists() else b"").hexdigest()


def candidates(run: Path) -> list[str]:
    """The ids of all candidates and baselines."""
    return sorted(file.parent.name for file in (run / "results/candidates").glob("*/train.json"))


def states(run: Path) -> list[Path]:
    """The states of the search, the first generation first."""
    return sorted((run / "results/generations").glob("*/state.json"))


def _kept(run: Path) -> set[str]:
    last = read_json(states(run)[-1])
    return set(last["front"]) | (set(candidates(run)) - last["candidates"].keys())
