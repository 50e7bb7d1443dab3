"""What a run of Snakemake that was killed has left at work: Slurm jobs and processes of its own, and of nothing else.

Each run writes down its name before its first job: the name that all its Slurm jobs bear, and that its processes carry
in their environment. Two writers of one file are ruled out because the next run starts no job while any of these is
left.
"""

import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from edgeloop import slurm
from edgeloop.records import read_json, write_json

RUN = "EDGELOOP_RUN"
"""The variable that carries the run's name into its processes."""
GOING = {"COMPLETING", "CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"}
"""States of a job that has ended or is about to: what is left of it is gone in a moment."""
PATIENCE_S = 180.0


class OrphansError(RuntimeError):
    """An earlier run of the folder is, or has left something, at work."""


def begin(folder: Path, name: str | None) -> None:
    """Write down that a run has begun in `folder`; `name` is that of its Slurm jobs, None without Slurm.

    Call it while Snakemake holds the folder's lock: then whatever an earlier run has left at work is an orphan. Waits
    for what is ending; raises OrphansError when something goes on.
    """
    earlier = _registered(folder)
    if earlier:
        _wait(lambda: not any(state in GOING for state in _jobs(earlier).values()), "jobs of an earlier run end")
        if jobs := _jobs(earlier):
            raise OrphansError(
                f"{len(jobs)} jobs of an earlier run in {folder} are still at work (Slurm jobs {_some(jobs)}) and "
                "write the same files as this run would: cancel them with `make resume`, or python -m edgeloop orphans "
                "--cancel"
            )
        if processes := _processes(earlier):
            raise OrphansError(
                f"{len(processes)} processes of an earlier run in {folder} are still at work (PID "
                f"{_some(process.pid for process in processes)}): end them with `make resume`, or python -m edgeloop "
                "orphans --cancel"
            )
    about = {
        "name": name or f"edgeloop_{uuid.uuid4()}",
        "slurm": name is not None,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }
    os.environ[RUN] = about["name"]
    write_json(_register(folder), about)


def end(folder: Path) -> int:
    """Cancel the Slurm jobs that this process's own run in `folder`, which ends early, leaves at work; how many.

    While Snakemake's executor asks Slurm for the states of its jobs, it has them in no list: an interrupt at that
    moment cancels none of them.
    """
    run = _registered(folder)
    if run is None or (run["host"], run["pid"]) != (socket.gethostname(), os.getpid()):
        return 0
    jobs = [number for number, state in _jobs(run).items() if state not in GOING]
    slurm.cancel(jobs)
    return len(jobs)


def describe(folder: Path) -> list[str]:
    """What the last run in `folder` has left at work, in words."""
    run = _registered(folder)
    if run is None:
        return []
    jobs = [f"Slurm job {number}: {state}" for number, state in _jobs(run).items()]
    return jobs + [f"process {process.pid}: {' '.join(process.cmdline()[:6])}" for process in _processes(run)]


def cancel(folder: Path, *, force: bool = False) -> int:
    """End what the last run in `folder` has left at work, and wait until it is gone; how much there was.

    Raises OrphansError while that run itself is alive, or may be because it was started on another machine (`force`
    says that it is not).
    """
    run = _registered(folder)
    if run is None:
        return 0
    jobs = _jobs(run)
    if run["host"] == socket.gethostname():
        if _alive(run):
            raise OrphansError(
                f"the run in {folder} is alive (PID {run['pid']}): it needs no resuming. Stop it first: "
                f"kill -INT {run['pid']}"
            )
    elif jobs and not force:
        raise OrphansError(
            f"the last run in {folder} was started on {run['host']}, this is {socket.gethostname()}: resume there, or "
            "make sure that it does not run any more and say --force"
        )
    if jobs:
        slurm.cancel(jobs)
        _wait(lambda: not _jobs(run), f"cancelled jobs {_some(jobs)} end")
    processes = _processes(run)
    for process in processes:
        process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=10)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn, timeout=10)
    return len(jobs) + len(processes)


def _register(folder: Path) -> Path:
    return folder / ".snakemake" / "edgeloop-run.json"


def _registered(folder: Path) -> dict[str, Any] | None:
    file = _register(folder)
    return read_json(file) if file.exists() else None


def _alive(run: Mapping[str, Any]) -> bool:
    try:
        return abs(psutil.Process(run["pid"]).create_time() - run["started"]) < 1
    except psutil.NoSuchProcess:
        return False


def _jobs(run: Mapping[str, Any]) -> dict[int, str]:
    return slurm.queue(run["name"]) if run["slurm"] else {}


def _processes(run: Mapping[str, Any]) -> list[psutil.Process]:
    """The run's processes on this machine, this one and what belongs to Slurm jobs left out."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # gone meanwhile, or another user's
        if environment.get(RUN) == run["name"] and "SLURM_JOB_ID" not in environment and process.pid != os.getpid():
            found.append(process)
    return found


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline, told = time.monotonic() + PATIENCE_S, False
    while not condition():
        if time.monotonic() > deadline:
            raise OrphansError(f"waited {PATIENCE_S:.0f} s in vain until {what}: look at squeue")
        if not told:
            print(f"edgeloop: waiting until {what}", file=sys.stderr)
            told = True
        time.sleep(1)


def _some(items: Any) -> str:
    listed = [str(item) for item in items]
    return ", ".join(listed[:5]) + (" ..." if len(listed) > 5 else "")
