"""What edgeloop asks Slurm itself: which jobs of a run are left over, and how earlier attempts of a job ended."""

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

OWN_FAULT = {"OUT_OF_MEMORY": "out of memory", "TIMEOUT": "over its time limit"}
"""Ends of a job that are its own doing; others (CANCELLED, NODE_FAIL, ...) are the cluster's or a person's."""


class SlurmError(RuntimeError):
    """Slurm did not answer, or not as expected."""


@dataclass(frozen=True)
class Job:
    """A job as accounting has it; `limits` in words."""

    number: int
    state: str
    limits: str


def ask(*command: str) -> list[str]:
    """The lines that one of Slurm's commands prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except FileNotFoundError as error:
        raise SlurmError(
            f"there is no command {command[0]}: is Slurm installed here, and its module loaded?"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]} gave no answer for two minutes: is the cluster up?") from error
    except subprocess.CalledProcessError as error:
        raise SlurmError(f"{' '.join(command)} failed: {error.stderr.strip() or error.returncode}") from error
    return done.stdout.splitlines()


def prefer(wrappers: Path) -> None:
    """Let this process and its children find ``wrappers/NAME/NAME`` before Slurm's own NAME, where there is one."""
    found = [str(folder) for folder in sorted(wrappers.iterdir()) if shutil.which(folder.name)]
    os.environ["PATH"] = os.pathsep.join([*found, os.environ["PATH"]])


def queue(name: str) -> dict[int, str]:
    """State by number of this user's jobs in the queue that are called `name`."""
    lines = ask("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%T|%j")
    found = (line.strip().split("|", 2) for line in lines)
    return {int(number): state for number, state, its_name in found if its_name == name}


def cancel(numbers: Iterable[int]) -> None:
    """Cancel these jobs, and no others."""
    numbers = [str(number) for number in numbers]
    for begin in range(0, len(numbers), 500):  # a command line has an end
        ask("scancel", *numbers[begin : begin + 500])


def earlier_attempts() -> list[Job]:
    """The jobs that tried the same before the job that this process is part of, in the order of their start.

    The executor gives all jobs of a run the same name, and keeps the logs of jobs that failed in a folder for each rule
    and its wildcards, under the job's number.
    """
    number = os.environ.get("SLURM_JOB_ID")
    if number is None:
        return []
    (line,) = ask("scontrol", "--oneliner", "show", "job", number)
    name, log = _shown(line, "JobName"), Path(_shown(line, "StdOut"))
    siblings = [file.stem for file in log.parent.glob("*.log") if file.stem.isdigit() and int(file.stem) < int(number)]
    if not siblings:
        return []
    lines = ask(
        "sacct", "--noheader", "--parsable2", f"--name={name}", f"--jobs={','.join(siblings)}",
        "--format=JobIDRaw,State,ReqMem,Timelimit",
    )  # fmt: skip
    steps: dict[int, list[list[str]]] = {}
    for line in lines:
        step, *figures = line.split("|")
        steps.setdefault(int(step.partition(".")[0]), []).append(figures)
    return [_as_one(job, steps[job]) for job in sorted(steps)]


def _shown(line: str, key: str) -> str:
    """The value of a key in a line of scontrol's, which may hold spaces."""
    found = re.search(rf"(?:^| ){key}=(.*?)(?= [A-Z][\w/:]*=|$)", line)
    if found is None:
        raise SlurmError(f"scontrol shows no {key} in: {line}")
    return found[1].strip()


def _as_one(number: int, steps: list[list[str]]) -> Job:
    """A job from its own line and its steps': one that ran out of memory may be FAILED, and only a step says why."""
    states = [state.split()[0] for state, *_ in steps]
    state = next((state for state in states if state in OWN_FAULT), states[0])
    memory, limit = steps[0][1:]
    return Job(number, state, f"{memory}, {limit}")
