"""One cluster, one copy of the sources and one set of prepared data for all tests."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

import psutil
import pytest
import yaml
from cluster import Cluster, wait_for, why_not
from searches import ROOT, Run, copy_sources

STAGES = ("simulate", "prepare", "predict", "draft", "train", "export")
# What differs between two runs of the same search.
TIMES = {"training_s", "samples_per_s", "work"}


@dataclass
class SlurmRun(Run):
    """A search under the real profile, to be disturbed while it runs."""

    cluster: Cluster = None
    about_cluster: str | None = None
    process: subprocess.Popen | None = None

    def command(self, *arguments):
        local = super().command(*arguments)
        at = local.index("--cores")
        # What the command line says of the cluster replaces what the profile says.
        about = ["--config", f"cluster={self.about_cluster}"] if self.about_cluster else []
        return [*local[:at], "--profile", "slurm", *local[at + 2 :], *about]

    @property
    def environment(self):
        return {**super().environment, "PATH": self.cluster.environment["PATH"]}

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


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The sources with a profile in which a user has set the values of this cluster."""
    folder = copy_sources(tmp_path_factory.mktemp("site"))
    shutil.copy2(ROOT / "Makefile", folder)
    profile = folder / "slurm/profile.yaml"
    text = profile.read_text()
    for before, after in {
        "  # - slurm_partition=batch\n": "  - slurm_partition=cpu\n",
        "gpus_per_node: 0": "gpus_per_node: 4",
    }.items():
        assert before in text
        text = text.replace(before, after)
    profile.write_text(text)
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, cluster, site):
    """A folder in which data are prepared and the device is enrolled, by a run on this machine."""
    folder = tmp_path_factory.mktemp("prepared")
    run = Run(folder, site, small_search())
    run.snakemake("results/predictors.json", "results/devices/this-machine.json")
    return folder


def small_search(**resources):
    """A search whose history does not depend on the device's mood: at random, everything meets the budget."""
    config = yaml.safe_load((ROOT / "tests/configs/tiny.yaml").read_text())
    config["search"] |= {"strategy": "random", "max_generations": 1}
    config["baselines"] = {}
    config["resources"] = {stage: {"mem_mb": 900, "runtime_min": 5} for stage in STAGES}
    config["resources"]["draft"]["mem_mb"] = 1500
    config["resources"]["train"] |= {"partition": "gpu", **resources}
    return config


@pytest.fixture
def search(tmp_path, prepared, site, cluster):
    """Makes searches that begin where data are prepared. What a failed test leaves at work is ended."""
    runs = []

    def make(name="run", **resources):
        shutil.copytree(prepared, tmp_path / name)
        runs.append(SlurmRun(tmp_path / name, site, small_search(**resources), cluster=cluster))
        return runs[-1]

    yield make
    for run in runs:
        if run.process is not None and run.process.poll() is None:
            run.interrupt()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, prepared, site, cluster):
    """A search of two generations that nothing disturbs; its folder must not be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    run = SlurmRun(folder, site, small_search(), cluster=cluster)
    run.config["search"]["max_generations"] = 2
    run.start()
    run.finish()
    return run


@pytest.fixture
def make(site, cluster):
    """Runs a target of the Makefile in the site's checkout, with this environment in place of one of its own."""

    def run(*arguments):
        command = ["make", "-o", ".venv/ready", f"BIN={os.path.dirname(sys.executable)}", *arguments]
        return subprocess.run(
            command, cwd=site, capture_output=True, text=True, timeout=400,
            env={**os.environ, "PATH": cluster.environment["PATH"], "PYTHONPATH": f"{site}:{site}/src"},
        )  # fmt: skip

    return run
