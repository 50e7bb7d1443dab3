"""A folder with a search in it, run by the real Snakemake."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 1200
"""Many times what any command takes on a quiet machine: it ends what hangs, and nothing that is only slow."""
TINY = yaml.safe_load((ROOT / "tests/configs/tiny.yaml").read_text())


@dataclass
class Run:
    """A folder with a search in it. `source` is the checkout whose workflow and packages are used."""

    folder: Path
    source: Path
    config: dict = field(default_factory=lambda: yaml.safe_load(yaml.safe_dump(TINY)))

    def command(self, *arguments):
        file = self.folder / "config.yaml"
        file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return [
            sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", str(self.source / "Snakefile"),
            "--directory", str(self.folder), *arguments, "--configfile", str(file),
        ]  # fmt: skip

    @property
    def environment(self):
        # A copy of the sources comes before the installed ones.
        return {**os.environ, "PYTHONPATH": f"{self.source}:{self.source}/src", "PYTHONUNBUFFERED": "1"}

    def snakemake(self, *arguments, fails=False):
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment, cwd=self.source, capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output
        return output

    def jobs(self, *arguments):
        """How many jobs of each rule a run would execute now: of what is known before checkpoints are evaluated."""
        output = self.snakemake("--dry-run", *arguments)
        return Counter(re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):", output, re.MULTILINE))

    def executed(self, output):
        """How many jobs of each rule a run did execute."""
        return Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", output))

    def edgeloop(self, *arguments, code=0):
        """What `python -m edgeloop` says in the folder of the run."""
        done = subprocess.run(
            [sys.executable, "-m", "edgeloop", *map(str, arguments)],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def path(self, name):
        return self.folder / "results" / name

    def contents(self, pattern):
        """The bytes of all result files of a pattern."""
        return {file.relative_to(self.folder): file.read_bytes() for file in sorted(self.path("").glob(pattern))}


def copy_sources(folder):
    """A copy of all that a run needs of the repository: a test may edit it."""
    for name in (
        ".gitignore",
        "LICENSE",
        "Snakefile",
        "config",
        "data/raise-lpbf",
        "edge",
        "envs",
        "profiles",
        "slurm",
        "src",
        "tests/configs",
        "workflow",
    ):
        origin, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(origin, target)
    return folder


def commit(folder):
    """Put all that lies in `folder` under git."""
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    for words in (("init", "--quiet"), ("add", "--all"), (*identity, "commit", "--quiet", "--message", "sources")):
        subprocess.run(["git", *words], cwd=folder, check=True)
