"""How far a run is, from the files in its folder alone: so it can be asked anywhere, also of a copy of the folder."""

import re
import socket
import time
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from edgeloop import journal, populations
from edgeloop.precision import deployed
from edgeloop.records import read_json
from edgeloop.search import pareto
from edgeloop.search.costs import violation

# What an output of Snakemake is made by, and of what: the first pattern that its path begins with.
OUTPUTS = [
    (r"results/candidates/(\w+)/(?:train.json|weights.pt)", "train"),
    (r"results/candidates/(\w+/rung\.\d+)\.(?:json|pt)", "train_short"),
    (r"results/candidates/(\w+)/(?:export.json|model.onnx)", "export"),
    (r"results/candidates/(\w+/measure\.[\w-]+)\.json", "measure"),
    (r"results/candidates/(\w+)/genotype.json", "baseline"),
    (r"results/packs/(\w+)/train", "train_pack"),
    (r"results/packs/(\w+/rung\.\d+)", "train_short_pack"),
    (r"results/packs/(\w+)/export", "export_pack"),
    (r"results/generations/(\d+)/proposals.json", "propose"),
    (r"results/generations/(\d+)/drafts", "draft"),
    (r"results/generations/(\d+/screening\.[\w-]+)\.json", "screen"),
    (r"results/generations/(\d+)/population.json", "sample"),
    (r"results/generations/(\d+/promoted\.\d+)\.json", "promote"),
    (r"results/generations/(\d+)/state.json", "select"),
    (r"results/raw/(\w+).h5", "simulate"),
    (r"results/data/()", "prepare"),
    (r"results/predictors()", "predict"),
    (r"results/devices/([\w-]+).json", "enrol"),
    (r"results/comparison.([\w-]+).json", "compare"),
    (r"results/finalists/(\w+)/", "finalist"),
    (r"results/(.*)", "conclude"),
]
ON_DEVICE = ("measure", "screen", "enrol", "compare")


@dataclass(frozen=True)
class Job:
    """A job under way. `of`: the candidate, generation, device or file. `queued`: handed to a cluster, not begun."""

    stage: str
    of: str
    since: float
    queued: bool


@dataclass(frozen=True)
class Stage:
    """The jobs of a stage in the present generation."""

    name: str
    done: int
    failed: int
    running: int
    waiting: int


@dataclass(frozen=True)
class OfDevice:
    """A device: what it is, what it does now, how its last measurement went, and its hottest zone after that."""

    name: str
    about: str
    doing: str | None
    measured_at: float | None = None
    celsius: float | None = None
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Status:
    """All that is shown of a run. Times in s since 1970; `left_s` is None where nothing tells, and `left_by` says why
    it is what it is."""

    folder: Path
    state: str
    generation: int | None = None
    generations: int | None = None
    stages: list[Stage] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    proposed: int = 0
    trained: int = 0
    failed: int = 0
    infeasible: int = 0
    dropped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    front: list[dict[str, Any]] = field(default_factory=list)
    hypervolume: list[float] = field(default_factory=list)
    devices: list[OfDevice] = field(default_factory=list)
    left_s: float | None = None
    left_by: str = ""
    finished: bool = False


def gather(folder: Path, now: float | None = None) -> Status:
    """What the files in the run's folder tell. Raises ValueError when there is no such folder."""
    now = time.time() if now is None else now
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: name the folder of a run, --directory FOLDER")
    results = folder / "results"
    started = journal.read(folder)
    generations = [file.parent for file in sorted(results.glob("generations/*/proposals.json"))]
    alive, state = _life(folder, now)
    jobs = sorted(_jobs(folder), key=lambda job: job.since)
    if not started and not generations and not jobs:
        return Status(folder, "no run has begun here")
    if not alive and (results / "summary.json").exists() and not jobs:
        state = "finished"
    elif alive is False and jobs:
        state = f"broken off with {len(jobs)} jobs half done: go on with `make resume`"
    running = jobs if alive is not False else []
    records = [_generation(results, place) for place in generations]
    candidates = {name: entry for record in records for name, entry in record["candidates"].items()}
    finished_generations = sum(record["state"] is not None for record in records)
    limit = started[-1]["max_generations"] if started else None
    finished = state == "finished"
    left_s, left_by = (None, "") if finished else _time_left(records, limit, now)
    return Status(
        folder=folder,
        state=state,
        generation=max(0, finished_generations - 1 if finished else len(records) - 1) if records else None,
        generations=finished_generations if finished else limit,
        stages=_stages(records[-1], running) if records and records[-1]["candidates"] and not finished else [],
        jobs=running,
        proposed=sum(record["proposed"] for record in records),
        trained=sum(entry["trained"] for entry in candidates.values()),
        failed=sum(entry["reason"] is not None for entry in candidates.values()),
        infeasible=sum(entry["feasible"] is False for entry in candidates.values()),
        dropped=sum(entry["dropped"] for entry in candidates.values()),
        reasons=dict(Counter(_kind(entry["reason"]) for entry in candidates.values() if entry["reason"])),
        front=_front(candidates),
        hypervolume=next((r["state"]["hypervolume"] for r in reversed(records) if r["state"]), []),
        devices=[_device(results, name, running) for name in _devices(results, records)],
        left_s=left_s,
        left_by=left_by,
        finished=finished,
    )


def _life(folder: Path, now: float) -> tuple[bool | None, str]:
    """Whether the run's Snakemake lives (None: nobody can tell from here), in words."""
    register = folder / ".snakemake/edgeloop-run.json"
    last = max((file.stat().st_mtime for file in _signs(folder)), default=now)
    silent = f"last sign of life {duration(now - last)} ago"
    if not register.exists():
        return None, silent
    run = read_json(register)
    if run["host"] != socket.gethostname():
        return None, f"started on {run['host']}, {silent}"
    try:
        process = psutil.Process(run["pid"])
        if abs(process.create_time() - run["started"]) > 1:
            return False, f"not running, {silent}"  # the number is another process's by now
        place = Path(process.cwd())
    except psutil.AccessDenied:
        return None, silent
    except psutil.NoSuchProcess:
        return False, f"not running, {silent}"
    if place != folder.resolve():
        return None, f"a copy of {place}, {silent}"
    return True, f"running (PID {run['pid']})"


def _signs(folder: Path) -> Iterator[Path]:
    """Files and folders whose times tell that something happens."""
    yield from (folder / "results/candidates").glob("*")
    yield from (folder / "results/generations").glob("*")
    yield from (folder / "logs").glob("*")
    yield from (folder / ".snakemake/log").glob("*")


def _jobs(folder: Path) -> Iterator[Job]:
    """The jobs that Snakemake has begun and not ended: it marks the outputs of each."""
    marks = folder / ".snakemake/incomplete"
    found: dict[tuple[str, str], Job] = {}
    for mark in marks.rglob("*"):
        try:
            if not mark.is_file():
                continue
            # The mark's name is the output's, in base64, cut where a file name may be no longer.
            encoded = "".join(part.removeprefix("@") for part in mark.relative_to(marks).parts)
            stage, of = _made_by(urlsafe_b64decode(encoded).decode())
            since, at_cluster = mark.stat().st_mtime, '"external_jobid": null' not in mark.read_text()
        except (FileNotFoundError, ValueError):
            continue  # it has ended meanwhile, or is no mark
        log = folder / "logs" / stage / f"{of}.log"
        begun = log.exists() and log.stat().st_mtime >= since
        found[stage, of] = Job(stage, of, since, at_cluster and not begun)
    yield from found.values()


def _made_by(output: str) -> tuple[str, str]:
    """The stage that makes a file, and what of."""
    for pattern, stage in OUTPUTS:
        if found := re.match(pattern, output):
            return stage, re.sub(r"/(measure|screening|rung|promoted)\.", ".", found[1])
    return "other", output


# ---------------------------------------------------------------- generations and candidates


def _generation(results: Path, folder: Path) -> dict[str, Any]:
    """What is known of a generation, decided or not."""
    proposals = read_json(folder / "proposals.json")
    state = folder / "state.json"
    population = folder / "population.json"
    chosen = read_json(population) if population.exists() else None
    if "settings" not in (chosen or proposals):
        raise ValueError(f"{folder} was decided by an older edgeloop, which did not write down with what settings")
    limits = (chosen or proposals)["settings"]["budgets"]
    entrants = populations.stages(folder, chosen) if chosen else {}
    in_full = entrants.get(populations.FULL)
    return {
        "entrants": entrants,
        "began_at": proposals["decided_at"],
        "proposed": len(proposals["proposals"]),
        "budgets": limits,
        "state": read_json(state) if state.exists() else None,
        "candidates": {
            name: _candidate(results, name, limits, entrants, dropped=in_full is not None and name not in in_full)
            for name in (chosen["candidates"] if chosen else [])
        },
    }


def _candidate(
    results: Path, name: str, limits: Mapping[str, Mapping[str, float]], rungs: Iterable[int | None], dropped: bool
) -> dict[str, Any]:
    """What the records of a candidate tell so far; `feasible` is None until it is measured on all devices. `dropped`:
    it is not trained in full."""
    folder = results / "candidates" / name
    files = {"train": "train.json", "export": "export.json"} | {d: f"measure.{d}.json" for d in limits}
    short = {f"rung {rung}": f"rung.{rung}.json" for rung in rungs if rung is not populations.FULL}
    found = {stage: folder / file for stage, file in (short | files).items()}
    records = {stage: read_json(file) for stage, file in found.items() if file.exists()}
    broken = next((record["reason"] for record in records.values() if record["status"] == "failed"), None)
    train, feasible = deployed(records.get("train", {}), records.get("export", {})), None
    if broken is None and files.keys() <= records.keys():
        feasible = violation({device: records[device] for device in limits}, limits) <= 0
    return {
        "name": name,
        "records": {stage: record["status"] for stage, record in records.items()},
        "reason": broken,
        "dropped": dropped and broken is None,
        "trained": train.get("status") == "ok",
        "feasible": feasible,
        "family": read_json(folder / "genotype.json")["genotype"]["architecture"]["family"],
        "val_rmse": train.get("val_rmse"),
        "parameters": train.get("parameters"),
        "ended_at": max((record["work"][1] for record in records.values()), default=None),
        "latency_ms": {device: records[device].get("latency_ms") for device in limits if device in records},
    }


def _front(candidates: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The front of all that is measured by now, best RMSE first, in RMSE and the first device's latency."""
    feasible = [entry for _, entry in sorted(candidates.items()) if entry["feasible"]]
    points = [(entry["val_rmse"], next(iter(entry["latency_ms"].values()))) for entry in feasible]
    return sorted((dict(feasible[place]) for place in pareto.front(points)), key=lambda entry: entry["val_rmse"])


def _kind(reason: str) -> str:
    """A reason without what is special to one candidate, so that equal ones can be counted."""
    return re.sub(r"\b[0-9a-f]{12}\b", "...", reason.partition("\n")[0])


def _stages(record: Mapping[str, Any], running: list[Job]) -> list[Stage]:
    """What the present generation's candidates have behind and before them: those that are known to come so far."""
    steps = []
    for rung, entrants in record["entrants"].items():
        if rung is not populations.FULL:
            steps.append((f"rung {rung}", f"train {rung} epochs", "train_short", f".{rung}", entrants))
            continue
        steps += [(stage, stage, stage, "", entrants) for stage in ("train", "export")]
        steps += [(device, f"measure on {device}", "measure", f".{device}", entrants) for device in record["budgets"]]
    stages = []
    for stage, shown, rule, ending, entrants in steps:
        results = [record["candidates"][name]["records"].get(stage) for name in entrants]
        at_work = sum(
            job.of.endswith(ending)
            and (job.stage == f"{rule}_pack" or (job.stage == rule and job.of.partition(".")[0] in entrants))
            for job in running
        )
        done, failed = results.count("ok"), results.count("failed")
        stages.append(Stage(shown, done, failed, at_work, max(0, len(results) - done - failed - at_work)))
    return stages


# ---------------------------------------------------------------- devices


def _devices(results: Path, records: list[dict[str, Any]]) -> list[str]:
    """The names of the devices: those that the last decision is about, or those that are enrolled."""
    return list(records[-1]["budgets"]) if records else [file.stem for file in sorted(results.glob("devices/*.json"))]


def _device(results: Path, name: str, running: list[Job]) -> OfDevice:
    enrolment = results / "devices" / f"{name}.json"
    about = "not enrolled yet"
    if enrolment.exists():
        record = read_json(enrolment)
        at_rest = record["reference"]["p5_ms"]
        about = f"{record['fingerprint']['board'] or record['fingerprint']['cpu_model']}, reference {at_rest:.3f} ms"
    doing = next(
        (f"{job.stage} {job.of.removesuffix(f'.{name}')}" for job in running
         if job.stage in ON_DEVICE and (job.of == name or job.of.endswith(f".{name}"))),
        None,
    )  # fmt: skip
    measured = sorted(results.glob(f"candidates/*/measure.{name}.json"), key=lambda file: file.stat().st_mtime)
    if not measured:
        return OfDevice(name, about, doing)
    last = read_json(measured[-1])
    zones = (last.get("telemetry", {}).get("after", {}).get("thermal_c") or {}).values()
    hottest = max((celsius for celsius in zones if celsius is not None), default=None)
    return OfDevice(name, about, doing, last["work"][1], hottest, last.get("flags", []))


# ---------------------------------------------------------------- time


def _time_left(records: list[dict[str, Any]], limit: int | None, now: float) -> tuple[float | None, str]:
    """How long the search takes at most from now on, and by what that is known."""
    begun = [record["began_at"] for record in records]
    ended = [record for record in records if record["state"] is not None]
    if not records:
        return None, "nothing is decided yet"
    if ended:
        # The middle one, and to its last record at most: a search may have rested between two generations, or be
        # measured again.
        until = [_ends(record) + begun[number + 1 : number + 2] for number, record in enumerate(ended)]
        usual = median(min(ends) - begin for ends, begin in zip(until, begun, strict=False))
        if limit is None:
            return None, f"a generation takes {duration(usual)}; how many there may be is not written down"
        present = 0.0 if len(ended) == len(records) else now - begun[-1]
        left = max(0.0, (limit - len(ended)) * usual - min(present, usual))
        return left, f"at most, at {duration(usual)} a generation; the comparison of the front comes on top"
    candidates = list(records[0]["candidates"].values())
    done = sum(each["feasible"] is not None or each["reason"] is not None or each["dropped"] for each in candidates)
    if not done or limit is None:
        return None, "not known before the first candidate is measured"
    each = (now - begun[0]) / done
    return each * (len(candidates) * limit - done), f"at most, at {duration(each)} a candidate so far"


def _ends(record: Mapping[str, Any]) -> list[float]:
    """When the last record of a generation was made, in a list."""
    return [max(entry["ended_at"] for entry in record["candidates"].values())] if record["candidates"] else []


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    seconds = max(0, round(seconds))
    for unit, size, smaller, below in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // below
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
