"""A search under the real profile, to be disturbed while it runs."""

import json
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
from cluster import Cluster, wait_for
from searches import Run

# What differs between two runs of the same search.
TIMES = {"training_s", "samples_per_s", "loader_samples_per_s", "network_samples_per_s", "work"}


@dataclass
class SlurmRun(Run):
    """A search under the real profile, to be disturbed while it runs."""

    cluster: Cluster = None
    about_cluster: str | None = None
    process: subprocess.Popen | None = None
    programs: Path | None = None
    """A folder whose programs are found before the cluster's."""

    def command(self, *arguments):
        local = super().command(*arguments)
        at = local.index("--cores")
        # What the command line says of the cluster replaces what the profile says.
        about = ["--config", f"cluster={self.about_cluster}"] if self.about_cluster else []
        return [*local[:at], "--profile", "slurm", *local[at + 2 :], *about]

    @property
    def environment(self):
        path = self.cluster.environment["PATH"]
        return {**super().environment, "PATH": f"{self.programs}:{path}" if self.programs else path}

    def start(self, *arguments):
        """Begin a run and return at once."""
        self.log = open(self.folder / "run.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            self.command(*arguments), env=self.environment, cwd=self.source, stdout=self.log, stderr=self.log,
            start_new_session=True,
            # As from a terminal: what a shell puts into the background, and its children, would ignore SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def finish(self, fails=False, seconds=400):
        """Wait until the run has ended; what it printed."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.interrupt()
            raise AssertionError(f"the run hangs:\n{self.printed()}") from None
        finally:
            self.log.close()
        assert (code != 0) == fails, self.printed()
        return self.printed()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)

    def printed(self):
        return (self.folder / "run.log").read_text()

    def jobs(self, rule):
        """State by number of this run's jobs of a rule that are in the queue."""
        found = re.findall(rf"submitted with SLURM jobid (\d+) \(log: \S+/rule_{rule}/", self.printed())
        queue = self.cluster.jobs()
        return {number: queue[number] for number in found if number in queue}

    def running(self, rule, count=1):
        """Wait until so many jobs of a rule run; their numbers."""

        def numbers():
            return [number for number, state in self.jobs(rule).items() if state == "RUNNING"]

        def reached():
            assert self.process.poll() is None, self.printed()
            return len(numbers()) >= count

        wait_for(reached, f"{count} jobs of {rule} run", 300)
        return numbers()

    def submitted(self, rule):
        """Numbers of all jobs of a rule that this run has submitted, in order."""
        return re.findall(rf"submitted with SLURM jobid (\d+) \(log: \S+/rule_{rule}/", self.printed())

    def processes(self, job, name):
        """Processes of a Slurm job whose command line contains `name`."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_JOB_ID") == job and any(name in part for part in process.cmdline()):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                continue
        return found

    def hold(self, job, name):
        """Suspend a Slurm job's processes called `name`, which last some seconds and would be through too soon."""
        wait_for(lambda: self.processes(job, name), f"{name} has begun in job {job}")
        for process in self.processes(job, name):
            process.suspend()

    def history(self):
        """What the search has come to, but for times: candidates by generation, their records and weights."""
        generations = {
            file.parent.name: json.loads(file.read_text())["candidates"]
            for file in sorted(self.path("generations").glob("*/population.json"))
        }
        return {gen: [(name, *self.results(name)) for name in names] for gen, names in generations.items()}

    def results(self, candidate):
        folder = self.path("candidates") / candidate
        train, export = (json.loads((folder / name).read_text()) for name in ("train.json", "export.json"))
        return (
            {key: value for key, value in train.items() if key not in TIMES},
            (folder / "weights.pt").read_bytes(),
            export.get("model_sha256"),
        )
